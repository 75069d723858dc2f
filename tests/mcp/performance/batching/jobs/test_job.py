"""A batch job from the first request to the last answer, with every provider's own wire format over real HTTP."""

from __future__ import annotations

import pytest
from tests.support.batch_api_server import FULL_PRICE
from tests.support.batch_bench import BatchBench

PROMPTS = [f"question {number}" for number in range(7)]


async def test_every_request_is_answered_once_at_half_the_price(every_place: tuple[BatchBench, str]) -> None:
    bench, model = every_place
    with await bench.submit(PROMPTS, model=model) as job:
        results = await bench.results(job)
        status = job.status()

    assert {result.index: result.text for result in results} == {n: f"re: {p}" for n, p in enumerate(PROMPTS)}
    assert all(result.cost == pytest.approx(FULL_PRICE / 2) and result.via == "batch" for result in results)
    assert bench.server.billed == dict.fromkeys(PROMPTS, 1)
    assert (status.state, status.answered, status.at_risk) == ("collected", 7, 0)
    assert status.cost == pytest.approx(len(PROMPTS) * FULL_PRICE / 2)
