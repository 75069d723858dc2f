"""The front door: one default registry, loaded on first use, by whichever thread comes first."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import agentflow
import agentflow.llm
from agentflow.errors import ConfigurationError
from agentflow.llm.agentflow import AgentFlow, _Door
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.providers.scripted import ScriptedProvider

SCRIPTED = "providers: {toy: {kind: scripted, options: {answers: [one, two]}}}\nmodels: {m: {provider: toy}}\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project and home, and no registry loaded yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AGENTFLOW_CONFIG", "OPENAI_API_KEY", "OPENAI_KEY", "MOONSHOT_API_KEY", "MOONSHOT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_Door, "_registry", None)
    return tmp_path


async def test_the_first_call_loads_the_projects_configuration(project: Path) -> None:
    (project / "models.yml").write_text(SCRIPTED)
    assert await AgentFlow.model("m").prompt("Hi").execute() == "one"
    assert AgentFlow.registry is AgentFlow.registry


async def test_init_loads_a_configuration_and_makes_it_the_default(project: Path) -> None:
    (project / "mine.yml").write_text(SCRIPTED)
    registry = AgentFlow.init("mine.yml")
    assert AgentFlow.registry is registry
    assert await AgentFlow.model("m").prompt("Hi").execute() == "one"


def test_init_with_a_bad_file_keeps_what_was_loaded(project: Path) -> None:
    before = AgentFlow.registry
    (project / "bad.yml").write_text("models: {m: {temperature: 9}}")
    with pytest.raises(ConfigurationError, match=r"bad\.yml:1:14"):
        AgentFlow.init(project / "bad.yml")
    assert AgentFlow.registry is before


async def test_a_builder_may_be_written_down_before_init(project: Path) -> None:
    """A flow file names its models when it is imported; the command line loads the configuration after that."""
    early = AgentFlow.model("m").prompt("Hi")
    (project / "mine.yml").write_text(SCRIPTED)
    AgentFlow.init("mine.yml")
    assert await early.execute() == "one"


async def test_a_registry_may_be_given_or_set(project: Path) -> None:
    registry = ModelRegistry.load(environ={}, cwd=project, home=project)
    registry.register_provider("toy", lambda _: ScriptedProvider(lambda request: "given"))
    assert await AgentFlow.model("toy/m", registry=registry).prompt("Hi").execute() == "given"
    AgentFlow.registry = registry
    assert await AgentFlow.model("toy/m").prompt("Hi").execute() == "given"


def test_threads_that_come_first_together_load_one_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, second = threading.Barrier(8), threading.Barrier(2)
    found: list[ModelRegistry] = []
    load = ModelRegistry.load

    def slow_load() -> ModelRegistry:
        with contextlib.suppress(threading.BrokenBarrierError):
            second.wait(0.05)  # time for another thread to come in, if it could
        return load()

    def ask() -> None:
        gate.wait()
        found.append(AgentFlow.registry)

    monkeypatch.setattr(ModelRegistry, "load", slow_load)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_a_sync_call_through_the_front_door(project: Path) -> None:
    (project / "models.yml").write_text(SCRIPTED)
    assert AgentFlow.model("m").prompt("Hi").execute_sync() == "one"


async def test_aclose_closes_the_default_registrys_providers_and_loads_none(project: Path) -> None:
    await AgentFlow.aclose()
    assert _Door._registry is None
    (project / "models.yml").write_text(SCRIPTED)
    first = AgentFlow.registry.resolve("m")[1]
    await AgentFlow.aclose()
    assert AgentFlow.registry.resolve("m")[1] is not first


async def test_a_compatible_server_needs_six_lines_of_models_yml(project: Path) -> None:
    """The real OpenAI provider over a real socket: address, header, key and parameters all come from the files."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(
            next(line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length"))
        )
        heard.append(head + await reader.readexactly(length))
        body = b'{"model":"m-1","choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}'
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        await reader.read()  # until the client closes
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        (project / ".env").write_text("LAB_KEY=sentinel-0123456789\n")
        (project / "models.yml").write_text(
            "providers:\n  lab:\n    kind: openai\n"
            f"    base_url: http://127.0.0.1:{port}/v1\n    api_key_env: LAB_KEY\n    headers: {{x-team: search}}\n"
        )
        reply = await AgentFlow.model("lab/anything").prompt("Hi").temperature(0.5).execute_full()
        await AgentFlow.aclose()
    assert (reply.text, reply.model, reply.provider) == ("Hello", "m-1", "lab")
    for part in (b"POST /v1/chat/completions", b"x-team: search", b"Bearer sentinel-0123456789", b'"temperature":0.5'):
        assert part.lower() in heard[0].lower()


# ---- names and imports ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [agentflow, agentflow.llm])
def test_every_name_of_the_face_is_there(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]  # both are modules with one
        assert getattr(package, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'agentflow' has no attribute 'AgentFlo'"):
        agentflow.AgentFlo  # type: ignore[attr-defined]  # noqa: B018 - the mistake


@pytest.mark.parametrize("statement", ["import agentflow", "import agentflow.llm", "from agentflow import AgentFlow"])
def test_importing_loads_no_http_client(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted({{'aiohttp', 'rich', 'click', 'numpy'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("statement", ["import agentflow", "import agentflow.llm"])
def test_importing_a_package_loads_neither_yaml_nor_msgspec(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted({{'yaml', 'msgspec', 'asyncio'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
