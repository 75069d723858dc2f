"""The command as a whole: help, exit codes, and what an error looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentflow.cli.failures import exit_code, explain
from agentflow.errors import (
    AuthenticationError,
    ConfigurationError,
    DocumentError,
    FlowFileError,
    InputError,
    NodeError,
    RateLimitError,
)


def test_help_lists_every_command_and_exit_code(invoke) -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    for word in ("run", "ask", "models", "graph", "doctor", "init", "130  Ctrl-C", "3    configuration"):
        assert word in shown.stdout


@pytest.mark.parametrize("command", ["run", "ask", "models", "graph", "doctor", "init"])
def test_each_command_explains_itself(invoke, command: str) -> None:
    shown = invoke(command, "--help")
    assert shown.exit_code == 0
    assert f"agentflow {command}" in shown.stdout
    assert "--debug" in shown.stdout


def test_version_is_the_distributions(invoke) -> None:
    assert invoke("--version").stdout.startswith("agentflow 0.")


def test_an_unknown_command_gets_a_suggestion(invoke) -> None:
    shown = invoke("modles")
    assert shown.exit_code == 2
    assert "Did you mean `agentflow models`?" in shown.stderr


def test_a_flow_file_without_run_gets_the_whole_command(invoke) -> None:
    assert "Did you mean `agentflow run flow.py:main`?" in invoke("flow.py:main").stderr


def test_help_loads_neither_the_engine_nor_rich_nor_yaml(place: Path) -> None:
    """What makes `agentflow --help` quick."""
    program = (
        "import sys; from agentflow.cli.main import commands\n"
        "commands(['--help'], standalone_mode=False)\n"
        "print([name for name in ('rich', 'aiohttp', 'yaml', 'agentflow.core', 'asyncio') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=place)
    assert shown.stdout.rstrip().endswith("[]")


def test_an_error_is_one_line_without_a_traceback(spawn, place: Path) -> None:
    process = spawn("run", "missing.py")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, b"")
    assert err.decode().count("\n") == 1
    assert err.startswith(b"error: there is no file missing.py")


@pytest.mark.parametrize("words", [["--debug", "run", "missing.py"], ["run", "missing.py", "--debug"]])
def test_debug_shows_the_traceback_above_the_same_line(invoke, words: list[str]) -> None:
    shown = invoke(*words)
    assert shown.exit_code == 2
    assert "Traceback (most recent call last)" in shown.stderr
    assert shown.stderr.splitlines()[-1].startswith("error: there is no file missing.py")


def _failed(cause: Exception) -> NodeError:
    error = NodeError("flow/read#1", "exec", 1, cause)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RateLimitError("too fast"), 1),
        (ValueError("a bug"), 1),
        (FlowFileError("no flow"), 2),
        (InputError("no field"), 2),
        (_failed(DocumentError("no such folder")), 2),
        (ConfigurationError("broken"), 3),
        (_failed(AuthenticationError("wrong key")), 3),
        (_failed(_failed(ConfigurationError("broken"))), 3),
    ],
)
def test_the_root_of_an_error_decides_the_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_a_node_error_says_its_cause_first_and_then_the_node() -> None:
    assert explain(_failed(DocumentError("docs: no such folder"))) == "docs: no such folder (in flow/read#1)"


def test_an_error_of_the_users_code_says_the_line(invoke, place: Path) -> None:
    (place / "flow.py").write_text(
        "from agentflow import *\n@node\ndef divide(s):\n    1 / 0\nflow = AsyncFlow(divide)\n"
    )
    shown = invoke("run", "flow.py")
    assert shown.exit_code == 1
    assert "error: ZeroDivisionError: division by zero at flow.py:4 (in flow/divide#1)" in shown.stderr


def test_a_missing_file_of_the_users_code_is_named() -> None:
    error = _failed(FileNotFoundError(2, "No such file or directory", "notes.txt"))
    assert explain(error) == "notes.txt: No such file or directory (in flow/read#1)"
