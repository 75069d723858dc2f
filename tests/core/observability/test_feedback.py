"""Feedback: whoever watches hears how good a run was; what makes no sense, or reaches nobody, is an error."""

from __future__ import annotations

import math

import pytest

from agentflow.core import ExecutionEvent, observe
from agentflow.core.observability.feedback import feedback, verdict
from agentflow.errors import ConfigurationError


class Kept:
    inline = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)


def test_everybody_who_watches_is_told() -> None:
    one, other = Kept(), Kept()
    with observe(one), observe(other):
        said = feedback("r1", score=0.75, label="helpful", comment="but long", span=6)
    assert one.events == other.events == [said]
    assert (said.kind, said.run_id, said.sequence, said.span) == ("feedback", "r1", 0, 6)
    assert said.data == {"score": 0.75, "label": "helpful", "comment": "but long", "source": "user"}


@pytest.mark.parametrize("score", [0, 1, 0.5, True])
def test_a_score_is_from_zero_to_one(score: float) -> None:
    assert verdict(score=score)["score"] == float(score)


@pytest.mark.parametrize("score", [-0.01, 1.01, math.nan, math.inf, "1", [1]])
def test_any_other_is_an_error(score: float) -> None:
    with observe(Kept()) as observation, pytest.raises(ConfigurationError, match="a score is a number from 0 to 1"):
        feedback("r1", score=score)
    assert observation.seen == 0


def test_saying_nothing_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="feedback says nothing"):
        verdict()


@pytest.mark.parametrize("run_id", ["", None, 3])
def test_a_run_has_an_id(run_id: str) -> None:
    with observe(Kept()), pytest.raises(ConfigurationError, match="give it the run's id"):
        feedback(run_id, score=1)


def test_where_nobody_watches_it_would_be_lost_and_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="nobody would keep this feedback: turn the run store on"):
        feedback("r1", score=1)
