"""Distributions: percentiles within 1 % of the exact ones, whatever the values, and merging as if it had been one."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.observability.metrics.histogram import EMPTY, ERROR, SMALLEST, Distribution, bucket_of, middle

magnitudes = st.floats(SMALLEST, 2.0**62)
values = st.one_of(magnitudes, magnitudes.map(lambda value: -value), st.just(0.0), st.integers(-1000, 1000).map(float))


def exact(ordered: list[float], share: float) -> float:
    """The value of that rank."""
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


@given(st.lists(values, min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_quantile_is_within_the_promised_error_of_the_exact_one(seen: list[float], share: float) -> None:
    """A share of 0.99 gives the value of the same rank, to 1/128."""
    found = Distribution.of(seen).quantile(share)
    expected = exact(sorted(seen), share)
    assert found is not None
    assert abs(found - expected) <= ERROR * abs(expected) * (1 + 1e-12)
    assert min(seen) <= found <= max(seen)


def test_the_promised_error_is_less_than_one_percent() -> None:
    assert ERROR < 0.01


@pytest.mark.parametrize("shape", ["exponential", "lognormal", "two humps", "constant"])
def test_the_percentiles_of_latencies_are_right(shape: str) -> None:
    """Ten thousand values of usual shapes."""
    chance = random.Random(shape)
    draw = {
        "exponential": lambda: chance.expovariate(0.5),
        "lognormal": lambda: chance.lognormvariate(0.0, 2.0),
        "two humps": lambda: chance.choice((0.02, 7.0)) * chance.uniform(0.9, 1.1),
        "constant": lambda: 0.25,
    }[shape]
    seen = [draw() for _ in range(10_000)]
    distribution, ordered = Distribution.of(seen), sorted(seen)
    for share in (0.01, 0.5, 0.9, 0.95, 0.99, 0.999):
        assert distribution.quantile(share) == pytest.approx(exact(ordered, share), rel=ERROR)
    assert distribution.mean == pytest.approx(sum(seen) / len(seen))


@given(st.lists(st.lists(values, max_size=50), max_size=5))
def test_merging_gives_what_one_histogram_of_all_would_have_seen(parts: list[list[float]]) -> None:
    """Buckets, count and extremes are the same; the sum but for the order of additions."""
    merged = EMPTY.merged(*[Distribution.of(part) for part in parts])
    one = Distribution.of([value for part in parts for value in part])
    assert (merged.buckets, merged.counts, merged.count) == (one.buckets, one.counts, one.count)
    assert (merged.minimum, merged.maximum) == (one.minimum, one.maximum)
    assert merged.total == pytest.approx(one.total, abs=1e-6 * max([abs(v) for part in parts for v in part], default=0))


@given(values, values)
def test_buckets_are_in_the_order_of_values(one: float, other: float) -> None:
    """The larger value never has the smaller number."""
    if one <= other:
        assert bucket_of(one) <= bucket_of(other)


@given(values)
def test_the_middle_of_a_bucket_lies_in_it(value: float) -> None:
    bucket = bucket_of(value)
    assert bucket_of(middle(bucket)) == bucket


@pytest.mark.parametrize("value", [0.0, -0.0, SMALLEST / 2, 5e-324])
def test_what_is_next_to_nothing_is_zero(value: float) -> None:
    assert bucket_of(value) == 0


@pytest.mark.parametrize("value", [2.0**63, 1e300, 1.7976931348623157e308])
def test_what_is_huge_shares_the_last_bucket_and_the_maximum_is_exact(value: float) -> None:
    """There are 6,592 buckets of either sign, and no value makes another."""
    assert bucket_of(value) == bucket_of(2.0**62.9999999) == 6655
    assert Distribution.of([1.0, value]).quantile(1.0) == value


@given(st.lists(magnitudes, min_size=1, max_size=100), st.lists(magnitudes, min_size=1, max_size=10))
def test_cumulative_buckets_grow_and_miss_a_bound_by_less_than_two_percent(
    seen: list[float], bounds: list[float]
) -> None:
    """What is counted lies between the exact numbers for the bound and for a bound 1.6 % larger."""
    bounds = sorted(bounds)
    counts = Distribution.of(seen).up_to(bounds)
    assert list(counts) == sorted(counts)
    for bound, count in zip(bounds, counts, strict=True):
        assert sum(value <= bound for value in seen) <= count <= sum(value <= bound * (1 + 2 * ERROR) for value in seen)


def test_a_value_at_a_bound_does_not_exceed_it() -> None:
    """Also at bounds that are no powers of two, at infinity, and at what is no number."""
    distribution = Distribution.of([0.1, 0.1, 0.5, 2.5])
    assert distribution.up_to([0.05, 0.1, 0.5, 1.0, 2.5, math.inf]) == (0, 2, 3, 3, 4, 4)
    assert distribution.up_to([math.nan, -math.inf]) == (0, 0)
    assert EMPTY.up_to([1.0]) == (0,)


def test_of_nothing_nothing_is_known() -> None:
    assert EMPTY.quantile(0.5) is None
    assert EMPTY.mean is None
    assert EMPTY.merged(EMPTY) == EMPTY
