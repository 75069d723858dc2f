"""A place where the command line meets nobody's keys and files but the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentflow.cli.main import commands
from agentflow.llm.agentflow import AgentFlow

Invoke = Callable[..., Result]
Spawn = Callable[..., "subprocess.Popen[bytes]"]

KEYS = ("OPENAI_API_KEY", "OPENAI_KEY", "MOONSHOT_API_KEY", "MOONSHOT_KEY", "AGENTFLOW_CONFIG", "AGENTFLOW_RUNS")

HELLO = """
from agentflow import AsyncFlow, node

@node(reads="name", writes="output")
async def greet(name: str) -> str:
    return f"Hello {name}"

flow = AsyncFlow(greet, name="hello")
"""


@pytest.fixture(autouse=True)
def ctrl_c_stays_python_s() -> Iterator[None]:
    """A command that is interrupted within the test's process gives the signal away; it comes back here."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def nobody_says_how_wide_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a narrow terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, an empty home, no keys, no configuration loaded yet."""
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    monkeypatch.setattr(type(AgentFlow), "_registry", None)
    paths, modules = list(sys.path), set(sys.modules)
    yield work
    sys.path[:] = paths
    for name in set(sys.modules) - modules:
        if name.startswith("agentflow_file_") or name == "documents":
            del sys.modules[name]


@pytest.fixture
def invoke(place: Path) -> Invoke:
    """`agentflow …` in this process; `.exit_code`, `.stdout` and `.stderr` tell the rest."""

    def call(*words: str, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(commands, words, input=input, prog_name="agentflow")

    return call


@pytest.fixture
def spawn(place: Path) -> Iterator[Spawn]:
    """`agentflow …` as a process of its own, ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **options: object) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(  # type: ignore[call-overload]  # options are the caller's
            [sys.executable, "-m", "agentflow.cli.main", *words], cwd=place, env=environ, **settings
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def hello(place: Path) -> Path:
    """A flow file that greets `name`."""
    file = place / "flow.py"
    file.write_text(HELLO)
    return file
