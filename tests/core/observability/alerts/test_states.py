"""The table of an alert's states, and the picture that is drawn of it."""

from __future__ import annotations

import re

import pytest

from agentflow.core.observability.alerts.states import OPEN, TRANSITIONS, AlertEvent, AlertState, diagram


def test_the_diagram_holds_exactly_the_transitions_of_the_table() -> None:
    first, start, *lines = diagram().splitlines()
    assert (first, start.strip()) == ("stateDiagram-v2", "[*] --> inactive")
    drawn = [re.fullmatch(r" {4}(\w+) --> (\w+): (\w+)", line) for line in lines]
    pairs = [((AlertState(match[1]), AlertEvent(match[3])), AlertState(match[2])) for match in drawn if match]
    assert len(pairs) == len(lines) == len(TRANSITIONS)
    assert dict(pairs) == dict(TRANSITIONS)


def test_every_state_can_be_left_and_reached_and_every_event_is_used() -> None:
    assert {old for old, _ in TRANSITIONS} == set(TRANSITIONS.values()) == set(AlertState)
    assert {event for _, event in TRANSITIONS} == set(AlertEvent)


def test_what_somebody_was_told_of_ends_as_resolved_or_as_another_thing_to_be_told_of() -> None:
    left = {new for (old, _), new in TRANSITIONS.items() if old in OPEN}
    assert left == {AlertState.RESOLVED, *OPEN}


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[AlertState.FIRING, AlertEvent.HELD] = AlertState.INACTIVE  # type: ignore[index]
