"""A model under a budget: its batches are reserved before they are sent, and settled when they are collected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.batch_api_server import FULL_PRICE, Trouble
from tests.support.batch_bench import BatchBench

from agentflow.errors import BatchRefusedError, BudgetExceededError
from agentflow.mcp.optimization.budget.configured import budgets_of

PROMPTS = ["one", "two", "three"]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[BatchBench]:
    """Four tenths of a cent a month: some requests at their bound, of which a batch costs a part."""
    async with BatchBench(tmp_path, budget={"per_month": 0.004, "store": "budget.db", "account": "all"}) as made:
        yield made


async def spent(bench: BatchBench) -> tuple[float, float]:
    """What the account has spent, and what is reserved in it."""
    budget = budgets_of(bench.registry)[0].budget
    try:
        status = await budget.status()
    finally:
        await budget.aclose()
    return sum(each.spent for each in status), sum(each.reserved for each in status)


async def test_what_a_batch_may_cost_is_reserved_and_what_it_has_cost_is_settled(bench: BatchBench) -> None:
    with await bench.submit(PROMPTS, model="openai") as job:
        assert (await spent(bench))[1] > 3 * FULL_PRICE / 2
        assert len([result async for result in job.results()]) == 3
    assert await spent(bench) == (pytest.approx(3 * FULL_PRICE / 2), 0)


async def test_a_reservation_that_has_lapsed_meanwhile_is_put_right(bench: BatchBench) -> None:
    bench.server.takes = 40_000.0
    with await bench.submit(PROMPTS, model="anthropic") as job:
        bench.clock.now += 20_000.0
        held = await spent(bench)
        assert held[0] + held[1] > 3 * FULL_PRICE / 2
        assert len([result async for result in job.results()]) == 3
    assert await spent(bench) == (pytest.approx(3 * FULL_PRICE / 2), 0)


async def test_a_batch_that_the_budget_has_no_room_for_is_not_sent_and_waits(bench: BatchBench) -> None:
    many = [f"question {number}" for number in range(40)]
    with pytest.raises(BudgetExceededError):
        await bench.submit(many, model="openai", job_id="af-test")
    assert not bench.server.works
    with bench.open("af-test") as job:
        assert job.status().state == "uploaded"
        with pytest.raises(BudgetExceededError):
            [result async for result in job.results()]


async def test_what_was_refused_or_dropped_costs_nothing(bench: BatchBench) -> None:
    bench.server.trouble["create"] = [Trouble.REFUSED]
    with pytest.raises(BatchRefusedError):
        await bench.submit(PROMPTS, model="google")
    assert await spent(bench) == (0, 0)


async def test_a_submission_that_is_repeated_is_reserved_once(bench: BatchBench) -> None:
    bench.server.trouble["create"] = [Trouble.BUSY, Trouble.BUSY, Trouble.LOST_BEFORE]
    with await bench.submit(PROMPTS, model="openai") as job:
        assert len([result async for result in job.results()]) == 3
    assert await spent(bench) == (pytest.approx(3 * FULL_PRICE / 2), 0)


async def test_direct_calls_are_charged_by_the_budget_s_own_wrapper(bench: BatchBench) -> None:
    with await bench.submit(PROMPTS, model="openai", deadline=10.0) as job:
        assert {result.via async for result in job.results()} == {"direct"}
    assert await spent(bench) == (pytest.approx(3 * FULL_PRICE), 0)
