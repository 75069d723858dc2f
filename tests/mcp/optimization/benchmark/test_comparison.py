"""Two sets of measurements: what is called a difference, and what is called chance."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.known_latencies import KnownLatencies, numbered

from agentflow.clock import VirtualClock
from agentflow.mcp.optimization.benchmark import Benchmark, Objective, Poisson
from agentflow.mcp.optimization.benchmark.comparison import Comparison, Difference, compared, holm
from agentflow.mcp.optimization.benchmark.measures import Measures, Window
from agentflow.mcp.optimization.benchmark.record import Record


def measures(latencies: list[float], name: str = "m", *, failing: frozenset[int] = frozenset()) -> Measures:
    records = tuple(
        Record(at, float(at), float(at), at + each / 2, at + each, at + each, output_tokens=5, cost=0.001)
        if at not in failing
        else Record(at, float(at), float(at), error="ServerError")
        for at, each in enumerate(latencies)
    )
    return Measures(name, records, Window(0.0, float(len(latencies))), Objective())


def drawn(dice: Random, count: int = 200, *, shift: float = 0.0) -> list[float]:
    return [dice.lognormvariate(shift, 0.5) for _ in range(count)]


def of(comparison: Comparison, metric: str) -> Difference:
    [found] = [each for each in comparison.differences if each.metric == metric]
    return found


def test_the_same_numbers_twice_are_the_same() -> None:
    one = measures(drawn(Random(1)))
    comparison = compared(one, one, paired=True, dice=Random(0))
    assert {each.verdict for each in comparison.differences} == {"same"}
    assert all(each.change == 0.0 and each.p == 1.0 for each in comparison.differences)


@pytest.mark.parametrize("paired", [True, False])
def test_a_model_that_is_half_as_fast_is_called_worse_and_the_interval_holds_the_true_change(paired: bool) -> None:
    before = drawn(Random(1), 200)
    after = [2.0 * each for each in before] if paired else drawn(Random(2), 200, shift=math.log(2.0))
    comparison = compared(measures(before), measures(after), paired=paired, dice=Random(0))
    for metric in ("mean.e2e", "p99.e2e"):
        found = of(comparison, metric)
        assert found.verdict == "worse", metric
        assert found.low < found.change < found.high
    truth = math.exp(0.125)  # twice a log-normal mean, less the mean
    assert of(comparison, "mean.e2e").low < truth < of(comparison, "mean.e2e").high
    assert comparison.worse(tolerance=0.5) != []
    assert comparison.worse(tolerance=2.0) == []


def test_pairs_find_a_small_change_that_sums_do_not() -> None:
    """5 % slower, where questions differ by a factor of three: in pairs that is plain, in sums it is noise."""
    before = drawn(Random(4), 100)
    after = [1.05 * each for each in before]
    one, other = measures(before), measures(after)
    pairs, sums = (compared(one, other, paired=paired, dice=Random(0)) for paired in (True, False))
    assert of(pairs, "mean.e2e").verdict == "worse"
    assert of(sums, "mean.e2e").verdict == "same"


def test_errors_and_good_requests_are_compared_too() -> None:
    latencies = drawn(Random(1))
    broken = measures(latencies, failing=frozenset(range(0, 200, 4)))
    comparison = compared(measures(latencies), broken, paired=True, dice=Random(0))
    assert of(comparison, "error_share").verdict == "worse"
    assert of(comparison, "good_share").verdict == "worse"
    assert of(comparison, "error_share").after == pytest.approx(0.25)


@pytest.mark.parametrize("paired", [True, False])
def test_chance_is_called_a_difference_in_no_more_than_5_of_100_comparisons(paired: bool) -> None:
    """Of seven metrics together, also where neighbours depend on each other."""
    dice, alarms = Random(9), 0
    for _ in range(20):
        sides = []
        for _ in range(2):
            state, values = 0.0, []
            for _ in range(120):
                state = 0.7 * state + dice.gauss(0.0, 0.4)
                values.append(math.exp(state))
            sides.append(measures(values))
        comparison = compared(*sides, paired=paired, dice=dice, effort=199)
        alarms += any(each.verdict != "same" for each in comparison.differences)
    assert alarms <= 3  # 1 is to be expected


def test_too_few_requests_are_not_compared() -> None:
    assert compared(measures([1.0] * 5), measures([2.0] * 5), paired=True, dice=Random(0)).differences == ()


@given(values=st.lists(st.floats(0.0, 1.0), max_size=12))
def test_holm_corrects_as_written_down(values: list[float]) -> None:
    corrected = holm(values)
    order = sorted(range(len(values)), key=values.__getitem__)
    for rank, index in enumerate(order):
        expected = max(min(1.0, values[each] * (len(values) - place)) for place, each in enumerate(order[: rank + 1]))
        assert corrected[index] == pytest.approx(expected)
    assert all(after >= before for before, after in zip(values, corrected, strict=True))


def test_two_models_of_one_benchmark_are_compared_request_by_request() -> None:
    clock = VirtualClock()
    quick, slow = KnownLatencies(clock, seed=1), KnownLatencies(clock, seed=1, slower=1.2)
    benchmark = Benchmark(
        ("quick", quick), ("slow", slow), dataset=numbered(500), arrivals=Poisson(10.0), duration=15.0, clock=clock
    )
    report = clock.run(benchmark.run())
    [comparison] = report.comparisons
    assert comparison.paired
    found = of(comparison, "mean.e2e")
    assert found.relative == pytest.approx(0.2)
    assert found.verdict == "worse"
    assert found.low == pytest.approx(found.change, rel=0.3)


def test_a_server_that_answers_again_is_better_than_one_that_never_did() -> None:
    """Infinite latencies are compared as well; nothing of it is "not a number"."""
    latencies = drawn(Random(1))
    records = measures(latencies).records
    hung = [
        replace(each, error="Unfinished", ended=None, first=None) if each.index % 5 == 0 else each for each in records
    ]
    before = replace(measures(latencies), records=tuple(hung))
    found = of(compared(before, measures(latencies), paired=True, dice=Random(0)), "p99.e2e")
    assert math.isinf(found.before)
    assert found.relative == -1.0
    assert found.verdict == "better"
    assert not any(map(math.isnan, (found.low, found.high, found.p, found.share(found.low))))
