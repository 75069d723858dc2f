"""A process that dies at any edge of a job's course: nothing is billed twice, nothing is lost, for every provider.

Edges are not listed here but counted: each write to the file and each call of the provider has one before it and one
after it, and between any two answers that are fetched there is another. A life that crosses them all ends the test.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from tests.support.batch_api_server import Trouble
from tests.support.batch_bench import BatchBench


async def dies_at(bench: BatchBench, model: str, deaths: list[int], tag: str, parts: int = 1) -> int:
    """A job of two requests a part goes through so many lives; returns how often it died."""
    asked = [f"{tag} question {number}" for number in range(2 * parts)]
    bench.store = bench.folder / f"{tag}.db"
    bench.policy = replace(bench.policy, part_requests=2, poll_first=400.0, poll_most=400.0)
    before = bench.server.billed.total()
    results, died = await bench.through_lives(asked, model=model, deaths=deaths)

    answered = [result.text for result in sorted(results, key=lambda result: result.index)]
    where = bench.edges.crossed[-1:]
    assert answered == [f"re: {prompt}" for prompt in asked], f"something was lost: {deaths} {where}"
    assert [bench.server.billed[prompt] for prompt in asked] == [1] * len(asked), f"billed twice: {deaths} {where}"
    assert bench.server.billed.total() == before + len(asked)
    return died


async def test_a_death_at_any_edge_bills_nothing_twice_and_loses_nothing(every_place: tuple[BatchBench, str]) -> None:
    bench, model = every_place
    for edge in itertools.count():
        if not await dies_at(bench, model, [edge], f"edge-{edge}"):
            break
    assert edge > 20, "a life has that many edges at least"


async def test_a_process_that_dies_again_and_again_gets_there(every_place: tuple[BatchBench, str]) -> None:
    """Each life dies a few edges further than the one before got from its own beginning."""
    bench, model = every_place
    assert await dies_at(bench, model, list(range(0, 24, 2)), "often", parts=2) > 0


@pytest.mark.parametrize("trouble", [Trouble.LOST_AFTER, Trouble.FAILS_AFTER, Trouble.LATE, Trouble.LOST_BEFORE])
@pytest.mark.parametrize("dies", [False, True])
async def test_a_submission_whose_answer_is_lost_is_found_and_not_repeated(
    place: tuple[BatchBench, str], trouble: Trouble, dies: bool
) -> None:
    bench, model = place
    bench.server.trouble["create"] = [trouble, trouble]
    await dies_at(bench, model, [7, 9] if dies else [], trouble.name.lower(), parts=2)
    if trouble is not Trouble.LOST_BEFORE:
        assert len(bench.server.works) == 2
