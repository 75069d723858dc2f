"""What an effort is worth in tokens, and the other way round."""

from __future__ import annotations

import pytest

from agentflow.errors import BadRequestError
from agentflow.llm.messages import Thinking
from agentflow.llm.providers.efforts import BUDGETS, budget_of, effort_of


@pytest.mark.parametrize(
    ("budget", "effort"),
    [(0, "none"), (1, "low"), (1024, "low"), (1025, "medium"), (8192, "medium"), (8193, "high"), (10**6, "high")],
)
def test_a_budget_is_the_effort_nearest_above_it(budget: int, effort: str) -> None:
    """So that a model never thinks less than it was allowed to."""
    assert effort_of(Thinking(budget=budget)) == effort


def test_what_was_said_wins_and_nothing_stays_nothing() -> None:
    """An effort that is said is not made from the budget beside it, nor a budget from the effort."""
    assert effort_of(Thinking("max", 1)) == "max"
    assert budget_of(Thinking("max", 1), "m") == 1
    assert effort_of(Thinking()) is None
    assert budget_of(Thinking(), "m") is None


@pytest.mark.parametrize("effort", BUDGETS)
def test_an_effort_has_a_budget(effort: str) -> None:
    """For models that know no efforts."""
    assert budget_of(Thinking(effort), "m") == BUDGETS[effort]


def test_an_effort_that_stands_for_no_budget_is_refused() -> None:
    """It says what to do instead."""
    with pytest.raises(BadRequestError, match="budget"):
        budget_of(Thinking("utmost"), "m")
