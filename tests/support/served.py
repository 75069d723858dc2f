"""Our server on loopback, and OpenAI's own client before it.

async with running(registry_of(tmp_path, toy=ScriptedProvider(…)), "toy/m") as server:
    await server.client().chat.completions.create(model="toy/m", …)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
from aiohttp import web

from agentflow import ModelRegistry
from agentflow.llm.providers.base import LLMProvider
from agentflow.server import app

__all__ = ["Running", "registry_of", "running"]


@dataclass(frozen=True)
class Running:
    """A server that answers under `url`, `http://127.0.0.1:…`."""

    url: str
    runner: web.AppRunner

    def client(self, key: str = "none", *, retries: int = 0) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=retries, timeout=60)


def registry_of(folder: Path, yml: str = "", **providers: LLMProvider) -> ModelRegistry:
    """A registry that knows `toy/any-name` for a provider `toy`, and nothing of this machine."""
    if yml:
        (folder / "models.yml").write_text(yml)
    registry = ModelRegistry.load(environ={}, cwd=folder, home=folder)
    for name, provider in providers.items():
        registry.register_provider(name, lambda _, provider=provider: provider)  # type: ignore[misc]
    return registry


@asynccontextmanager
async def running(
    registry: ModelRegistry,
    *models: str,
    api_key: str | None = None,
    max_concurrency: int | None = None,
    largest_body: int = 1 << 20,
    hosts: Collection[str] = (),
) -> AsyncIterator[Running]:
    """The server, answering to these models until the body ends."""
    application = app(
        models=models,
        registry=registry,
        api_key=api_key,
        max_concurrency=max_concurrency,
        largest_body=largest_body,
        hosts=hosts,
    )
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Running(f"http://127.0.0.1:{runner.addresses[0][1]}", runner)
    finally:
        await runner.cleanup()
        await registry.aclose()
