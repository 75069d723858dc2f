"""A deadline: batches are waited for as long as there is time, called off before it, and what is left is asked
directly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.support.batch_api_server import FULL_PRICE, Trouble
from tests.support.batch_bench import BatchBench, Died

from agentflow.errors import AuthenticationError, ConfigurationError
from agentflow.mcp.performance.batching.jobs.job import BatchJob

PROMPTS = [f"question {number}" for number in range(6)]
Place = tuple[BatchBench, str]
HOUR = 3600.0


async def texts(job: BatchJob) -> list[str]:
    return sorted([result.text async for result in job.results()])


ANSWERS = sorted(f"re: {prompt}" for prompt in PROMPTS)


async def test_a_batch_that_ends_in_time_is_all_that_is_paid(place: Place) -> None:
    bench, model = place
    with await bench.submit(PROMPTS, model=model, deadline=HOUR) as job:
        assert await texts(job) == ANSWERS
        status = job.status()
    assert (status.direct, status.at_risk) == (0, 0)
    assert bench.server.asked["direct"] == 0


async def test_a_batch_that_is_too_slow_is_called_off_and_its_answers_so_far_are_kept(place: Place) -> None:
    bench, model = place
    bench.server.takes = 2 * HOUR
    start = bench.clock.now
    with await bench.submit(PROMPTS, model=model, deadline=HOUR) as job:
        assert await texts(job) == ANSWERS
        status = job.status()

    assert bench.clock.now <= start + HOUR
    assert set(bench.server.billed.values()) == {1}, "cancelled in time, nothing is billed twice"
    assert 0 < status.direct < 6
    halves, wholes = 6 - status.direct, status.direct
    assert status.cost == pytest.approx((halves / 2 + wholes) * FULL_PRICE)


async def test_a_batch_that_does_not_end_may_be_billed_twice_and_the_status_says_so(place: Place) -> None:
    bench, model = place
    bench.server.takes, bench.server.cancel_takes = 1.5 * HOUR, 2 * HOUR
    with await bench.submit(PROMPTS, model=model, deadline=HOUR) as job:
        results = [result async for result in job.results()]
        before = job.status()
        after = await job.finish()

    assert sorted(result.text for result in results) == ANSWERS
    assert {result.via for result in results} == {"direct"}
    assert (before.at_risk, before.billed_twice, before.open_parts) == (6, 0, 1)
    twice = [prompt for prompt, times in bench.server.billed.items() if times == 2]
    assert 0 < after.billed_twice == len(twice) < 6
    assert after.second_cost == pytest.approx(len(twice) * FULL_PRICE / 2)
    assert after.open_parts == 0
    if model != "google":  # which does not say of the others that they were not worked on
        assert after.at_risk == len(twice)


async def test_no_batch_is_begun_that_has_no_chance(place: Place) -> None:
    bench, model = place
    with await bench.submit(PROMPTS, model=model, deadline=120.0) as job:
        assert await texts(job) == ANSWERS
        [reason] = [entry.reason for entry in job.journal() if entry.event == "drop"]
    assert reason.startswith("the chance that it is done in time is ")
    assert not bench.server.works
    assert bench.server.asked["direct"] == 6


async def test_the_chance_is_learned_from_earlier_jobs(bench: BatchBench) -> None:
    """Ten batches that took three hours say more than what others publish."""
    bench.server.takes = 3 * HOUR
    policy = replace(bench.policy, poll_first=600.0, poll_most=600.0)
    for number in range(10):
        with await bench.submit([f"earlier {number}"], model="anthropic", policy=policy) as earlier:
            await texts(earlier)

    with await bench.submit(PROMPTS, model="anthropic", deadline=HOUR, policy=policy) as job:
        assert not [work for work in bench.server.works.values() if len(work.items) == 6]
        assert await texts(job) == ANSWERS
    with await bench.submit(PROMPTS, model="anthropic", deadline=6 * HOUR, policy=policy) as job:
        chance = job.status().chance
        assert chance is not None
        assert chance > 0.8


async def test_a_job_that_is_resumed_after_its_deadline_asks_directly_what_is_left(place: Place) -> None:
    bench, model = place
    bench.server.takes = 100 * HOUR
    (await bench.submit(PROMPTS, model=model, deadline=HOUR)).close()
    bench.clock.now += 2 * HOUR
    with bench.open() as job:
        assert await texts(job) == ANSWERS


async def test_a_death_among_direct_calls_repeats_only_what_was_under_way(bench: BatchBench) -> None:
    policy = replace(bench.policy, direct_concurrency=2)
    for edge in range(40):
        bench.store = bench.folder / f"{edge}.db"
        asked = [f"{edge}: {prompt}" for prompt in PROMPTS]
        bench.mortal(edge)
        try:
            with await bench.submit(asked, model="openai", deadline=60.0, policy=policy, job_id="af-test") as job:
                await texts(job)
            break
        except Died:
            pass
        bench.live_on()
        with await bench.submit(asked, model="openai", deadline=60.0, policy=policy, job_id="af-test") as job:
            assert len(await texts(job)) == 6
            at_risk = job.status().at_risk
        twice = sum(bench.server.billed[prompt] == 2 for prompt in asked)
        assert twice <= at_risk <= 2
    assert 10 < edge < 39


async def test_a_wrong_key_among_direct_calls_fails_no_request(bench: BatchBench) -> None:
    bench.server.trouble["direct"] = [Trouble.UNKNOWN_KEY]
    with await bench.submit(PROMPTS, model="openai", deadline=60.0) as job:
        with pytest.raises(AuthenticationError):
            await texts(job)
        assert job.status().failed == 0
        assert await texts(job) == ANSWERS
        assert job.status().at_risk == 0
    assert set(bench.server.billed.values()) == {1}


async def test_an_unsure_submission_at_the_deadline_is_at_risk_until_it_is_known(bench: BatchBench) -> None:
    """Anthropic's batches bear no name: whether the one that runs is ours shows when it ends."""
    bench.server.trouble["create"] = [Trouble.LOST_AFTER]
    bench.server.takes = 3 * HOUR
    with await bench.submit_in_background(PROMPTS, model="anthropic", deadline=2 * HOUR) as job:
        assert await texts(job) == ANSWERS
        assert (job.status().at_risk, job.status().billed_twice) == (6, 0)
        after = await job.finish()
    assert (after.at_risk, after.billed_twice) == (6, 6)
    assert set(bench.server.billed.values()) == {2}


async def test_a_deadline_is_a_moment_with_a_time_zone_or_seconds(bench: BatchBench) -> None:
    moment = datetime.fromtimestamp(bench.clock.now + HOUR, UTC)
    with await bench.submit(PROMPTS, model="openai", deadline=moment) as job:
        assert job.status().deadline == moment.timestamp()
    with pytest.raises(ConfigurationError, match="time zone"):
        await bench.submit(PROMPTS, model="openai", deadline=moment.replace(tzinfo=None))
