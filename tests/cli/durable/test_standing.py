"""`agentflow runs` lists how runs stand, also those whose process was killed before that was recorded."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

FILE = ".agentflow/runs.db"
ENDS = """
from agentflow import *
@node
async def end(s):
    if s.get("how") == "asks":
        await interrupt("Ok?", schema=bool)
    if s.get("how") == "fails":
        raise ValueError("broken")
    s["output"] = "done"
flow = AsyncFlow(end, name="ends")
"""


@pytest.fixture
def ends(place: Path) -> Path:
    (place / "f.py").write_text(ENDS)
    return place


def forget(*statements: str) -> None:
    with closing(sqlite3.connect(FILE)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def never_recorded() -> None:
    """As it is when the process is killed before the first events have been written."""
    forget("DROP TABLE runs", "DELETE FROM meta WHERE component = 'runs'")


def listed(invoke, *words: str) -> dict[str, str]:
    return {run["id"]: run["status"] for run in json.loads(invoke("runs", "--json", *words).stdout)}


def test_a_run_that_was_killed_as_it_ended_stands_as_it_is_kept(ends: Path, invoke) -> None:
    for how in ("ends", "fails", "asks"):
        invoke("run", "f.py", "--run-id", how, "--input", f"how={how}")
    forget(
        "UPDATE runs SET status = 'running', duration = NULL, error = NULL", "UPDATE processes SET pid = 1, began = 'x'"
    )
    assert listed(invoke) == {"ends": "done", "fails": "failed", "asks": "waiting"}
    assert listed(invoke, "--status", "done") == {"ends": "done"}
    assert listed(invoke, "--status", "lost") == {}
    assert "ValueError: broken" in invoke("runs", "--status", "failed").stdout


def test_a_run_that_is_kept_as_running_stays_lost(ends: Path, invoke) -> None:
    invoke("run", "f.py", "--run-id", "one")
    forget(
        "UPDATE runs SET status = 'running', duration = NULL",
        "UPDATE processes SET pid = 1, began = 'x'",
        "UPDATE durable_runs SET status = 'running', final = 0",
    )
    assert listed(invoke) == listed(invoke, "--status", "lost") == {"one": "lost"}


def test_before_anything_was_recorded_the_runs_that_are_kept_are_listed(ends: Path, invoke) -> None:
    invoke("run", "f.py", "--run-id", "one")
    invoke("run", "f.py", "--run-id", "two", "--input", "how=asks")
    never_recorded()
    assert listed(invoke) == {"two": "waiting", "one": "done"}
    assert listed(invoke, "--status", "waiting", "--flow", "en*") == {"two": "waiting"}
    assert listed(invoke, "--flow", "other") == listed(invoke, "--model", "m") == {}
    shown = invoke("runs")
    assert (shown.exit_code, "ends" in shown.stdout) == (0, True)


def test_a_run_that_was_never_recorded_is_listed_beside_others(ends: Path, invoke) -> None:
    for name in ("one", "two", "three"):
        invoke("run", "f.py", "--run-id", name)
    forget(
        "DELETE FROM runs WHERE id <> 'two'",
        "UPDATE durable_runs SET status = 'running', final = 0 WHERE id = 'one'",
    )
    assert listed(invoke) == {"two": "done", "one": "lost"}
    assert listed(invoke, "--status", "lost") == {"one": "lost"}
    assert listed(invoke, "--limit", "1") == {"two": "done"}


def test_a_file_with_nothing_in_it_lists_nothing(ends: Path, invoke) -> None:
    Path(FILE).parent.mkdir()
    Path(FILE).touch()
    shown = invoke("runs")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert shown.stderr == "no runs: `agentflow run FILE` records one\n"
    assert os.path.getsize(FILE) == 0


def test_garbage_in_place_of_the_file_stops_no_run(ends: Path, invoke) -> None:
    Path(FILE).parent.mkdir()
    Path(FILE).write_text("garbage")
    shown = invoke("run", "f.py")
    assert (shown.exit_code, shown.stdout) == (0, "done\n")
    assert "is no run store, and is left as it is" in shown.stderr
    assert Path(FILE).read_text() == "garbage"
    assert invoke("runs").exit_code == 1
