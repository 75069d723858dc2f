"""The server as an aiohttp application, to be run by `serve` or inside a program of your own.

    application = app(models=["edge/support"])
    web.run_app(application, host="127.0.0.1", port=8000, handler_cancellation=True)

With `handler_cancellation` a client that goes away stops the model at once; without it a stream stops at its next
piece, and a whole answer is made to its end for nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from aiohttp import web

from agentflow.errors import ConfigurationError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.providers.base import Secret
from agentflow.server.access import Access
from agentflow.server.answering import answering
from agentflow.server.endpoints import Endpoints

__all__ = ["LARGEST_BODY", "app"]

LARGEST_BODY: Final = 32 * 1024 * 1024
"""Bytes of one request; pictures travel in it, in base64."""


def app(
    *,
    models: Sequence[str],
    registry: ModelRegistry | None = None,
    api_key: str | Secret | None = None,
    max_concurrency: int | None = None,
    largest_body: int = LARGEST_BODY,
    hosts: Collection[str] = (),
) -> web.Application:
    """An application that answers OpenAI's API with these models of the registry (the default one, unless another is
    given).

    Without `api_key` everybody who can connect may ask. At most `max_concurrency` requests are worked on at once, the
    others wait their turn. `hosts` are names besides localhost under which the server is reached by way of loopback, as
    behind a proxy. Raises UnknownModelError, MissingKeyError, and ConfigurationError.
    """
    if isinstance(models, str) or not models:
        raise ConfigurationError("models is a list of names, at least one, as in models=['edge/support']")
    found = _registry(registry)
    served = {name: found.resolve(name)[0].provider for name in models}
    access = Access(key=_secret(api_key), hosts=hosts)
    application = web.Application(middlewares=[answering(access)], client_max_size=largest_body)
    application.add_routes(Endpoints(found, served, at_once=max_concurrency).routes())

    async def close(_: web.Application) -> None:
        access.closing = True

    application.on_shutdown.append(close)
    return application


def _registry(registry: ModelRegistry | None) -> ModelRegistry:
    """The default registry, with what its models.yml wants recorded, as for any call."""
    if registry is not None:
        return registry
    found = AgentFlow.registry
    if not found.observing.running:
        found.observe()
    return found


def _secret(key: str | Secret | None) -> Secret | None:
    if key is None or isinstance(key, Secret):
        return key
    if not key.strip():
        raise ConfigurationError("api_key is empty, which would let nobody in: leave it out, or give it a text")
    return Secret(key)
