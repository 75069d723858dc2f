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
    PermissionDeniedError,
    RateLimitError,
    StateKeyError,
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
        (_failed(PermissionDeniedError("not this model")), 3),
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


def test_a_key_in_an_error_is_shown_nowhere(invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "flow.py").write_text(
        "import os\nfrom agentflow import *\n@node\ndef fail(s):\n"
        "    raise ValueError(os.environ['REFUSED'])\nflow = AsyncFlow(fail)\n"
    )
    refused = "db https://u:hunter2@db refused sk-proj-4f9aB81xQz77LmNp20rT; ask ada@example.org"
    monkeypatch.setenv("REFUSED", refused)
    for words in ([], ["--debug"], ["--json"]):
        shown = invoke("run", "flow.py", *words)
        assert shown.exit_code == 1
        assert "refused [redacted:key]; ask ada@example.org" in shown.stderr.splitlines()[-1]
        assert "4f9aB81x" not in shown.output
        assert "hunter2" not in shown.output


def test_a_message_of_many_lines_is_said_in_one() -> None:
    assert explain(ConfigurationError("one\n  two\nthree")) == "one two three"


def test_an_operating_system_error_without_a_file_is_said_in_words() -> None:
    assert explain(OSError(28, "No space left on device")) == "No space left on device"


def test_a_key_that_the_state_lacks_comes_with_the_way_to_give_it() -> None:
    shown = explain(_failed(StateKeyError("topic")))
    assert shown == "the state has no 'topic'; if it is input, give it: --input topic=… (in flow/read#1)"
    assert explain(StateKeyError("topc", ["topic"])) == "the state has no 'topc'; did you mean 'topic'?"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--outptu", "x"], "No such option '--outptu'."),
        (["run"], "Missing argument 'FILE[:NAME]'. (see agentflow run --help)"),
        (["--bad"], "No such option '--bad'. (see agentflow --help)"),
        (["rnu"], "No such command 'rnu'. Did you mean `agentflow run`? (see agentflow --help)"),
        (["run", "f.py", "-i", "x"], "Invalid value for --input: 'x' is not KEY=VALUE, as in topic=tides"),
    ],
)
def test_a_wrong_command_line_is_one_line_too(spawn, hello: Path, words: list[str], said: str) -> None:
    if words[1:2] == ["f.py"]:
        words = ["run", "flow.py", *words[2:]]
    process = spawn(*words)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, b"")
    assert err.decode().startswith(f"error: {said}")
    assert err.decode().count("\n") == 1


def test_no_command_at_all_shows_the_help(spawn) -> None:
    process = spawn()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"Exit codes:" in err


def test_ctrl_c_while_the_command_is_still_loading_prints_no_traceback(place: Path) -> None:
    """A `click` that is interrupted while it is imported stands for the first tenth of a second."""
    (place / "click.py").write_text("raise KeyboardInterrupt\n")
    ended = subprocess.run([sys.executable, "-m", "agentflow"], capture_output=True, text=True, cwd=place)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "\ninterrupted\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_stop_nothing(hello: Path, closed: str) -> None:
    command = f'"{sys.executable}" -m agentflow.cli.main run flow.py -i name=Ada -o out.md {closed}'
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=hello.parent)
    assert ended.returncode == 0, ended.stderr
    assert (hello.parent / "out.md").read_text() == "Hello Ada\n"
