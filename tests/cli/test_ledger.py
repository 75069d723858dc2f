"""From events to what stands where."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.run_events import RunEvents

from agentflow import END, AsyncFlow, Each, LLMNode, SharedState, emit, node
from agentflow.cli.ledger import Ledger, span
from agentflow.cli.tracing.answers import answers_to
from agentflow.core import ExecutionEvent
from agentflow.core.observability.trace.tree import trace_of
from agentflow.errors import NodeError


def _event(kind: str, path: str, **data: object) -> ExecutionEvent:
    return ExecutionEvent(kind, "run", path, "node", 1, 1, 0.0, data=data)


def _told(*events: ExecutionEvent) -> Ledger:
    ledger = Ledger()
    for now, event in enumerate(events):
        ledger.see(replace(event, at=float(now)), float(now))
    return ledger


def test_visits_add_up_and_time_counts_from_start_to_end() -> None:
    ledger = _told(*[_event(f"node_{kind}", f"f/a#{visit}") for visit in (1, 2) for kind in ("start", "success")])
    (row,) = ledger.rows
    assert (row.label, row.seconds, row.finished) == ("a ×2", 2.0, True)


def test_a_reader_that_came_late_does_not_count_as_the_nodes_time() -> None:
    ledger = Ledger()
    ledger.see(replace(_event("node_start", "f/a#1"), at=1.0), 1.0)
    ledger.see(replace(_event("node_success", "f/a#1"), at=2.2), 2.5)
    assert ledger.rows[0].elapsed(9.0) == pytest.approx(1.2)


def test_a_running_node_has_the_time_since_it_began() -> None:
    ledger = _told(_event("node_start", "f/a#1"))
    assert ledger.rows[0].elapsed(2.5) == 2.5
    assert ledger.standing() == "finished: nothing; under way: a"


def test_nested_nodes_stand_below_their_flow_wherever_they_came_in() -> None:
    starts = ["f/a#1", "f/inner#1", "f/b#1", "f/inner#1/x#1", "f/inner#1/y#1"]
    rows = _told(*[_event("node_start", path) for path in starts]).rows
    assert [(row.name, row.depth) for row in rows] == [("a", 0), ("inner", 0), ("x", 1), ("y", 1), ("b", 0)]


async def _seen(flow: AsyncFlow) -> tuple[Ledger, list[ExecutionEvent]]:
    ledger, told = Ledger(), []
    async with flow.stream({"list": [1, 2, 3]}) as events:
        async for event in events:
            ledger.see(event, 0.0)
            told.append(event)
    return ledger, told


async def test_what_was_done_is_counted_as_the_trace_counts_it() -> None:
    async def plain(item: object) -> object:
        return item

    @node(reads="list", writes="list")
    async def keep(list: object) -> object:
        return list

    inner = AsyncFlow(keep.named("x") >> keep.named("y"), name="inner")
    each_inner = Each(AsyncFlow(keep.named("z"), name="small"), over="list", into="b", collect="list", name="flows")
    ledger, told = await _seen(AsyncFlow(inner >> Each(plain, over="list", into="a", name="functions") >> each_inner))
    assert ledger.summary() == "7 node visits, 3 items"  # x, y, functions, flows and three times z
    assert answers_to(trace_of(told)).did.endswith(f": {ledger.summary()}.")


async def test_the_items_of_every_kind_of_each_are_counted() -> None:
    async def plain(item: object) -> object:
        return item

    @node(reads="item", writes="out")
    async def one(item: object) -> object:
        return item

    @node(reads="out", writes="out2")
    async def two(item: object) -> object:
        return item

    inner = AsyncFlow(one.named("first") >> two, name="inner")
    flow = AsyncFlow(
        Each(plain, over="list", into="a", name="functions")
        >> Each(one, over="list", into="b", name="nodes")
        >> Each(inner, over="list", into="c", collect="out2", name="flows"),
    )
    ledger, _ = await _seen(flow)
    assert [row.label for row in ledger.rows] == ["functions (3 items)", "nodes (3 items)", "flows (3 items)"]


async def test_model_calls_are_counted_and_their_words_kept_while_they_speak() -> None:
    heard: list[str] = []
    ledger = Ledger()
    ask = LLMNode("local/extractive", prompt="Summarise:\n\n{text}", writes="output")
    async with AsyncFlow(ask).stream({"text": "The moon pulls the sea. It is far away."}) as events:
        async for event in events:
            ledger.see(event, 0.0)
            heard.append(ledger.said)
    assert "The moon pulls the sea." in heard
    assert heard[-1] == ""
    assert ledger.model_calls == 1
    assert ledger.summary().startswith("1 node visit, 1 model call, ")


async def test_a_failed_node_is_neither_finished_nor_under_way() -> None:
    @node
    async def fail(state: SharedState) -> None:
        await emit("own", {"kind": "of event"})
        raise ValueError("no")

    ledger = Ledger()
    async with AsyncFlow(fail >> END).stream() as events:
        with pytest.raises(NodeError, match="no"):
            async for event in events:
                ledger.see(event, 0.0)
    assert ledger.rows[0].failed
    assert ledger.standing() == "finished: nothing; under way: nothing"


def test_durations_read_as_people_say_them() -> None:
    assert [span(0.0042), span(1.26), span(75.4)] == ["4 ms", "1.3 s", "1 min 15 s"]


def test_an_each_says_how_many_of_its_items_are_done() -> None:
    def item(index: int) -> list[ExecutionEvent]:
        return [_event(f"node_{kind}", f"f/each#1/{index}/work#1") for kind in ("start", "success")]

    start = _event("node_start", "f/each#1", items=3)
    assert _told(start).rows[0].label == "each (0 of 3 items)"
    assert _told(start, *item(0), *item(1)).rows[0].label == "each (2 of 3 items)"
    assert _told(start, *item(0), *item(1), *item(2)).rows[0].label == "each (3 items)"
    assert _told(_event("node_start", "f/each#1", items=1), *item(0)).rows[0].label == "each (1 item)"
    assert _told(start, *item(0), _event("node_start", "f/each#2", items=2)).rows[0].label == "each ×2 (1 of 5 items)"


def test_what_a_stream_said_before_it_was_begun_anew_is_forgotten() -> None:
    words = [_event("chunk", "f/a#1", content="Hel"), _event("chunk", "f/a#1", content="Hello", restart=True)]
    assert _told(*words).said == "Hello"


def test_models_that_speak_at_once_are_shown_one_after_the_other() -> None:
    def word(path: str, content: str) -> ExecutionEvent:
        return _event("chunk", path, content=content)

    ledger = _told(word("f/a#1", "one "), word("f/b#1", "eins "), word("f/a#1", "two"), word("f/b#1", "zwei"))
    assert ledger.said == "one two"
    ledger.see(_event("node_success", "f/a#1"), 0.0)
    assert ledger.said == "eins zwei"
    ledger.see(_event("node_error", "f/b#1"), 0.0)
    assert ledger.said == ""


def test_a_node_that_is_parked_has_not_finished_and_does_when_it_ran_again() -> None:
    run = RunEvents()
    flow = run.begin("flow", "f")
    node = run.begin("node", "f/judge#1", flow)
    run.at += 2.0
    run.end(node, "interrupted")
    ledger = Ledger()
    for event in run.events:
        ledger.see(event, event.at)
    [row] = ledger.rows
    assert (row.parked, row.finished, row.running, row.seconds) == (True, False, 0, 2.0)
    again = len(run.events)
    run.end(run.begin("node", "f/judge#1", flow))
    for event in run.events[again:]:
        ledger.see(event, event.at)
    assert (row.parked, row.finished) == (False, True)


def test_items_that_the_journal_has_are_not_counted_down_from_zero() -> None:
    def item(index: int) -> list[ExecutionEvent]:
        return [_event(f"node_{kind}", f"f/each#1/{index}") for kind in ("start", "success")]

    start = [_event("resume", "f"), _event("node_start", "f/each#1", items=3)]
    end = _event("node_success", "f/each#1")
    assert _told(*start).rows[0].label == "each"
    assert _told(*start, *item(1)).rows[0].label == "each (1 item so far)"
    assert _told(*start, *item(1), end).rows[0].label == "each (3 items, 2 from the journal)"
    assert _told(*start, end).rows[0].label == "each (3 items from the journal)"
    assert _told(*start, *item(0), *item(1), *item(2), end).rows[0].label == "each (3 items)"


def test_what_was_undone_is_counted() -> None:
    assert _told(_event("compensate_start", "f/a#1"), _event("compensate_success", "f/a#1")).undone == 1
