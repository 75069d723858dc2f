"""A run in the terminal: lines, bars, letters, widths, and what stays out."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from tests.support.run_events import RunEvents, busy_run

from agentflow.cli.tracing.answers import answers_to
from agentflow.cli.tracing.bars import axis, cells_of
from agentflow.cli.tracing.rows import Group, rows_of
from agentflow.cli.tracing.scale import Scale
from agentflow.cli.tracing.waterfall import picture
from agentflow.core.observability.trace.tree import trace_of


def drawn(trace, *, width: int = 80, colours: bool = False, most: int | None = 8, height: int | None = None) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, color_system="truecolor" if colours else None, force_terminal=colours)
    console.print(picture(trace, width=width, colours=colours, most=most, height=height))
    return file.getvalue()


# ---- answers -------------------------------------------------------------------------------------------------


def test_the_three_questions_are_answered_in_sentences() -> None:
    answers = answers_to(trace_of(busy_run(14).events))
    assert answers.did == "digest ran to its end in 4.75 s: 4 node visits, 14 items, 14 model calls."
    assert answers.slow.startswith(
        "Most of the 4.75 s went into waiting for the rate limit of lab: 2.60 s (55%), in fast of summarise[13]. Then "
    )
    assert "What helps: a higher limit" in answers.slow
    assert answers.cost.startswith(
        "$0.0861 for 14 model calls, 12.6k tokens read and 1.68k written. On top comes what fast"
    )


def test_a_failure_names_its_place_and_its_reason() -> None:
    run = RunEvents()
    flow = run.begin("flow", "f")
    node = run.begin("node", "f/write#2", flow)
    run.at = 2.0
    run.end(node, "error", error="no ink", error_type="OSError")
    run.end(flow, "error", error="f/write#2 failed", error_type="NodeError")
    assert answers_to(trace_of(run.events)).did == (
        "f failed after 2.00 s in write #2: no ink. Until then: 1 node visit."
    )


def test_what_runs_and_what_was_cut_off_says_what_was_at_work() -> None:
    events = busy_run(2, ends=False).events
    assert "has been running for 9.00 s" in answers_to(trace_of(events, now=9.0)).did
    assert "At work: write." in answers_to(trace_of(events, now=9.0)).did
    assert "was cut off" in answers_to(trace_of(events, over=True)).did


def test_a_call_that_goes_on_is_not_blamed_on_the_event_loop() -> None:
    run = RunEvents()
    node = run.begin("node", "f/write#1", run.begin("flow", "f"))
    run.begin("model", "f/write#1", node, model="m")
    slow = answers_to(trace_of(run.events, now=3.0)).slow
    assert slow == (
        "Most of the 3.00 s went into what has not ended yet, and tells then what it waited for: 3.00 s (100%), "
        "in m of write."
    )


def test_a_run_without_models_cost_nothing_and_one_of_unknown_price_is_not_free() -> None:
    run = RunEvents()
    run.end(run.begin("flow", "f"))
    assert answers_to(trace_of(run.events)).cost == "Nothing: no model was asked."
    call = RunEvents()
    call.end(call.begin("model", "m", model="m"), input_tokens=5, output_tokens=1)
    assert answers_to(trace_of(call.events)).cost.startswith("Nobody knows: the price of m (1 call)")
    assert answers_to(trace_of([])).did == "Nothing is known of this run."


# ---- lines ---------------------------------------------------------------------------------------------------


def test_of_many_items_the_telling_ones_are_shown_and_the_others_together() -> None:
    rows = rows_of(trace_of(busy_run(500, failing=3).events), most=5)
    labels = [row.label for row in rows]
    assert "summarise[3] › fast" in labels, "it failed"
    assert "summarise[499] › fast" in labels, "it was on the critical path"
    [group] = [row.thing for row in rows if isinstance(row.thing, Group)]
    assert (len(group.spans), rows[-3].label) == (495, "495 more × summarise")
    assert len(rows_of(trace_of(busy_run(50).events), most=None)) == 5 + 50


def test_the_tree_is_drawn_with_its_branches() -> None:
    rows = rows_of(trace_of(busy_run(2).events))
    assert [row.guides + row.label for row in rows] == [
        "digest",
        "├ read",
        "├ summarise",
        "│ ├ summarise[0] › gpt-4o",
        "│ └ summarise[1] › fast",
        "├ judge",
        "└ write",
    ]


# ---- bars ----------------------------------------------------------------------------------------------------


def test_cells_hold_what_took_the_most_of_them() -> None:
    run = RunEvents()
    call = run.begin("model", "m", model="m")
    run.at = 10.0
    run.end(call, breakdown={"limiter": 3.0, "generation": 6.0, "unattributed": 1.0})
    span = trace_of(run.events).root
    assert cells_of(span, Scale(0.0, 10.0).share, 10) == ["limiter"] * 3 + ["generation"] * 6 + ["unattributed"]
    assert cells_of(span, Scale(-10.0, 10.0).share, 4) == [None, None, "limiter", "generation"]


def test_what_took_no_time_has_a_cell_all_the_same() -> None:
    run = RunEvents()
    flow = run.begin("flow", "f")
    run.at = 5.0
    run.end(run.begin("node", "f/n#1", flow))
    run.at = 10.0
    run.end(flow)
    [node] = trace_of(run.events).root.children
    assert cells_of(node, Scale(0.0, 10.0).share, 10) == [None] * 5 + ["own"] + [None] * 4


@pytest.mark.parametrize("seconds", [1e-5, 0.03, 1.0, 59.0, 90_000.0])
def test_the_axis_has_round_steps_that_leave_room(seconds: float) -> None:
    marks = axis(seconds, 60)
    assert 2 <= len(marks) <= 8
    assert marks[0] == (0, 0.0)
    assert all(0 <= at <= 60 for at, _ in marks)


def test_long_times_are_marked_at_whole_minutes_and_hours() -> None:
    assert [seconds for _, seconds in axis(700.0, 60)] == [0.0, 120.0, 240.0, 360.0, 480.0, 600.0]
    assert [seconds for _, seconds in axis(20_000.0, 60)] == [0.0, 3600.0, 7200.0, 10_800.0, 14_400.0, 18_000.0]


# ---- the picture ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
@pytest.mark.parametrize("colours", [True, False])
def test_no_line_is_wider_than_the_terminal(width: int, colours: bool) -> None:
    console = Console(width=1000)
    for line in drawn(trace_of(busy_run(14, failing=2).events), width=width, colours=colours).splitlines():
        assert console.render_str(line, markup=False).cell_len <= width or colours


def test_without_colours_letters_say_what_it_was() -> None:
    text = drawn(trace_of(busy_run(14, failing=2).events))
    assert "\x1b" not in text
    assert "l = rate limit 2.60 s 55%" in text
    assert "LLLLL" in text
    assert "xxx" in text
    assert "✗ ServerError: lab: the server failed (500)" in text


def test_errors_and_names_cannot_steer_the_terminal() -> None:
    run = RunEvents()
    flow = run.begin("flow", "f\x1b[2J")
    run.at = 1.0
    run.end(flow, "error", error="a\x1b]0;title\x07b\nc [bold]d[/bold]", error_type="E")
    text = drawn(trace_of(run.events))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]d[/bold]" in text


def test_retries_fallbacks_and_breakers_stand_below_their_span() -> None:
    run = RunEvents()
    call = run.begin("model", "m", model="m")
    run.point("retry", call, error="429", error_type="RateLimited", delay=0.5)
    run.point("breaker_state", call, guard="lab", **{"from": "closed", "to": "open"})
    run.point("fallback", call, **{"from": "m", "to": "n"}, error="down", error_type="X")
    run.at = 1.0
    run.end(call)
    text = drawn(trace_of(run.events))
    assert "↻ tried again after 500 ms: RateLimited: 429" in text
    assert "⚡ the breaker of lab went from closed to open" in text
    assert "⇢ n stood in for m: X: down" in text


def test_a_bounded_picture_shows_the_last_lines() -> None:
    text = drawn(trace_of(busy_run(14).events), height=3)
    assert "lines above" in text
    assert "└ write" in text
    assert "├ read" not in text


def test_nothing_is_drawn_as_nothing() -> None:
    assert "Nothing is known of this run." in drawn(trace_of([]))
