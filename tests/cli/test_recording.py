"""What the command line keeps of what it runs, where, and that nothing about it stops a run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from agentflow.core.observability.store import RunReader
from agentflow.llm.agentflow import AgentFlow

FILE = ".agentflow/runs.db"


def test_a_run_is_recorded_and_its_last_line_says_how_to_look_at_it(invoke, hello: Path, place: Path) -> None:
    shown = invoke("run", "flow.py", "-i", "name=Ada")
    assert (shown.exit_code, shown.stdout) == (0, "Hello Ada\n")
    with RunReader(place / FILE) as reader:
        [run] = reader.runs()
    assert (run.name, run.status, run.kind) == ("hello", "done", "flow")
    assert shown.stderr.splitlines()[-1].endswith(f"(agentflow trace {run.id})")
    traced = invoke("trace", run.id)
    assert traced.exit_code == 0
    assert "hello ran to its end in" in traced.stdout


def test_a_question_is_recorded_too(invoke, place: Path) -> None:
    asked = invoke("ask", "The moon pulls the sea. Tides follow. Ships wait.")
    assert asked.exit_code == 0
    assert "agentflow trace" not in asked.stderr
    with RunReader(place / FILE) as reader:
        [run] = reader.runs()
    assert (run.kind, run.calls, run.models) == ("call", 1, ("local/extractive",))


def test_a_failed_run_is_recorded_with_its_error(invoke, hello: Path, place: Path) -> None:
    failed = invoke("run", "flow.py")
    assert failed.exit_code == 1
    *_, before, last = failed.stderr.splitlines()
    assert last.startswith("error: ")
    assert before.startswith("failed after ")
    with RunReader(place / FILE) as reader:
        [run] = reader.runs(status="failed")
    assert "name" in str(run.error)


@pytest.mark.parametrize("how", ["option", "variable"])
def test_recording_can_be_turned_off(invoke, hello: Path, place: Path, how: str, monkeypatch) -> None:
    if how == "variable":
        monkeypatch.setenv("AGENTFLOW_RUNS", "off")
    shown = invoke("run", "flow.py", "-i", "name=Ada", *(["--no-record"] if how == "option" else []))
    assert shown.exit_code == 0
    assert "agentflow trace" not in shown.stderr
    assert not (place / ".agentflow").exists()


def test_a_variable_names_another_file(invoke, hello: Path, place: Path, monkeypatch) -> None:
    monkeypatch.setenv("AGENTFLOW_RUNS", str(place / "elsewhere.db"))
    invoke("run", "-q", "flow.py", "-i", "name=Ada")
    assert not (place / ".agentflow").exists()
    assert len(json.loads(invoke("runs", "--json").stdout)) == 1


def test_a_file_that_cannot_be_written_is_said_and_the_run_goes_on(invoke, hello: Path, place: Path) -> None:
    (place / ".agentflow").write_text("a file where a folder should be")
    shown = invoke("run", "flow.py", "-i", "name=Ada")
    assert (shown.exit_code, shown.stdout) == (0, "Hello Ada\n")
    assert "note: " in shown.stderr
    assert "not recorded" in shown.stderr
    assert "agentflow trace" not in shown.stderr.splitlines()[-1]
    assert invoke("run", "-q", "flow.py", "-i", "name=Ada").stderr == ""


def test_what_could_not_be_recorded_is_said_once_and_to_the_quiet_not_at_all(spawn, hello: Path, place: Path) -> None:
    (place / ".agentflow").write_text("a file where a folder should be")
    _, said = spawn("run", "flow.py", "-i", "name=Ada").communicate(timeout=30)
    assert said.decode().count("runs.db") == 1
    _, said = spawn("run", "-q", "flow.py", "-i", "name=Ada").communicate(timeout=30)
    assert said == b""


def test_a_name_that_is_no_file_is_said_and_the_run_goes_on(invoke, hello: Path, monkeypatch) -> None:
    monkeypatch.setenv("AGENTFLOW_RUNS", ":memory:")
    shown = invoke("run", "flow.py", "-i", "name=Ada")
    assert (shown.exit_code, shown.stdout) == (0, "Hello Ada\n")
    assert "a run store is a file on a disk" in shown.stderr


def test_a_locked_file_delays_nobody_for_long_and_is_said(invoke, hello: Path, place: Path) -> None:
    invoke("run", "-q", "flow.py", "-i", "name=Ada")
    with sqlite3.connect(place / FILE, isolation_level=None) as locking:
        locking.execute("BEGIN EXCLUSIVE")
        shown = invoke("run", "flow.py", "-i", "name=Ada")
        locking.execute("ROLLBACK")
    locking.close()
    assert (shown.exit_code, shown.stdout) == (0, "Hello Ada\n")
    assert "not recorded" in shown.stderr


def test_models_yml_says_where_and_what_is_kept_and_the_variable_wins(invoke, place: Path, monkeypatch) -> None:
    (place / "models.yml").write_text("observability: {runs: {path: kept/mine.db, capture: content}}\n")
    assert invoke("ask", "The moon pulls the sea. Tides follow.").exit_code == 0
    assert not (place / ".agentflow").exists()
    page = invoke("trace", "last", "--html", "-").stdout
    assert "The moon pulls the sea." in page
    monkeypatch.setenv("AGENTFLOW_RUNS", "other.db")
    monkeypatch.setattr(type(AgentFlow), "_registry", None)
    invoke("ask", "Ships wait for the water. The rest is quiet.")
    with RunReader("kept/mine.db") as mine, RunReader("other.db") as other:
        assert (len(mine.runs()), len(other.runs())) == (1, 1)


@pytest.mark.parametrize("how", ["models.yml", "--no-record", "AGENTFLOW_RUNS"])
def test_whoever_says_no_is_obeyed(invoke, hello: Path, place: Path, monkeypatch, how: str) -> None:
    (place / "models.yml").write_text(f"observability: {{runs: {'false' if how == 'models.yml' else 'true'}}}\n")
    if how == "AGENTFLOW_RUNS":
        monkeypatch.setenv("AGENTFLOW_RUNS", "OFF")
    shown = invoke("run", "flow.py", "-i", "name=Ada", *([how] if how == "--no-record" else []))
    assert shown.exit_code == 0
    assert not (place / ".agentflow").exists()
    assert "agentflow trace" not in shown.stderr


@pytest.mark.parametrize("broken", ["models: [", "observability: {run: false}", "audit: {fsync: sometimes}"])
def test_a_broken_models_yml_stops_a_flow_before_it_begins(invoke, hello: Path, place: Path, broken: str) -> None:
    """Nobody knows whether it asked for an audit, or for nothing to be kept."""
    (place / "models.yml").write_text(broken)
    shown = invoke("run", "flow.py", "-i", "name=Ada")
    assert (shown.exit_code, shown.stdout) == (3, "")
    assert "models.yml:" in shown.stderr
    assert not (place / ".agentflow").exists()


def test_a_broken_models_yml_keeps_nobody_from_looking_and_is_said(
    invoke, hello: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("run", "flow.py", "-i", "name=Ada").exit_code == 0
    (place / "models.yml").write_text("observability: {run: mine.db}")
    monkeypatch.setattr(type(AgentFlow), "_registry", None)
    shown = invoke("trace")
    assert shown.exit_code == 0
    assert "hello ran to its end" in shown.stdout
    assert "note: the usual file is read" in shown.stderr
    assert "models.yml:" in shown.stderr


def test_prompts_and_answers_are_not_kept(invoke, place: Path) -> None:
    invoke("ask", "SECRETWORD pulls the sea. Tides follow.")
    assert b"SECRETWORD" not in b"".join(path.read_bytes() for path in (place / ".agentflow").iterdir())


def test_json_stays_alone_on_stdout(invoke, hello: Path) -> None:
    shown = invoke("run", "flow.py", "-i", "name=Ada", "--json")
    assert json.loads(shown.stdout)["output"] == "Hello Ada"


def test_a_key_in_an_error_is_shown_nowhere(invoke, place: Path) -> None:
    key = "sk-proj-" + "Zk3" * 16
    (place / "f.py").write_text(
        "from agentflow import *\n@node\nasync def a(s): raise ValueError('refused: ' + "
        f"{key!r})\nflow = AsyncFlow(a, name='leaky')\n"
    )
    assert invoke("run", "-q", "f.py").exit_code == 1
    for words in (["trace"], ["trace", "--json"], ["trace", "--html", "-"], ["trace", "--follow", "--json"], ["runs"]):
        shown = invoke(*words)
        assert shown.exit_code == 0
        assert "leaky" in shown.stdout
        assert "Zk3Zk3" not in shown.stdout + shown.stderr
