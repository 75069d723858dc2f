"""`agentflow top`: what the board counts, what is in flight, and that the terminal is left as it was."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.run_events import RunEvents, busy_run

from agentflow.cli.tracing.board import Board, Figures
from agentflow.cli.tracing.board_picture import board_picture
from agentflow.core.observability.store import RunStore

NOW = 1_800_000_000.0


def call(run: RunEvents, seconds: float, *, cost: float | None = 0.5, how: str = "success", flow: str = "f") -> None:
    outer = run.begin("flow", flow)
    inner = run.begin("model", f"{flow}/n#1", outer, model="gpt-4o", provider="lab")
    run.at += seconds
    facts = {"model": "gpt-4o", "provider": "lab"}
    if how == "success":
        facts |= {"input_tokens": 60, "output_tokens": 6, "cost": cost}
    run.end(inner, how, **facts, error="it broke", error_type="X", breakdown={"limiter": seconds})
    run.end(outer, how, error="it broke", error_type="X", breakdown={"limiter": seconds})


def figures(*runs: RunEvents, now: float = NOW, running: tuple[str, ...] = ()) -> Figures:
    board = Board()
    for event in sorted((event for run in runs for event in run.events), key=lambda event: event.time):
        board.take(event)
    return board.figures(now, running)


def several(count: int, *, ago: float, seconds: float = 1.0, **more: object) -> list[RunEvents]:
    runs = [RunEvents(f"r{ago}{number}", NOW - ago + number * 0.001) for number in range(count)]
    for run in runs:
        call(run, seconds, **more)
    return runs


def test_rates_latencies_and_money_are_of_their_windows() -> None:
    found = figures(*several(6, ago=20.0), *several(10, ago=1000.0, seconds=9.0, cost=0.25))
    [line] = found.models
    assert (line.name, line.per_minute, line.done, line.failed) == ("gpt-4o", 6.0, 16, 0)
    assert line.p50 == pytest.approx(1.0, rel=0.02)
    assert not line.stale
    assert line.dollars == pytest.approx(6 * 0.5 + 10 * 0.25)
    assert line.tokens_in == 360.0
    [flow] = found.flows
    assert (flow.name, flow.per_minute, flow.dollars) == ("f", 6.0, pytest.approx(5.5))
    assert found.waits["limiter"] == pytest.approx(6.0)


def test_where_the_last_minutes_were_quiet_latencies_are_those_of_the_hour() -> None:
    [line] = figures(*several(3, ago=1000.0, seconds=9.0)).models
    assert line.stale
    assert line.p95 == pytest.approx(9.0, rel=0.02)
    assert line.per_minute == 0.0


def test_what_was_more_than_an_hour_ago_is_gone() -> None:
    assert figures(*several(3, ago=4000.0)).models == ()


def test_in_flight_is_what_has_begun_in_a_run_that_goes_on() -> None:
    run, dead = RunEvents("alive", NOW - 5.0), RunEvents("dead", NOW - 5.0)
    for each in (run, dead):
        outer = each.begin("flow", "f")
        each.begin("model", "f/n#1", outer, model="gpt-4o", provider="lab")
    found = figures(run, dead, running=("alive",))
    assert ([line.in_flight for line in found.models], [line.in_flight for line in found.flows]) == ([1], [1])


def test_failures_are_counted_and_the_last_ones_shown() -> None:
    found = figures(*several(3, ago=20.0, how="error"), *several(1, ago=10.0))
    [line] = found.models
    assert (line.done, line.failed) == (1, 3)
    assert {trouble.text for trouble in found.troubles} == {"it broke"}


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_board_fits_the_terminal(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width)
    console.print(board_picture(figures(*several(3, ago=20.0, how="error")), width=width, colours=False, where="x"))
    assert all(len(line) <= width for line in file.getvalue().splitlines())
    assert "gpt-4o" in file.getvalue() or width == 40
    assert "l = rate limit 100%" in file.getvalue()


@pytest.mark.parametrize("width", [60, 200])
def test_what_is_in_flight_and_spent_is_said_in_any_width(width: int) -> None:
    file = io.StringIO()
    board = figures(*several(3, ago=20.0), now=NOW)
    picture = board_picture(board, width=width, colours=False, where="a/long/way/to/the/file/of/.agentflow/runs.db")
    Console(file=file, width=width).print(picture)
    title, sums = file.getvalue().splitlines()[:2]
    assert "last event" in title
    assert "$1.50 in" in sums
    assert "0 runs" in sums


def test_an_empty_board_says_that_nothing_has_happened() -> None:
    file = io.StringIO()
    Console(file=file, width=120).print(board_picture(figures(), width=120, colours=False, where="x"))
    assert "Nothing has happened" in file.getvalue()


def record(place: Path) -> None:
    run = busy_run(3)
    shifted = RunEvents("live1", time.time() - 10.0)
    with RunStore(place / ".agentflow/runs.db") as store:
        for event in run.events:
            object.__setattr__(event, "time", shifted.started + event.at)
            object.__setattr__(event, "run_id", "live1")
            store.observe(event)


def test_once_prints_one_board_for_pipes(invoke, place: Path) -> None:
    record(place)
    for words in (("--once",), ()):
        shown = invoke("top", *words)
        assert shown.exit_code == 0
        assert "gpt-4o" in shown.stdout
        assert "0 runs and 0 model calls in flight" in shown.stdout
        assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_a_key_leaves_and_the_terminal_is_as_it_was(place: Path, key: bytes) -> None:
    record(place)
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    program = subprocess.Popen(
        [sys.executable, "-m", "agentflow.cli.main", "top", "--interval", "0.1"],
        cwd=place, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=_controlled,
    )  # fmt: skip
    try:
        seen = _until(ours, b"last hour")
        os.write(ours, key)
        seen += _until(ours, b"\x1b[?1049l")
        assert program.wait(30) == (0 if key == b"q" else 130)
        assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1
        assert b"\x1b[?25h" in seen, "the cursor is shown again"
        assert termios.tcgetattr(theirs) == before
    finally:
        if program.poll() is None:
            program.kill()
            program.wait()
        os.close(ours)
        os.close(theirs)


def _controlled() -> None:
    """The child's terminal is the one that sends it Ctrl-C."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _until(source: int, word: bytes) -> bytes:
    seen = b""
    end = time.monotonic() + 60.0
    while word not in seen and time.monotonic() < end:
        ready, _, _ = select.select([source], [], [], 0.2)
        if ready:
            seen += os.read(source, 65_536)
    assert word in seen, seen[-2000:]
    return seen
