"""`agentflow trace`, `runs` and `cost`: what they find, show and refuse."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.run_events import RunEvents, busy_run

from agentflow.core.observability.store import RunStore

FILE = ".agentflow/runs.db"


def record(place: Path, *runs: RunEvents) -> None:
    with RunStore(place / FILE) as store:
        for run in runs:
            for event in run.events:
                store.observe(event)


def story(run_id: str, name: str = "f", *, ago: float = 60.0, how: str = "success", model: str = "gpt-4o") -> RunEvents:
    run = RunEvents(run_id, time.time() - ago)
    flow = run.begin("flow", name)
    call = run.begin("model", f"{name}/n#1", flow, model=model, provider="lab")
    run.at = 1.0
    run.end(
        call, model=model, provider="lab", input_tokens=100, output_tokens=10, cost=0.25 if model == "gpt-4o" else None
    )
    error = {"error": "it broke", "error_type": "OSError"} if how == "error" else {}
    run.end(flow, how, breakdown={"generation": 1.0}, **error)
    return run


@pytest.fixture
def recorded(place: Path) -> Path:
    record(
        place,
        story("aa01", "digest", ago=9000.0),
        story("aa02", "chat", ago=60.0, how="error"),
        story("bb03", "digest", ago=30.0, model="fast"),
    )
    return place


# ---- trace ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["bb03", "b", "last"])
def test_a_run_is_named_by_its_id_its_beginning_or_last(invoke, recorded: Path, word: str) -> None:
    shown = invoke("trace", word)
    assert shown.exit_code == 0
    assert "run bb03" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_without_a_name_it_is_the_last(invoke, recorded: Path) -> None:
    assert "run bb03" in invoke("trace").stdout


@pytest.mark.parametrize(("word", "said"), [("aa", "several runs begin so: aa"), ("zz", "`agentflow runs` lists")])
def test_a_name_that_fits_none_or_several_is_bad_input(invoke, recorded: Path, word: str, said: str) -> None:
    shown = invoke("trace", word)
    assert shown.exit_code == 2
    assert said in shown.stderr


@pytest.mark.parametrize("word", ["last", "zz"])
def test_in_an_empty_file_it_is_said_that_nothing_is_recorded_and_how_to(invoke, place: Path, word: str) -> None:
    record(place, story("aa01"))
    with closing(sqlite3.connect(place / FILE)) as connection, connection:
        connection.execute("DELETE FROM runs")
    shown = invoke("trace", word)
    assert shown.exit_code == 1
    assert f"nothing is recorded in {place / FILE} yet: `agentflow run` records runs" in shown.stderr
    assert repr(word) not in shown.stderr


@pytest.mark.parametrize("command", ["trace", "runs", "cost", "top"])
def test_where_nothing_is_recorded_each_says_what_to_do(invoke, place: Path, command: str) -> None:
    shown = invoke(command, *(["--once"] if command == "top" else []))
    assert shown.exit_code == 1
    assert "`agentflow run` records" in shown.stderr
    assert not (place / ".agentflow").exists()


def test_its_json_has_every_span_and_the_answers(invoke, place: Path) -> None:
    record(place, busy_run(20))
    found = json.loads(invoke("trace", "--json").stdout)
    assert found["answers"]["did"].startswith("digest ran to its end")
    assert len([span for span in found["spans"] if span["kind"] == "model"]) == 20
    assert found["totals"]["calls"] == 20
    assert sum(each["end"] - each["start"] for each in found["path"]) == pytest.approx(found["duration"])
    numbers = {span["number"] for span in found["spans"]}
    assert all(span["parent"] is None or span["parent"] in numbers for span in found["spans"])


def test_a_page_is_written_whole_or_refused_beforehand(invoke, recorded: Path) -> None:
    assert invoke("trace", "--html", "page.html").stdout == "wrote page.html\n"
    assert (recorded / "page.html").read_text().startswith("<!doctype html>")
    assert invoke("trace", "--html", "-").stdout.startswith("<!doctype html>")
    refused = invoke("trace", "--html", "nowhere/page.html")
    assert refused.exit_code == 2
    assert "mkdir -p nowhere" in refused.stderr
    assert invoke("trace", "--html", "a.html", "--follow").exit_code == 2


def test_all_shows_every_item(invoke, place: Path) -> None:
    record(place, busy_run(30))
    assert "more × summarise" in invoke("trace").stdout
    assert "more × summarise" not in invoke("trace", "--all").stdout


def test_a_run_whose_process_died_is_shown_as_cut_off(invoke, place: Path) -> None:
    program = (
        "import os, sys\nfrom tests.support.run_events import busy_run\n"
        "from agentflow.core.observability.store import RunStore\n"
        f"store = RunStore({str(place / FILE)!r})\n"
        "for event in busy_run(2, ends=False).events: store.observe(event)\nstore.flush()\nos._exit(9)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 9
    assert "was cut off" in invoke("trace").stdout
    assert "was cut off" in invoke("trace", "--follow").stdout


def test_following_a_run_tells_what_ends_until_it_is_over(invoke, recorded: Path) -> None:
    shown = invoke("trace", "last", "--follow")
    assert shown.exit_code == 0
    assert "model digest/n#1 fast took 1.00 s" in shown.stdout
    assert "digest ran to its end" in shown.stdout
    lines = [json.loads(line) for line in invoke("trace", "last", "--follow", "--json").stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["flow_start", "model_start", "model_success", "flow_success"]


def test_a_run_can_be_followed_while_it_goes_on(spawn, place: Path) -> None:
    (place / "f.py").write_text(
        "import asyncio, pathlib\nfrom agentflow import AsyncFlow, node\n@node\nasync def hold(s):\n"
        "    while not pathlib.Path('go').exists(): await asyncio.sleep(0.02)\n"
        "flow = AsyncFlow(hold, name='held')\n"
    )
    running = spawn("run", "-q", "f.py")
    end = time.monotonic() + 60.0
    while not (place / FILE).exists() and time.monotonic() < end:
        time.sleep(0.02)
    following = None
    while following is None and time.monotonic() < end:
        following = spawn("trace", "last", "--follow", "--json")
        first = following.stdout.readline()
        if not first:
            following.wait(30)
            following = None
    assert following is not None
    assert json.loads(first)["kind"] == "flow_start"
    (place / "go").touch()
    rest, err = following.communicate(timeout=60)
    assert json.loads(rest.splitlines()[-1])["kind"] == "flow_success", err
    assert running.wait(60) == 0


# ---- runs ----------------------------------------------------------------------------------------------------


def ids(invoke, *words: str) -> list[str]:
    shown = invoke("runs", "--json", *words)
    assert shown.exit_code == 0, shown.stderr
    return [run["id"] for run in json.loads(shown.stdout)]


def test_runs_are_listed_the_newest_first_and_filtered(invoke, recorded: Path) -> None:
    assert ids(invoke) == ["bb03", "aa02", "aa01"]
    assert ids(invoke, "--flow", "digest") == ["bb03", "aa01"]
    assert ids(invoke, "--flow", "ch*") == ["aa02"]
    assert ids(invoke, "--status", "failed") == ["aa02"]
    assert ids(invoke, "--model", "fast") == ["bb03"]
    assert ids(invoke, "--since", "1h") == ["bb03", "aa02"]
    assert ids(invoke, "--limit", "1") == ["bb03"]


@pytest.mark.parametrize("word", ["90s", "15m", "2h", "7d", "1w", "today", "2026-11-27", "2026-11-27T14:30"])
def test_a_time_is_said_in_many_ways(invoke, recorded: Path, word: str) -> None:
    assert invoke("runs", "--since", word).exit_code == 0


@pytest.mark.parametrize("word", ["soon", "h", "-", "nan", "1e400h", "2026-13-01"])
def test_what_is_no_time_is_refused(invoke, recorded: Path, word: str) -> None:
    shown = invoke("runs", "--since", word)
    assert shown.exit_code == 2
    assert "is no time" in shown.stderr


def test_the_table_names_runs_whole_and_says_what_went_wrong(invoke, recorded: Path) -> None:
    shown = invoke("runs").stdout
    assert all(word in shown for word in ("aa01", "aa02", "bb03", "failed", "it broke", "$0.2500"))


def test_an_empty_list_says_whether_a_filter_made_it_so(invoke, recorded: Path) -> None:
    shown = invoke("runs", "--flow", "nothing")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "none fits" in shown.stderr
    assert json.loads(invoke("runs", "--flow", "nothing", "--json").stdout) == []


def test_an_unknown_price_is_null_and_not_zero(invoke, recorded: Path) -> None:
    costs = {run["id"]: run["cost"] for run in json.loads(invoke("runs", "--json").stdout)}
    assert costs == {"aa01": 0.25, "aa02": 0.25, "bb03": None}


# ---- cost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "costs"),
    [
        ("model", {"gpt-4o": 0.5, "fast": None}),
        ("flow", {"digest": 0.25, "chat": 0.25}),
        ("provider", {"lab": 0.5}),
    ],
)
def test_costs_are_added_up_by(invoke, recorded: Path, by: str, costs: dict[str, float | None]) -> None:
    shown = json.loads(invoke("cost", "--by", by, "--json").stdout)
    assert {row[by]: row["cost"] for row in shown} == costs


def test_costs_of_days_are_in_order_and_since_leaves_out(invoke, recorded: Path) -> None:
    days = [row["day"] for row in json.loads(invoke("cost", "--by", "day", "--json").stdout)]
    assert days == sorted(days)
    late = json.loads(invoke("cost", "--since", "5m", "--json").stdout)
    assert sum(row["calls"] for row in late) in (2, 3)  # hours are counted whole


def test_the_table_of_costs_has_a_sum_and_says_what_it_does_not_know(invoke, recorded: Path) -> None:
    shown = invoke("cost").stdout
    assert "$0.5000+?" in shown
    assert "nobody knows the price of 1 call" in shown


@pytest.mark.parametrize("columns", ["60", "80", "200", "", "wide", "0"])
@pytest.mark.parametrize("words", [("runs",), ("cost", "--by", "flow"), ("trace", "aa01"), ("top", "--once")])
def test_a_pipe_is_as_wide_as_columns_says(
    invoke, recorded: Path, monkeypatch: pytest.MonkeyPatch, columns: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = invoke(*words)
    assert shown.exit_code == 0
    room = int(columns) if columns.isdigit() and int(columns) else 160
    assert max(map(len, shown.stdout.splitlines())) <= room


def test_a_narrow_table_keeps_names_ids_and_what_was_spent(invoke, recorded: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    runs = next(line for line in invoke("runs").stdout.splitlines() if line.startswith("aa01"))
    assert all(word in runs for word in ("digest", "done", "$0.2500"))
    costs = next(line for line in invoke("cost", "--by", "flow").stdout.splitlines() if line.startswith("digest"))
    assert "$0.2500" in costs
