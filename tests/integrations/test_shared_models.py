"""`defaults.shared` of models.yml against a real server: two registries, as two processes have them, keep one limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.valkey_server import Server, running

from agentflow.errors import CircuitOpenError, LimiterError, ServerError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Request
from agentflow.llm.providers.scripted import ScriptedProvider

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


class Process:
    """What one process has: a registry of its own, and a provider that always answers, or always fails."""

    def __init__(self, folder: Path, server: Server, name: str) -> None:
        (folder / "models.yml").write_text(
            "defaults:\n"
            f"  shared: {{url_env: STORE_URL, replicas: 2, prefix: {name}}}\n"
            "  retry: {max_attempts: 1}\n"
            "  breaker: {window: 4, min_calls: 2, open_for: 60}\n"
            "providers: {toy: {rate_limit: {requests_per_minute: 600}}}\n"
        )
        self.down = False
        self.registry = ModelRegistry.load(environ={"STORE_URL": server.url}, cwd=folder, home=folder)
        self.registry.register_provider("toy", lambda _: ScriptedProvider(self.answer, name="toy"))

    def answer(self, request: Request) -> str | Exception:
        return ServerError("down") if self.down else "here"

    @property
    def model(self) -> LLMClientBuilder:
        return AgentFlow.model("toy/m", registry=self.registry).prompt("Hi").timeout(60)


async def test_two_registries_keep_the_limit_of_one(server: Server, tmp_path: Path) -> None:
    """Forty calls at ten a second take four seconds, or three and a bit with what the store has saved up by then. Each
    by itself, with a full bucket of its own, would let its twenty calls through at once."""
    pair = [Process(tmp_path, server, "limits") for _ in range(2)]
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        await asyncio.gather(*(process.model.execute() for process in pair for _ in range(20)))
    finally:
        for process in pair:
            await process.registry.aclose()
    assert clock() - started > 2.5


async def test_a_breaker_that_opened_in_one_process_is_open_in_the_other(server: Server, tmp_path: Path) -> None:
    failing, other = (Process(tmp_path, server, "breakers") for _ in range(2))
    failing.down = True
    try:
        while not isinstance(await outcome(failing), CircuitOpenError):
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while not isinstance(await outcome(other), CircuitOpenError):
                await asyncio.sleep(0.05)
    finally:
        await failing.registry.aclose()
        await other.registry.aclose()


async def outcome(process: Process) -> Exception | None:
    try:
        await process.model.execute()
    except (CircuitOpenError, LimiterError, ServerError) as error:
        return error
    return None
