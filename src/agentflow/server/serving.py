"""Runs the server until it is told to stop, and then lets what is under way come to an end.

await serve(models=["edge/support"], stop=event)

stop ──▶ no new connections, 503 for new requests ──▶ at most `grace` seconds for the others ──▶ they are cancelled
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

from aiohttp import web

from agentflow.errors import ConfigurationError
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.providers.base import Secret
from agentflow.server.access import is_loopback
from agentflow.server.app import LARGEST_BODY, app

__all__ = ["serve"]

_LOG: Final = logging.getLogger("agentflow.server")


async def serve(
    *,
    models: Sequence[str],
    registry: ModelRegistry | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | Secret | None = None,
    max_concurrency: int | None = None,
    largest_body: int = LARGEST_BODY,
    hosts: Collection[str] = (),
    grace: float = 10.0,
    stop: asyncio.Event | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Answers until `stop` is set or the task is cancelled. `port` 0 takes a free one; `ready` is told the address,
    `http://127.0.0.1:8000/v1`. See `app` for the rest. Raises ConfigurationError where the address cannot be had."""
    application = app(
        models=models,
        registry=registry,
        api_key=api_key,
        max_concurrency=max_concurrency,
        largest_body=largest_body,
        hosts=hosts,
    )
    if api_key is None and not is_loopback(host):
        _LOG.warning(
            "the server listens on %s, beyond this machine, and asks for no key: whoever reaches it may use its models",
            host,
        )
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=grace, handle_signals=False
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error
        ready(_address(host, runner))
        await (stop or asyncio.Event()).wait()
    finally:
        await runner.cleanup()


def _address(host: str, runner: web.AppRunner) -> str:
    port = runner.addresses[0][1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
