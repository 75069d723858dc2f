"""What a call holds while it runs, and what each of its guards is told at its end: once, whoever says it first."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agentflow.core.robustness.held import Held, Reached, is_ours
from agentflow.errors import (
    LimiterError,
    ModelTimeoutError,
    OperationTimeoutError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)

TAKEN, SENT, BEGUN = Reached.TAKEN, Reached.SENT, Reached.BEGUN
DOWN = ServerError("down")
LEFT = asyncio.CancelledError()
LATE = OperationTimeoutError("call", 5.0)
POOL = OperationTimeoutError("pool", 5.0)


class Told:
    """Stands in for a guard: every method may be called, and is noted as (guard, method, what it was given)."""

    def __init__(self, guard: str, notes: list[tuple[Any, ...]]) -> None:
        self.guard, self.notes = guard, notes

    def __getattr__(self, method: str) -> Any:
        def told(*given: Any, **named: Any) -> None:
            self.notes.append((f"{self.guard}.{method}", *given, *named.values()))

        return told


def holding(reached: Reached = TAKEN) -> tuple[Held[str], list[tuple[Any, ...]]]:
    """A call that holds one of everything, and what its guards have been told."""
    notes: list[tuple[Any, ...]] = []
    held: Held[str] = Held(cast("Any", Told("limiter", notes)), cast("Any", None))
    held.reached = reached
    for guard in ("lease", "reservation", "permit", "ticket"):
        setattr(held, guard, Told(guard, notes))
    return held, notes


def test_it_begins_with_nothing_sent_and_nothing_held() -> None:
    held: Held[str] = Held(None, cast("Any", None))
    assert held.reached is TAKEN
    assert (held.lease, held.reservation, held.permit, held.ticket) == (None, None, None, None)


def test_one_that_holds_nothing_may_end_as_well() -> None:
    for end in (Held.succeed, Held.leave, lambda held: held.fail(DOWN)):
        end(Held(None, cast("Any", None)))


def test_a_success_is_told_to_all_of_them() -> None:
    held, notes = holding(BEGUN)
    held.succeed(input_tokens=3, output_tokens=5, seconds=7.0)
    assert held.reached is Reached.OVER
    assert notes == [
        ("lease.release",),
        ("reservation.settle", 3, 5),
        ("permit.success", 7.0),
        ("ticket.done", 7.0),
    ]


@pytest.mark.parametrize("first", ["succeed", "fail", "leave"])
@pytest.mark.parametrize("then", ["succeed", "fail", "leave"])
def test_only_the_first_end_counts(first: str, then: str) -> None:
    held, notes = holding(SENT)
    for end in (first, then):
        held.fail(DOWN) if end == "fail" else getattr(held, end)()
        notes.append(("end",))
    assert notes[-2] == ("end",), "the second says nothing"


@pytest.mark.parametrize(
    ("reached", "error", "permit", "reservation"),
    [
        (TAKEN, DOWN, ("permit.drop",), ("reservation.cancel",)),
        (TAKEN, LEFT, ("permit.drop",), ("reservation.cancel",)),
        (SENT, DOWN, ("permit.failure", DOWN), ("reservation.settle", 0, 0)),
        (SENT, LATE, ("permit.failure", LATE), ("reservation.release",)),
        (SENT, POOL, ("permit.drop",), ("reservation.cancel",)),
        (SENT, LEFT, ("permit.drop",), ("reservation.release",)),
        (SENT, error := LookupError("foreign"), ("permit.failure", error), ("reservation.release",)),
        (SENT, late := ModelTimeoutError("first_byte", 5.0), ("permit.failure", late), ("reservation.release",)),
        (SENT, ours := LimiterError("limiter", "full"), ("permit.failure", ours), ("reservation.cancel",)),
        (BEGUN, DOWN, ("permit.failure", DOWN), ("reservation.release",)),
        (BEGUN, LATE, ("permit.failure", LATE), ("reservation.release",)),
        (BEGUN, LEFT, ("permit.drop",), ("reservation.release",)),
    ],
    ids=lambda given: getattr(given, "name", None) or type(given).__name__,
)
def test_a_failure_counts_for_how_far_it_has_come(
    reached: Reached, error: BaseException, permit: tuple[Any, ...], reservation: tuple[Any, ...]
) -> None:
    """Never sent: all is given back, and the breaker hears nothing. Refused by the server: the request counts, its
    tokens do not. Nobody knows what it took: as much as was reserved."""
    held, notes = holding(reached)
    held.fail(error)
    assert notes == [("lease.release",), permit, reservation, ("ticket.end", error)]


def test_who_leaves_records_neither_success_nor_failure() -> None:
    held, notes = holding(SENT)
    held.leave()
    assert [each[0] for each in notes] == ["lease.release", "permit.drop", "reservation.release", "ticket.end"]
    assert isinstance(notes[-1][1], asyncio.CancelledError)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (RateLimitError("slow down", retry_after=20.0), 20.0),
        (RateLimitError("slow down", retry_after=4_000_000.0), 300.0),
        (RateLimitError("slow down"), None),
        (QuotaExceededError("pay first", retry_after=20.0), None),
        (LimiterError("limiter", "full", retry_after=20.0), None),
        (ServerError("down", retry_after=20.0), None),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_limiter_is_left_alone_for_as_long_as_the_server_says_and_waiting_mends(
    error: Exception, seconds: float | None
) -> None:
    """At most five minutes: then a single call asks again."""
    held, notes = holding(SENT)
    held.fail(error)
    drained = [("limiter.drain", seconds)] if seconds is not None else []
    assert [each for each in notes if each[0].startswith("limiter")] == drained


def test_a_wait_for_a_connection_is_our_own_affair() -> None:
    assert is_ours(POOL) is True
    assert is_ours(LATE) is False
    assert is_ours(DOWN) is False
