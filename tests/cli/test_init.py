"""`agentflow init`: what it writes runs, and what was there stays."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

from agentflow.cli.servers import Answer, Server
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry

KEY = "sk-test-0123456789abcdefghij"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow.cli.init.USUAL", ())


def test_what_it_writes_runs(invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = invoke("init", "new/project")
    assert shown.exit_code == 0
    assert "Try it: cd new/project && agentflow run flow.py" in shown.stdout
    monkeypatch.chdir(place / "new" / "project")
    ran = invoke("run", "-q", "flow.py")
    assert ran.exit_code == 0
    assert "words became" in ran.stdout
    Path("notes.txt").write_text("The moon pulls the sea.")
    assert "The moon pulls the sea." in invoke("run", "-q", "flow.py", "notes.txt").stdout


def test_files_that_are_there_stay_unless_forced(invoke, place: Path) -> None:
    (place / "models.yml").write_text("models: [broken\n")
    shown = invoke("init")
    assert shown.exit_code == 2
    assert "models.yml is there already: --force replaces" in shown.stderr
    assert [path.name for path in place.iterdir()] == ["models.yml"]
    assert invoke("init", "--force").exit_code == 0
    assert ModelRegistry.load(cwd=place).default_model().name == "local/extractive"


def test_a_key_in_the_environment_chooses_its_provider_and_is_not_written(
    invoke, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", KEY)
    assert invoke("init", "--yes").exit_code == 0
    assert AgentFlow.registry.default_model().name == "kimi-k2.6"
    assert all(KEY not in path.read_text() for path in place.iterdir())


def test_a_server_is_chosen_when_there_is_no_key(invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("ollama", "Ollama", 1)
    monkeypatch.setattr("agentflow.cli.init.probe", lambda servers: [Answer(server, True, ("llama3.2:3b",))])
    assert invoke("init").exit_code == 0
    assert AgentFlow.registry.default_model().name == "ollama/llama3.2:3b"


@pytest.mark.parametrize(("typed", "model"), [("y\n", "gpt-4o-mini"), ("n\n" * 9, None), ("\n", "gpt-4o-mini")])
def test_on_a_terminal_it_asks(
    spawn, place: Path, monkeypatch: pytest.MonkeyPatch, typed: str, model: str | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ours, theirs = pty.openpty()
    try:
        process = spawn("init", stdin=theirs)
        os.write(ours, typed.encode())
        out, err = process.communicate(timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0, err
    assert b"OPENAI_API_KEY or OPENAI_KEY is set. Use openai with gpt-4o-mini? [Y/n]" in out
    # A server on a usual port of this machine may be offered, too, and taken: what counts is the first answer.
    assert (f'model: "{model}"' in (place / "models.yml").read_text()) == (model is not None)


def test_a_folder_that_is_a_file_is_a_usage_error(invoke, place: Path) -> None:
    (place / "x").touch()
    assert invoke("init", "x").exit_code == 2


assert sys.platform != "win32", "pty is needed"
