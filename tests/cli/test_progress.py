"""What a run looks like: lines in a log, a table on a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agentflow.cli.progress import LiveProgress, PlainProgress, QuietProgress, progress_on
from agentflow.core import ExecutionEvent

FLOW = """
import asyncio
from agentflow import *

async def step(item):
    await asyncio.sleep(0.01)

@node
async def prepare(s): s["q"] = [1, 2, 3]; print("printed by a node")

ask = LLMNode("local/extractive", prompt="Summarise:\\n\\nThe moon pulls the sea. [b]Not markup[/b].", writes="output")
flow = AsyncFlow(prepare >> Each(step, over="q", name="steps") >> AsyncFlow(ask, name="inner"))

@node
async def stop(s): raise ValueError("stopped [red]here")
failing = AsyncFlow(prepare >> stop)
"""


def _event(kind: str, path: str, **data: object) -> ExecutionEvent:
    return ExecutionEvent(kind, "run", path, path.rpartition("/")[2].partition("#")[0], 1, 1, 0.0, data=data)


def _plain(events: list[tuple[float, ExecutionEvent]]) -> list[str]:
    stream = io.StringIO()
    times = iter([now for now, _ in events])
    progress = PlainProgress(stream, clock=lambda: next(times))
    for at, event in events:
        progress.see(replace(event, at=at))
    return stream.getvalue().splitlines()


def test_plain_lines_tell_each_end_once() -> None:
    assert _plain(
        [
            (0.0, _event("node_start", "f/a#1")),
            (0.5, _event("node_success", "f/a#1")),
            (0.5, _event("node_start", "f/b#1")),
            (3.0, _event("retry", "f/b#1", error="TimeoutError", delay=1.0)),
            (3.5, _event("retry", "f/b#1", error="TimeoutError", delay=2.0)),
            (4.0, _event("node_error", "f/b#1")),
        ]
    ) == ["a: 500 ms", "b: trying again: TimeoutError", "b: failed after 3.5 s"]


def test_a_key_in_what_is_tried_again_is_not_shown() -> None:
    said = _plain([(0.0, _event("retry", "f/b#1", error="503: no room for sk-proj-4f9aB81xQz77LmNp20rT", delay=1.0))])
    assert said == ["b: trying again: 503: no room for [redacted:key]"]


def test_plain_lines_of_a_long_loop_are_thinned_out() -> None:
    events = []
    for visit in range(1, 1001):
        events.append((visit * 0.01, _event("node_start", f"f/a#{visit}")))
        events.append((visit * 0.01, _event("node_success", f"f/a#{visit}")))
    lines = _plain(events)
    assert lines[:3] == ["a: 0 ms", "a ×2: 0 ms", "a ×3: 0 ms"]
    assert 4 <= len(lines) <= 10


def test_plain_lines_count_items_every_two_seconds() -> None:
    events = [(0.0, _event("node_start", "f/each#1"))]
    events += [(0.5 * item, _event("node_success", f"f/each#1/{item}")) for item in range(1, 10)]
    assert _plain(events) == ["each (4 items): 2.0 s …", "each (8 items): 4.0 s …"]


def test_a_stream_that_is_no_terminal_gets_lines_and_quiet_gets_nothing() -> None:
    assert type(progress_on(io.StringIO(), quiet=False)) is PlainProgress
    assert type(progress_on(sys.stderr, quiet=True)) is QuietProgress


def _on_terminal(place: Path, *words: str, stdout: int | None = None, term: str = "xterm") -> tuple[int, str]:
    """Run the command with a terminal as stderr (and stdout, unless one is given); what the terminal was sent."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": term, "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-m", "agentflow.cli.main", *words],
        cwd=place, env=environ, stdin=subprocess.DEVNULL, stdout=theirs if stdout is None else stdout, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    sent = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux's way to say that nobody holds the other end
            break
        if not piece:
            break
        sent += piece
    os.close(ours)
    return process.wait(30), sent.decode()


def _seen(sent: str) -> str:
    """Without what moves the cursor and colours the text."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent).replace("\r", "")


def test_a_terminal_gets_a_table_that_stays_and_the_words_of_the_model(place: Path) -> None:
    (place / "f.py").write_text(FLOW)
    code, sent = _on_terminal(place, "run", "f.py")
    seen = _seen(sent)
    assert code == 0
    assert "\x1b[?25l" in sent  # the cursor is hidden while the table lives …
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")  # … and shown again
    last = seen[seen.rindex("✓ prepare") :].splitlines()
    assert [line.split(" ")[:2] for line in last[:3]] == [["✓", "prepare"], ["✓", "steps"], ["✓", "inner"]]
    assert last[1].startswith("✓ steps (3 items)")
    assert last[3].startswith("✓   ask_output")
    assert "printed by a node" in seen
    assert last[-1] == "The moon pulls the sea. [b]Not markup[/b]."


def test_a_failure_on_a_terminal_leaves_the_table_and_the_message(place: Path) -> None:
    (place / "f.py").write_text(FLOW)
    code, sent = _on_terminal(place, "run", "f.py:failing")
    assert code == 1
    assert "✗ stop" in _seen(sent)
    assert "error: ValueError: stopped [red]here at f.py:" in _seen(sent)


def test_what_nodes_print_goes_where_stdout_goes(place: Path, tmp_path: Path) -> None:
    (place / "f.py").write_text(FLOW)
    with (tmp_path / "out").open("wb") as file:
        code, sent = _on_terminal(place, "run", "f.py", stdout=file.fileno())
    assert code == 0
    assert (tmp_path / "out").read_text() == "printed by a node\nThe moon pulls the sea. [b]Not markup[/b].\n"
    assert "printed by a node" not in sent


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(place: Path) -> None:
    (place / "f.py").write_text(FLOW)
    code, sent = _on_terminal(place, "run", "f.py", term="dumb")
    assert code == 0
    assert "\x1b[" not in sent
    assert "prepare: " in sent


@pytest.mark.parametrize("rows", [3, 200])
def test_no_more_rows_are_drawn_than_the_screen_has(rows: int) -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60, height=12)
    progress = LiveProgress(console)
    for number in range(rows):
        progress.see(_event("node_start", f"f/n{number}#1"))
        if number % 2:
            progress.see(_event("node_success", f"f/n{number}#1"))
    progress.see(_event("chunk", "f/n0#1", content="word " * 500 + "\x1b[2J end"))
    console.print(progress._picture())
    drawn = stream.getvalue()
    assert len(drawn.splitlines()) <= 12
    assert "\x1b[2J" not in drawn
    assert "end" in drawn
