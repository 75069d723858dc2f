"""The queue of a load shedder by itself: how long a priority waits at the moment."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agentflow.core.robustness.adaptive_limit import Fixed
from agentflow.core.robustness.shedding import Line, Priority, is_overload
from agentflow.errors import (
    LimiterError,
    NodeError,
    OperationTimeoutError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)


@dataclass(frozen=True, eq=False)
class Item:
    since: float
    priority: Priority = Priority.NORMAL
    tenant: str | None = None


def line() -> Line[Item]:
    return Line(Fixed(1), 1.0)


def test_a_queue_in_which_the_first_has_stood_for_long_is_a_standing_one() -> None:
    each = line()
    each.push(Item(0.0))
    assert each.wait_of(Priority.NORMAL, 0.0) == 0.0
    each.push(Item(2.0))
    assert each.wait_of(Priority.NORMAL, 9.0) == 9.0
    assert each.pop(9.0) is not None
    assert each.wait_of(Priority.NORMAL, 9.0) == 7.0


def test_a_queue_that_empties_is_none_and_the_next_one_starts_anew() -> None:
    """However it empties: served, left, or displaced."""
    for leave in (
        lambda each, item: each.pop(9.0),
        lambda each, item: each.remove(item),
        lambda each, item: each.displace(Priority.HIGH, None),
    ):
        each, item = line(), Item(0.0)
        each.push(item)
        leave(each, item)
        each.push(Item(9.0))
        assert each.wait_of(Priority.NORMAL, 9.0) == 0.0


# ---- signs of overload


@pytest.mark.parametrize(
    ("error", "overload"),
    [
        (OverloadedError("busy"), True),
        (RateLimitError("slow down"), True),
        (OperationTimeoutError("call", 5.0), True),
        (QuotaExceededError("pay first"), False),
        (LimiterError("limiter", "full"), False),
        (ServerError("down"), False),
        (LookupError("ours"), False),
    ],
    ids=lambda given: type(given).__name__,
)
def test_overload_is_what_the_other_side_shows_also_within_a_nodes_failure(error: Exception, overload: bool) -> None:
    failure = NodeError("write", "exec", 1, error)
    failure.__cause__ = error
    assert is_overload(error) is overload
    assert is_overload(failure) is overload


def test_a_nodes_failure_without_a_cause_is_no_sign_of_anything() -> None:
    failure = NodeError("write", "exec", 1, OverloadedError("busy"))
    failure.__cause__ = None
    assert is_overload(failure) is False
