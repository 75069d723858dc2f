"""The queue of a load shedder by itself: how long a priority waits at the moment."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.core.robustness.adaptive_limit import Fixed
from agentflow.core.robustness.shedding import Line, Priority


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
