"""A job that is called off: what was not sent never is, what is answered is kept, for it is paid for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.batch_api_server import Trouble
from tests.support.batch_bench import BatchBench

from agentflow.errors import AuthenticationError, BatchRequestError

PROMPTS = [f"question {number}" for number in range(6)]
Place = tuple[BatchBench, str]


async def test_what_the_batch_has_answered_by_then_is_kept(place: Place) -> None:
    bench, model = place
    bench.server.cancel_takes = 60.0
    with await bench.submit(PROMPTS, model=model) as job:
        bench.clock.now += 350.0
        assert (await job.cancel()).state == "cancelling"
        results = {result.index: result async for result in job.results()}
        status = job.status()

    assert [results[index].text for index in range(3)] == [f"re: {prompt}" for prompt in PROMPTS[:3]]
    assert all(isinstance(results[index].error, BatchRequestError) for index in range(3, 6))
    assert (status.state, status.answered, status.cancelled) == ("cancelled", 3, 3)
    assert bench.server.billed == dict.fromkeys(PROMPTS[:3], 1)


async def test_a_job_that_was_not_sent_costs_nothing(place: Place) -> None:
    bench, model = place
    bench.server.trouble["create"] = [Trouble.UNKNOWN_KEY]
    with pytest.raises(AuthenticationError):
        await bench.submit(PROMPTS, model=model)
    with bench.open() as job:
        status = await job.cancel()
        assert (status.state, status.cancelled, status.open_parts) == ("cancelled", 6, 0)
    assert not bench.server.works


async def test_a_wish_to_cancel_that_is_lost_is_said_again(place: Place) -> None:
    bench, model = place
    bench.server.trouble["cancel"] = [Trouble.LOST_BEFORE, Trouble.FAILS_BEFORE]
    with await bench.submit(PROMPTS, model=model) as job:
        bench.clock.now += 150.0
        await job.cancel()
        status = await job.finish()
    assert bench.server.asked["cancel"] >= 3
    assert 0 < status.answered < 6


async def test_a_job_that_has_ended_stays_as_it_is(place: Place) -> None:
    bench, model = place
    with await bench.submit(PROMPTS, model=model) as job:
        assert len([result async for result in job.results()]) == 6
        assert (await job.cancel()).state == "collected"


async def test_a_submission_in_doubt_is_found_before_it_is_cancelled(place: Place) -> None:
    bench, model = place
    bench.server.trouble["create"] = [Trouble.LOST_AFTER]
    bench.server.takes = 6_000.0
    with await bench.submit_in_background(PROMPTS, model=model, policy=replace(bench.policy, poll_most=300.0)) as job:
        await job.cancel()
        status = await job.finish()
    assert status.answered + status.cancelled == 6
    assert bench.server.billed.total() == status.answered
    if model != "anthropic":  # whose batch shows whose it is only when it ends
        assert status.answered == 0
