"""How slow a slow call is: the share that was named, of the last 200, once there are enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.robustness.latencies import Latencies


def of(*seconds: float, percentile: float = 0.9, minimum: int = 10) -> float | None:
    latencies = Latencies(percentile, minimum)
    for each in seconds:
        latencies.add(each)
    return latencies.slow


@pytest.mark.parametrize(("percentile", "slow"), [(0.5, 5.0), (0.51, 6.0), (0.9, 9.0), (0.95, 10.0), (1.0, 10.0)])
def test_it_is_the_smallest_that_the_share_did_not_exceed(percentile: float, slow: float) -> None:
    assert of(*[7.0, 1.0, 10.0, 4.0, 2.0, 9.0, 3.0, 6.0, 5.0, 8.0], percentile=percentile) == slow


def test_too_few_say_nothing() -> None:
    assert of(*[1.0] * 9) is None
    assert of(*[1.0] * 10) == 1.0


def test_what_was_before_the_last_200_is_forgotten() -> None:
    assert of(9.0, *[1.0] * 199, percentile=1.0) == 9.0
    assert of(9.0, *[1.0] * 200, percentile=1.0) == 1.0


@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, 1.0, 3.0]), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_it_is_one_of_them_and_so_many_did_not_exceed_it(seconds: list[float], percentile: float) -> None:
    last, slow = seconds[-200:], of(*seconds, percentile=percentile, minimum=1)
    assert slow in last
    assert sum(each <= slow for each in last) >= percentile * len(last) - 1e-9
