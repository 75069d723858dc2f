"""A run that waited, and went on, as it is shown: in sentences, in the terminal, as a page, as JSON, in lists."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.support.parked_runs import parked_run, resumed_run
from tests.support.recorded import record
from tests.support.run_events import START, RunEvents

from agentflow.cli.tracing.answers import answers_to
from agentflow.cli.tracing.as_json import trace_json
from agentflow.cli.tracing.board import Board
from agentflow.cli.tracing.board_picture import board_picture
from agentflow.cli.tracing.notes import note_of
from agentflow.cli.tracing.page import page_of
from agentflow.cli.tracing.scale import Scale, scale_of
from agentflow.cli.tracing.waterfall import picture
from agentflow.core.observability.trace.span import Mark
from agentflow.core.observability.trace.tree import trace_of

HOUR = 3600.0


def drawn(trace, width: int = 120) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(picture(trace, width=width, colours=False))
    return file.getvalue()


def line(text: str, word: str, at: int = 0) -> str:
    return [each for each in text.splitlines() if word in each][at]


# ---- answers -------------------------------------------------------------------------------------------------


def test_a_run_that_waits_says_where_what_it_asks_and_for_how_long() -> None:
    answers = answers_to(trace_of(parked_run(question="Publish this?").events, now=HOUR + 20.0))
    assert answers.did == (
        "digest is parked, 1h 00m (20.0 s of it at work) after it began: 2 node visits, 2 model calls. "
        "It waits in judge (“Publish this?”)."
    )
    assert answers.slow.startswith("Most of the 1h 00m went into waiting for an answer or a timer: 1h 00m (99%).")
    assert "agentflow answer" in answers.slow


def test_nobody_is_told_to_answer_a_timer() -> None:
    run = RunEvents()
    flow = run.begin("flow", "digest")
    nap = run.begin("node", "digest/nap#1", flow)
    run.point("timer", nap, interrupt="digest/nap#1!timer:1", due=None)
    run.end(nap, "interrupted")
    run.end(flow, "interrupted")
    slow = answers_to(trace_of(run.events, now=HOUR)).slow
    assert slow.startswith("Most of the 1h 00m went into waiting for an answer or a timer")
    assert "What helps" not in slow


def test_without_the_words_it_says_where() -> None:
    assert answers_to(trace_of(parked_run().events)).did.endswith("It waits in judge.")


def test_a_run_that_went_on_counts_each_visit_and_each_call_that_was_paid_for_once() -> None:
    answers = answers_to(trace_of(resumed_run().events))
    assert answers.did == "digest ran to its end in 1h 01m (32.0 s of it at work): 3 node visits, 4 model calls."
    assert answers.cost.startswith("$0.3000 for 4 model calls, 2.7k tokens read and 300 written.")


# ---- the waterfall -------------------------------------------------------------------------------------------


def test_one_waterfall_shows_all_stretches_and_the_pauses_between() -> None:
    text = drawn(trace_of(resumed_run(hours=0.01).events))
    names = [each.strip("│├└ ").split("  ")[0] for each in text.splitlines()]
    shown = [
        name
        for name in names
        if name in ("read", "◷ judge", "waiting for an answer", "judge", "† write", "stopped", "write")
    ]
    assert shown == ["read", "◷ judge", "waiting for an answer", "judge", "† write", "stopped", "write"]
    assert "W" in line(text, "├ waiting for an answer")
    assert "S" in line(text, "├ stopped")
    assert "▸ went on: 2 steps and 2 calls ($0.2000) taken from the journal" in text
    assert "w = waiting 36.0 s" in text
    assert "s = stopped 1m 00s" in text


def test_a_pause_that_is_longer_than_all_the_work_is_drawn_as_long_as_that() -> None:
    scale = scale_of(trace_of(resumed_run(hours=168.0).events))
    waiting = scale.pauses[0]
    assert waiting == (20.0, 20.0 + 168 * HOUR)
    assert scale.share(20.0) == pytest.approx(20 / 64)
    assert scale.share(waiting[1]) == pytest.approx(52 / 64, abs=0.01)
    assert (scale.share(scale.start), scale.share(scale.end)) == (0.0, 1.0)
    text = drawn(trace_of(resumed_run(hours=168.0).events))
    head = line(text, " time ")
    assert "20.0 s" in head
    assert "7.0 d" in head
    assert line(text, "├ read").count("G") > 10


def test_a_short_pause_is_drawn_as_it_was() -> None:
    assert scale_of(trace_of(parked_run().events, now=30.0)).pauses == ()


@given(st.lists(st.floats(0.0, 100.0), min_size=2, max_size=8), st.floats(0.001, 1.0), st.floats(0.0, 100.0))
def test_what_comes_later_stands_further_to_the_right(cuts: list[float], factor: float, moment: float) -> None:
    cuts = sorted(cuts)
    scale = Scale(0.0, 100.0, tuple(zip(cuts[::2], cuts[1::2], strict=False)), factor)
    assert 0.0 <= scale.share(moment) <= 1.0 + 1e-9
    assert scale.share(moment) <= scale.share(min(100.0, moment + 1.0)) + 1e-9


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (Mark("interrupt", 0.0, data={"interrupt": "f/a#1!wait:1", "due": None}), "◷ asks (f/a#1!wait:1)"),
        (Mark("interrupt", 0.0, data={"interrupt": "w", "question": "Sure?"}), "◷ asks: Sure? (w)"),
        (Mark("resume", 0.0, data={"stretch": 1, "steps": 1}), "▸ went on: 1 step taken from the journal"),
        (Mark("fork", 0.0, data={"forked_from": "r1"}), "⑂ forked from run r1"),
        (Mark("fork", 0.0, data={"forked_from": "r1", "forked_at": "f/b#1"}), "⑂ forked from run r1, before f/b#1"),
        (Mark("cancel", 0.0), "■ ended from outside while nobody was running it"),
        (Mark("timer", 0.0, data={"due": None}), "◷ sleeps"),
        (Mark("timer", 0.0, data={"due": 1e300}), "◷ sleeps"),
    ],
)
def test_what_happened_in_it_is_said_in_words(mark: Mark, said: str) -> None:
    note = note_of(mark)
    assert note is not None
    assert note.text == said


def test_a_timer_says_until_when() -> None:
    note = note_of(Mark("timer", 0.0, data={"due": START}))
    assert note is not None
    assert note.text == f"◷ sleeps until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(START))}"


# ---- page and JSON -------------------------------------------------------------------------------------------


def test_the_page_shows_the_same_and_counts_what_ran_twice_once() -> None:
    page = page_of(trace_of(resumed_run().events))
    assert page.count("waiting for an answer") >= 1
    assert "c-waiting" in page
    assert "c-stopped" in page
    assert "at work when its process died, and run again" in page
    nodes = page[page.index('id="nodes"') :]
    judge = nodes[nodes.index("digest/judge") :][:200]
    assert ">1<" in judge
    assert ">not visited<" not in page


def test_the_page_of_a_run_that_waits_says_so() -> None:
    page = page_of(trace_of(parked_run(question="<b>Publish</b> this?").events, now=100.0))
    assert 'class="pill waiting"' in page
    assert "&lt;b&gt;Publish" in page
    assert "<b>Publish" not in page


def test_as_json_it_says_how_long_nobody_ran_it() -> None:
    said = trace_json(trace_of(resumed_run().events))
    assert (said["status"], said["duration"], said["parked"]) == ("done", HOUR + 92.0, HOUR + 60.0)
    assert {span["status"] for span in said["spans"]} == {"done", "parked", "lost"}  # type: ignore[index]
    assert json.dumps(said, default=str)


# ---- lists ---------------------------------------------------------------------------------------------------


def test_runs_that_wait_are_listed_as_such_with_the_time_that_they_took(invoke, place: Path) -> None:
    record(place / ".agentflow" / "runs.db", parked_run("waits").events, resumed_run("went").events)
    listed = invoke("runs").stdout
    assert "waiting" in line(listed, "waits")
    assert "20.0 s" in line(listed, "waits")
    assert "32.0 s" in line(listed, "went")
    only = json.loads(invoke("runs", "--status", "waiting", "--json").stdout)
    assert [(run["id"], run["stretches"], run["duration"]) for run in only] == [("waits", 1, None)]


def test_a_run_that_waits_is_traced_up_to_now(invoke, place: Path) -> None:
    record(place / ".agentflow" / "runs.db", parked_run("waits", started=time.time() - 7200.0).events)
    said = json.loads(invoke("trace", "waits", "--json").stdout)
    assert said["status"] == "waiting"
    assert said["parked"] == pytest.approx(7180.0, abs=120.0)


def test_the_board_says_how_many_runs_wait_and_none_of_them_is_in_flight() -> None:
    board = Board()
    for event in parked_run().events:
        board.take(event)
    figures = board.figures(START + 30.0, running=(), waiting=3)
    assert [flow.in_flight for flow in figures.flows] == []
    file = io.StringIO()
    Console(file=file, width=120).print(board_picture(figures, width=120, colours=False, where="runs.db"))
    assert "· 3 waiting" in file.getvalue()


def test_top_counts_the_runs_that_wait(invoke, place: Path) -> None:
    now = time.time()
    record(
        place / ".agentflow" / "runs.db",
        parked_run("a", started=now - 60).events,
        parked_run("b", started=now - 60).events,
    )
    assert "2 waiting" in invoke("top", "--once").stdout
