"""The table of states: what may follow what, and that the page of the docs draws the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.mcp.performance.batching.jobs.states import FINAL, IN_DOUBT, TRANSITIONS, Event, State, after, mermaid

ROOT = Path(__file__).resolve().parents[5]


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_the_way_of_a_batch_that_goes_well() -> None:
    state = State.PLANNED
    way = [Event.UPLOAD, Event.UPLOADED, Event.SUBMIT, Event.ACCEPTED, Event.ENDED, Event.COLLECTED]
    for event in way:
        state = after(state, event)
    assert state is State.COLLECTED


def test_a_state_that_is_in_doubt_can_only_be_left_by_an_answer_or_without_harm() -> None:
    """A submission in doubt is never given up: who gives it up may pay for nothing."""
    assert {State.UPLOADING, State.SUBMITTING} == IN_DOUBT
    assert set(TRANSITIONS[State.SUBMITTING]) == {Event.ACCEPTED, Event.ABSENT, Event.REFUSED}


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_no_way_leads_out_of_the_table(events: list[Event]) -> None:
    state = State.PLANNED
    for event in events:
        if event in TRANSITIONS[state]:
            state = after(state, event)
        else:
            with pytest.raises(ValueError, match="cannot see"):
                after(state, event)
    assert state in TRANSITIONS


def test_every_state_can_be_reached_and_every_way_can_end() -> None:
    reached, ends = {State.PLANNED}, set(FINAL)
    for _ in State:
        reached |= {to for state in reached for to in TRANSITIONS[state].values()}
        ends |= {state for state in State if set(TRANSITIONS[state].values()) & ends}
    assert reached == ends == set(State)


def test_the_docs_draw_this_table() -> None:
    page = (ROOT / "docs" / "batch_jobs.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{mermaid()}\n```" in page
