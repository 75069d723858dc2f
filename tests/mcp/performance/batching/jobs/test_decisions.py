"""The pure decisions: how a job is split and named, how long to wait, how likely it is to be done in time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigurationError
from agentflow.llm.providers.batches.endpoint import BatchLimits
from agentflow.mcp.performance.batching.jobs.chance import DAY, chance
from agentflow.mcp.performance.batching.jobs.ids import batch_name, checked_id, custom_id, new_job_id, part_name, split
from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy, parts_of, pause, plan_of_escape

SECONDS = st.floats(0, 200_000)


# ---- parts and names -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 9), st.integers(1, 120))
def test_parts_hold_every_request_once_and_keep_to_the_limits(sizes: list[int], most: int, room: int) -> None:
    runs = list(split(sizes, requests=most, bytes=room))
    assert [at for run in runs for at in run] == list(range(len(sizes)))
    for run in runs:
        assert 1 <= len(run) <= most
        assert sum(sizes[at] for at in run) <= room or len(run) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 9), st.integers(50, 120))
def test_no_part_could_have_held_the_next_request_too(sizes: list[int], most: int, room: int) -> None:
    runs = list(split(sizes, requests=most, bytes=room))
    for run, following in pairwise(runs):
        assert len(run) == most or sum(sizes[at] for at in run) + sizes[following.start] > room


def test_a_policy_splits_more_finely_than_the_provider_and_never_less() -> None:
    limits = BatchLimits(requests=100, bytes=10_000)
    assert len(list(parts_of([10] * 100, limits, BatchPolicy(part_requests=30)))) == 4
    assert len(list(parts_of([10] * 100, limits, BatchPolicy(part_requests=1_000)))) == 3  # by bytes
    assert len(list(parts_of([10] * 100, limits, BatchPolicy(), most=10))) == 10


@given(st.integers(0, 999_999), st.binary(max_size=20))
def test_names_fit_what_every_provider_allows(seq: int, body: bytes) -> None:
    job = new_job_id()
    name = custom_id(checked_id("x" * 26), seq, "/chat/completions", body)
    assert checked_id(job) == job
    assert len(name) <= 64
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(batch_name(part_name("x" * 26, 9_999), [name])) <= 40


def test_a_name_tells_what_was_asked() -> None:
    assert custom_id("af", 0, "/a", b"x") != custom_id("af", 0, "/a", b"y")
    assert custom_id("af", 0, "/a", b"x") != custom_id("af", 0, "/b", b"x")
    assert batch_name("af-1", ["a", "b"]) != batch_name("af-1", ["a", "c"])


@pytest.mark.parametrize("bad", ["", "UPPER", "a b", "-a", "a-", "x" * 27, "a_b", "../a"])
def test_an_id_that_no_provider_takes_is_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError):
        checked_id(bad)


# ---- time ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_up_to_a_limit(asked: int, dice: float) -> None:
    policy = BatchPolicy(poll_first=10, poll_most=120)
    assert 10 <= pause(policy, asked, dice) <= 120 * 1.2
    assert pause(policy, asked, dice) <= pause(policy, asked + 1, dice)


def test_direct_calls_begin_as_late_as_they_can() -> None:
    policy = BatchPolicy(direct_seconds=10, direct_concurrency=8, cancel_seconds=600)
    escape = plan_of_escape(policy, 10_000.0, created=0.0, remaining=80)
    assert (escape.direct, escape.cancel) == (9_900.0, 9_300.0)
    assert plan_of_escape(policy, 100.0, created=0.0, remaining=8).cancel == 65.0  # a quarter of a short time


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"poll_first": -1.0}, {"settle": math.inf}, {"part_bytes": 0}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        BatchPolicy(**wrong)  # type: ignore[arg-type]


def test_a_policy_comes_back_from_the_file_as_it_was() -> None:
    policy = BatchPolicy(attempts=7, part_requests=3)
    assert BatchPolicy.from_json(policy.as_json()) == policy
    assert BatchPolicy.from_json('{"attempts": 2, "of_tomorrow": 1}') == BatchPolicy(attempts=2)


# ---- chance --------------------------------------------------------------------------------------------------


@given(st.lists(SECONDS, max_size=30), SECONDS, SECONDS, SECONDS)
def test_a_chance_is_a_probability_that_grows_with_time(
    seen: list[float], waited: float, left: float, more: float
) -> None:
    found = chance(seen, waited=waited, left=left)
    assert 0.0 <= found <= 1.0
    assert chance(seen, waited=waited, left=left + more) >= found
    assert chance(seen, waited=waited, left=0.0) == 0.0


def test_before_anything_was_seen_what_others_publish_counts() -> None:
    assert chance([], waited=0, left=420) == pytest.approx(0.5)
    assert chance([], waited=0, left=3600) == pytest.approx(0.9)
    assert chance([], waited=0, left=DAY) == pytest.approx(0.99)
    assert chance([], waited=0, left=30) == 0.0


def test_what_was_seen_outweighs_it_soon() -> None:
    slow = [7200.0] * 30
    assert chance(slow, waited=0, left=3600) < 0.1
    assert chance(slow, waited=0, left=7300) > 0.95


def test_what_has_been_waited_counts() -> None:
    """Half of the batches take ten minutes and half three hours: after twenty minutes it is one of the slow ones."""
    seen = [600.0] * 50 + [10_800.0] * 50
    assert chance(seen, waited=0, left=1200) > 0.45
    assert chance(seen, waited=1200, left=1200) < 0.05
    assert chance(seen, waited=1200, left=10_000) > 0.9


def test_batches_that_expired_count_against_it() -> None:
    assert chance([math.inf] * 20, waited=0, left=DAY) < 0.2


@given(st.integers(0, 10**6))
def test_frequencies_are_those_that_it_says(seed: int) -> None:
    """With much history, the chance is the share of batches that took no longer."""
    import random

    dice = random.Random(seed)
    seen = [dice.expovariate(1 / 1800) for _ in range(400)]
    left = dice.uniform(60, 7200)
    share = sum(each <= left for each in seen) / len(seen)
    assert chance(seen, waited=0, left=left) == pytest.approx(share, abs=0.01)
