"""What one call brings along through a pipeline: its account of time, and the legs of a hedged one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.shedding import Priority
from agentflow.core.robustness.timing import Timing

if TYPE_CHECKING:
    from agentflow.core.robustness.deadline import Deadline

DEADLINE = cast("Deadline", object())  # an operation carries it, and looks at nothing of it


async def tell(kind: str, facts: Mapping[str, object], attempt: int) -> None: ...


def spent(operation: Operation) -> Operation:
    """One with an account in which every number is another one."""
    operation.queue, operation.limiter, operation.pool = 1.0, 2.0, 4.0
    operation.backoff, operation.failed = 8.0, 16.0
    operation.attempts, operation.begun, operation.sent = 3, 100.0, True
    return operation


# ---- the account


def test_at_first_nothing_was_spent_or_sent() -> None:
    operation = Operation(DEADLINE)
    assert (operation.attempts, operation.sent, operation.prior, operation.ticket) == (0, False, None, None)
    assert operation.timing(107.0, 90.0) == Timing(total=17.0, attempts=0)


def test_the_account_of_an_answer_that_came_whole() -> None:
    assert spent(Operation(DEADLINE)).timing(107.0, 90.0) == Timing(
        queue=1.0,
        limiter=2.0,
        pool=4.0,
        backoff=8.0,
        failed=16.0,
        first_token=None,
        generation=7.0,
        total=17.0,
        attempts=3,
    )


def test_the_account_of_a_stream_divides_the_attempt_at_its_first_piece() -> None:
    timing = spent(Operation(DEADLINE)).timing(107.0, 90.0, first=102.0)
    assert (timing.first_token, timing.generation, timing.total) == (2.0, 5.0, 17.0)


def test_what_broke_counts_as_failed_until_then_and_nothing_runs_any_more() -> None:
    operation = spent(Operation(DEADLINE))
    operation.broke(105.0)
    assert operation.failed == 16.0 + 5.0
    assert operation.timing(109.0, 90.0).generation == 0.0
    operation.broke(109.0)  # nothing had begun since
    assert operation.failed == 16.0 + 5.0


# ---- hedged calls


def test_a_leg_asks_for_the_same_and_has_an_account_of_its_own() -> None:
    policy, clock, nearer = RetryPolicy(), VirtualClock(), cast("Deadline", object())
    losses: list[str] = []
    whole = Operation(
        DEADLINE,
        10,
        20,
        "ann",
        Priority.HIGH,
        policy=policy,
        clock=clock,
        tell=tell,
        on_loss=lambda: losses.append("lost"),
    )
    leg = spent(whole).leg(nearer)
    assert (leg.deadline, leg.input_tokens, leg.output_tokens) == (nearer, 10, 20)
    assert (leg.tenant, leg.priority, leg.policy, leg.clock, leg.tell) == ("ann", Priority.HIGH, policy, clock, tell)
    assert (leg.ticket, leg.attempts) == (whole.ticket, 3)
    assert leg.queue == leg.limiter == leg.pool == leg.backoff == leg.failed == 0.0
    leg.lose()
    assert losses == [], "the call as a whole is told of its losses, once"


def test_the_leg_that_won_adds_its_account_to_that_of_the_call() -> None:
    whole = spent(Operation(DEADLINE))
    leg = spent(whole.leg(DEADLINE))
    leg.attempts, leg.begun, leg.sent = 7, 104.0, False
    whole.adopt(leg)
    assert (whole.attempts, whole.begun, whole.sent) == (7, 104.0, False)
    assert (whole.queue, whole.limiter, whole.pool, whole.backoff, whole.failed) == (1.0, 4.0, 8.0, 16.0, 32.0)


def test_losses_are_told_and_what_was_given_already_is_handed_over() -> None:
    heard: list[object] = []

    async def on_drop(value: object) -> None:
        heard.append(value)

    async def main(operation: Operation) -> None:
        operation.lose()
        await operation.drop("a stream")

    asyncio.run(main(Operation(DEADLINE, on_loss=lambda: heard.append("lost"), on_drop=on_drop)))
    asyncio.run(main(Operation(DEADLINE)))  # where nobody wants to know
    assert heard == ["lost", "a stream"]


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_a_first_piece_that_came_at_once_took_no_time(seconds: float) -> None:
    timing = spent(Operation(DEADLINE)).timing(100.0 + seconds, 100.0, first=100.0)
    assert (timing.first_token, timing.generation) == (0.0, seconds)
