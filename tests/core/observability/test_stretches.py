"""A run that goes on later, perhaps in another process: its events go on, and none is taken for an older one."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core import ExecutionEvent
from agentflow.core.observability.events import STRETCH, stretch_of
from agentflow.core.observability.observers import Observation
from agentflow.core.observability.scope import Channel, Scope


class Seen:
    inline = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)


def told(clock: VirtualClock, *kinds: str, stretch: int = 0, since: float | None = None) -> list[ExecutionEvent]:
    """What a stretch tells: a flow that begins, and what happens in it, a second after another."""
    seen = Seen()
    channel = Channel("run1", clock, None, (Observation(seen),), stretch=stretch, since=since)
    scope = Scope(channel, "digest", "digest", 1)
    scope.enter("flow_start")
    for kind in kinds:
        clock.advance(1.0)
        scope.remark(kind)
    return seen.events


def test_a_run_that_begins_counts_as_ever() -> None:
    clock = VirtualClock()
    events = told(clock, "a", "b", since=clock.time())
    assert [event.sequence for event in events] == [1, 2, 3]
    assert [event.at for event in events] == [0.0, 1.0, 2.0]
    assert {stretch_of(event) for event in events} == {0}


def test_a_later_stretch_has_numbers_and_spans_of_its_own() -> None:
    clock = VirtualClock()
    first = told(clock, "a", "b")
    second = told(clock, "a", stretch=1, since=clock.time() - 10.0)
    assert [event.sequence for event in second] == [STRETCH + 1, STRETCH + 2]
    assert not {event.span for event in first} & {event.span for event in second}
    assert [stretch_of(event) for event in second] == [1, 1]


def test_time_goes_on_from_when_the_run_first_began() -> None:
    clock = VirtualClock()
    began = clock.time()
    told(clock, "a")
    clock.advance(3600.0)
    events = told(clock, "a", stretch=1, since=began)
    assert [event.at for event in events] == [3601.0, 3602.0]
    assert [event.time - event.at for event in events] == [began, began]


def test_a_clock_that_was_set_back_makes_no_time_before_the_beginning() -> None:
    clock = VirtualClock()
    events = told(clock, "a", stretch=1, since=clock.time() + 500.0)
    assert [event.at for event in events] == [0.0, 1.0]


@given(st.integers(0, 9_000_000), st.integers(1, STRETCH - 1))
def test_numbers_are_exact_in_json_for_any_reader(stretch: int, number: int) -> None:
    """JavaScript reads every number as a double."""
    sequence = stretch * STRETCH + number
    assert int(json.loads(json.dumps(sequence), parse_int=float)) == sequence
    assert sequence // STRETCH == stretch
