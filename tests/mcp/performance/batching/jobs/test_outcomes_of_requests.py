"""Failures, and answers that come twice, in no order, for somebody else, garbled or not at all."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from tests.support.batch_api_server import Trouble
from tests.support.batch_bench import BatchBench

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    BatchRefusedError,
    BatchRequestError,
    ServerError,
)

PROMPTS = [f"question {number}" for number in range(6)]
Place = tuple[BatchBench, str]


async def finished(bench: BatchBench, model: str, asked: list[str] = PROMPTS, **how: Any) -> dict[int, Any]:
    """What became of each request: the text of its answer, or the type of its error."""
    with await bench.submit(asked, model=model, job_id="af-test", **how) as job:
        results = [result async for result in job.results()]
    assert sorted(result.index for result in results) == list(range(len(asked))), "each request once"
    return {result.index: type(result.error) if result.error else result.text for result in results}


def all_answered(asked: list[str] = PROMPTS) -> dict[int, str]:
    return {number: f"re: {prompt}" for number, prompt in enumerate(asked)}


async def test_only_what_has_failed_is_asked_again(place: Place) -> None:
    bench, model = place
    bench.server.fails = lambda prompt, time: 500 if prompt in PROMPTS[:2] and time == 0 else None

    assert await finished(bench, model) == all_answered()
    assert [len(work.items) for work in bench.server.works.values()] == [6, 2]
    assert set(bench.server.billed.values()) == {1}


async def test_what_is_wrong_with_a_request_does_not_pass_by_repetition(place: Place) -> None:
    bench, model = place
    bench.server.fails = lambda prompt, time: 400 if prompt == PROMPTS[3] else None

    assert await finished(bench, model) == {**all_answered(), 3: BadRequestError}
    assert len(bench.server.works) == 1


async def test_a_request_that_keeps_failing_is_given_up_after_so_many_attempts(place: Place) -> None:
    bench, model = place
    bench.server.fails = lambda prompt, time: 500 if prompt == PROMPTS[0] else None

    assert await finished(bench, model, policy=replace(bench.policy, attempts=3)) == {**all_answered(), 0: ServerError}
    assert [len(work.items) for work in bench.server.works.values()] == [6, 1, 1]


async def test_answers_in_no_order_and_twice_and_for_nobody_here_are_told_apart(place: Place) -> None:
    bench, model = place

    def mangled(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        twice = [*lines, *lines[:3]]
        random.Random(1).shuffle(twice)
        stranger = {**lines[0], "custom_id": "somebody-else", "key": "somebody-else", "metadata": {"key": "else"}}
        return [stranger, *twice]

    bench.server.mangle = mangled
    assert await finished(bench, model) == all_answered()
    [told] = [entry.reason for entry in bench.open().journal() if entry.event == "collected"]
    assert "3 came twice, 1 were for nobody here" in told


async def test_an_answer_to_another_question_under_a_name_like_ours_is_not_taken(place: Place) -> None:
    """The name ends in a hash of what was asked."""
    bench, model = place

    def forged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        def renamed(name: str) -> str:
            return name[:-1] + ("0" if name[-1] != "0" else "1")

        first = dict(lines[1])
        if "custom_id" in first:
            first["custom_id"] = renamed(lines[0]["custom_id"])
        elif "key" in first:
            first["key"] = renamed(lines[0]["key"])
        else:
            first["metadata"] = {"key": renamed(lines[0]["metadata"]["key"])}
        return [first, *lines]

    bench.server.mangle = forged
    assert await finished(bench, model) == all_answered()


async def test_answers_that_are_missing_at_first_are_waited_for_and_not_paid_again(place: Place) -> None:
    bench, model = place
    looks = iter(range(10))
    bench.server.mangle = lambda lines: lines[2:] if next(looks) < 2 else lines

    assert await finished(bench, model) == all_answered()
    assert len(bench.server.works) == 1
    assert set(bench.server.billed.values()) == {1}


async def test_answers_that_stay_missing_are_asked_again_and_said_to_be_at_risk(place: Place) -> None:
    """What a provider has lost it may have billed: nothing else can be done about it, but it is not kept quiet."""
    bench, model = place
    bench.server.mangle = lambda lines: lines[1:] if len(lines) == 6 else lines

    assert await finished(bench, model) == all_answered()
    job = bench.open()
    assert job.status().at_risk == 1
    assert [result.at_risk async for result in job.results()].count(True) == 1
    assert sorted(bench.server.billed.values()) == [1, 1, 1, 1, 1, 2]


async def test_a_line_that_is_cut_counts_as_missing_and_spoils_no_other(bench: BatchBench) -> None:
    bench.server.cut = True
    assert await finished(bench, "openai") == all_answered()


async def test_a_batch_that_expires_keeps_what_was_done_and_asks_the_rest_again(place: Place) -> None:
    bench, model = place
    bench.server.takes, bench.server.window = 100_000.0, 50_000.0
    job = await bench.submit(PROMPTS, model=model, policy=replace(bench.policy, poll_first=3000.0, poll_most=9000.0))
    bench.server.takes = 600.0

    assert sorted([result.text async for result in job.results()]) == sorted(all_answered().values())
    if model != "google":  # whose expired batches have no answers
        assert set(bench.server.billed.values()) == {1}
        assert [len(work.items) for work in bench.server.works.values()] == [6, 3]
    assert [part.state for part in job.status().parts][:1] == ["collected" if model == "anthropic" else "expired"]
    job.close()


async def test_a_request_that_expires_again_and_again_says_so(bench: BatchBench) -> None:
    bench.server.takes, bench.server.window = 1e9, 50_000.0
    done = await finished(bench, "anthropic", policy=replace(bench.policy, attempts=2, poll_most=9000.0))
    assert done == dict.fromkeys(range(6), BatchRequestError)
    assert bench.open().status().state == "failed"


# ---- refused as a whole --------------------------------------------------------------------------------------


async def test_a_batch_that_is_refused_raises_and_stands_in_the_file(place: Place) -> None:
    bench, model = place
    bench.server.trouble["create"] = [Trouble.REFUSED]
    with pytest.raises(BatchRefusedError, match="no luck"):
        await bench.submit(PROMPTS, model=model, job_id="af-test")

    job = bench.open("af-test")
    assert (job.status().state, job.status().failed) == ("failed", 6)
    assert not bench.server.billed


async def test_a_wrong_key_leaves_the_job_waiting_for_the_right_one(place: Place) -> None:
    bench, model = place
    bench.server.trouble["create"] = [Trouble.UNKNOWN_KEY]
    with pytest.raises(AuthenticationError):
        await bench.submit(PROMPTS, model=model, job_id="af-test")

    assert bench.open("af-test").status().state == "planned"
    assert await finished(bench, model) == all_answered()


async def test_a_provider_that_is_busy_is_asked_again_later(place: Place) -> None:
    bench, model = place
    bench.server.trouble["create"] = [Trouble.BUSY, Trouble.BUSY]
    bench.server.trouble["upload"] = [Trouble.BUSY, Trouble.FAILS_BEFORE, Trouble.FAILS_AFTER]
    bench.server.trouble["check"] = [Trouble.FAILS_BEFORE, Trouble.LOST_AFTER, Trouble.BUSY]
    bench.server.trouble["results"] = [Trouble.FAILS_BEFORE, Trouble.LOST_AFTER]

    assert await finished(bench, model) == all_answered()
    assert set(bench.server.billed.values()) == {1}


async def test_a_file_with_one_bad_line_costs_that_line_alone(bench: BatchBench) -> None:
    """OpenAI refuses such a file after it has accepted the batch, and says which line it is."""
    bench.server.faults = [{"code": "invalid_json_line", "message": "line 3 is no JSON", "line": 3}]
    job = await bench.submit(PROMPTS, model="openai")
    bench.server.faults = []
    results = {result.index: result async for result in job.results()}

    assert isinstance(results[2].error, BatchRefusedError)
    assert "line 3" in str(results[2].error)
    assert [index for index, result in results.items() if result.error is None] == [0, 1, 3, 4, 5]
    job.close()


async def test_a_queue_that_is_full_gets_smaller_batches_later(bench: BatchBench) -> None:
    bench.server.faults = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}]
    job = await bench.submit(PROMPTS, model="openai")
    sent = bench.clock.now
    bench.server.faults = []
    assert sorted([result.text async for result in job.results()]) == list(all_answered().values())
    assert [len(work.items) for work in bench.server.works.values()] == [6, 3, 3]
    assert list(bench.server.works.values())[1].created >= sent + bench.policy.poll_most
    job.close()


async def test_a_batch_that_the_provider_no_longer_knows_is_asked_again_at_a_risk(place: Place) -> None:
    bench, model = place
    job = await bench.submit(PROMPTS, model=model)
    bench.server.works.clear()
    assert len([result.text async for result in job.results()]) == 6
    assert job.status().at_risk == 6
    job.close()
