"""When requests arrive: rates, gaps, traces; the same seed, the same moments."""

from __future__ import annotations

import json
import math
import statistics
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.errors import ConfigurationError, DocumentError
from agentflow.mcp.optimization.benchmark import Constant, Gamma, Poisson, Synthetic, Trace
from agentflow.mcp.optimization.benchmark.trace import Arrival

RATES = st.floats(0.2, 50.0)
SEEDS = st.integers(0, 2**32)
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:05.9799600,110,27
"""


@given(rate=RATES, duration=st.floats(0.1, 20.0))
def test_constant_arrivals_are_evenly_spaced_and_begin_at_once(rate: float, duration: float) -> None:
    moments = Constant(rate).moments(duration, Random(0))
    assert moments[0] == 0.0
    assert moments[-1] < duration <= moments[-1] + 1.0 / rate + 1e-6
    assert all(after - before == pytest.approx(1.0 / rate) for before, after in pairwise(moments))


@settings(max_examples=40)
@given(rate=st.floats(5.0, 50.0), seed=SEEDS, cv=st.sampled_from([None, 0.5, 1.0, 2.5]))
def test_drawn_arrivals_keep_their_rate_and_the_spread_of_their_gaps(rate: float, seed: int, cv: float | None) -> None:
    """Within five standard errors of the mean number, which one example in two million would miss."""
    arrivals, spread = (Poisson(rate), 1.0) if cv is None else (Gamma(rate, cv), cv)
    duration = 1_000.0 / rate
    moments = arrivals.moments(duration, Random(seed))
    assert abs(len(moments) - 1_000) < 5.0 * spread * math.sqrt(1_000) + 5.0 * spread**2
    gaps = [after - before for before, after in pairwise(moments)]
    found = statistics.pstdev(gaps) / statistics.fmean(gaps)
    assert found == pytest.approx(spread, rel=0.6 if spread > 1.0 else 0.25)


@given(rate=RATES, seed=SEEDS, cv=st.floats(0.2, 5.0), duration=st.floats(0.1, 10.0))
def test_moments_ascend_within_the_duration_and_follow_from_the_seed(
    rate: float, seed: int, cv: float, duration: float
) -> None:
    for arrivals in (Constant(rate), Poisson(rate), Gamma(rate, cv)):
        moments = arrivals.moments(duration, Random(seed))
        assert moments == sorted(moments)
        assert all(0.0 <= moment < duration for moment in moments)
        assert moments == arrivals.moments(duration, Random(seed))


def test_gamma_with_a_variation_of_one_is_poisson() -> None:
    """The same shape of gaps: the quantiles of 20,000 agree."""
    one = sorted(after - before for before, after in pairwise(Gamma(10.0, 1.0).moments(2_000.0, Random(1))))
    other = sorted(after - before for before, after in pairwise(Poisson(10.0).moments(2_000.0, Random(2))))
    for p in (0.1, 0.5, 0.9, 0.99):
        assert one[int(p * len(one))] == pytest.approx(other[int(p * len(other))], rel=0.08)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_is_a_number_above_zero(rate: float) -> None:
    for make in (Constant, Poisson, lambda rate: Gamma(rate, 2.0), lambda cv: Gamma(1.0, cv)):
        with pytest.raises(ConfigurationError):
            make(rate)


def test_more_requests_than_a_run_can_hold_are_refused_before_they_are_planned() -> None:
    with pytest.raises(ConfigurationError, match="2,000,000"):
        Poisson(1e6).moments(3600.0, Random(0))


# ---- traces ------------------------------------------------------------------------------------------------------


def test_a_trace_of_azure_is_read_to_the_microsecond(tmp_path: Path) -> None:
    file = tmp_path / "azure.csv"
    file.write_text(AZURE)
    trace = Trace.read(file)
    assert [each.at for each in trace.arrivals] == pytest.approx([0.0, 0.052, 2.0], abs=1e-6)
    assert trace.lengths == [(4808, 10), (3180, 8), (110, 27)]
    assert trace.rate == pytest.approx(1.0)


def test_a_trace_of_mooncake_is_read_and_put_in_order(tmp_path: Path) -> None:
    file = tmp_path / "mooncake.jsonl"
    rows = [{"timestamp": at, "input_length": 10 * at, "output_length": 1, "hash_ids": [1]} for at in (3_000, 1_000)]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert Trace.read(file).arrivals == (Arrival(0.0, 10_000, 1), Arrival(2.0, 30_000, 1))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no column"),
        ("a,b\n1,2\n", "no column TIMESTAMP, ContextTokens, GeneratedTokens"),
        (AZURE.replace("3180", "many"), ":3: "),
        (AZURE.replace("3180", "-1"), ":3: a number of tokens is below 0"),
        (AZURE.replace("2023-11-16 18:17:04.0319600", "noon"), ":3: "),
        ("\n".join(AZURE.splitlines()[:2]), "1 arrivals"),
        ('{"timestamp": 1, "input_length": 2}\n', ":1: there is no output_length"),
        ('{"timestamp": 1,\n', ":1: "),
        ("\n".join([AZURE.splitlines()[0], *[AZURE.splitlines()[1]] * 3]), "the same moment"),
    ],
)
def test_what_is_no_trace_is_an_error_that_names_the_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(DocumentError, match=complaint.replace("(", r"\(")) as caught:
        Trace.read(file)
    assert str(caught.value).startswith(str(file))


@given(gaps=st.lists(st.floats(0.0, 100.0), min_size=2, max_size=50).filter(lambda gaps: sum(gaps) > 0.1), rate=RATES)
def test_a_replay_at_another_rate_keeps_the_share_of_every_gap(gaps: list[float], rate: float) -> None:
    moments = [sum(gaps[:count]) for count in range(len(gaps) + 1)]
    trace = Trace(tuple(Arrival(at, 1, 1) for at in moments))
    replayed = trace.at_rate(rate)
    assert replayed.rate == pytest.approx(rate)
    assert replayed.duration == pytest.approx(len(gaps) / rate)
    shares = [(after.at - before.at) / replayed.duration for before, after in pairwise(replayed.arrivals)]
    assert shares == pytest.approx([gap / trace.duration for gap in gaps], abs=1e-9)
    assert sum(shares) == pytest.approx(1.0)


def test_a_trace_that_is_longer_than_the_run_is_cut_and_a_shorter_one_is_not_repeated() -> None:
    trace = Trace((Arrival(0.0, 1, 1), Arrival(1.0, 1, 1), Arrival(5.0, 1, 1)))
    assert trace.moments(5.0, Random(0)) == [0.0, 1.0]
    assert trace.moments(50.0, Random(0)) == [0.0, 1.0, 5.0]


def test_prompts_of_a_trace_are_as_long_as_it_says() -> None:
    trace = Trace((Arrival(0.0, 7, 3), Arrival(1.0, 20, 5)))
    cases = Synthetic.like(trace).cases(3)
    assert [len(case.prompt.split()) for case in cases] == [7, 20, 7]
    assert [case.max_tokens for case in cases] == [3, 5, 3]
    assert len({case.prompt for case in Synthetic(50, 5).cases(100)}) == 100  # no cache of prompts is to help


@pytest.mark.shared
@pytest.mark.parametrize(("name", "count"), [("code", 8_819), ("conv", 19_366)])
def test_the_traces_of_azure_are_read_whole(shared: Path, name: str, count: int) -> None:
    file = shared / "data" / "traces" / f"AzureLLMInferenceTrace_{name}.csv"
    if not file.exists():
        pytest.skip("the traces are not here")
    trace = Trace.read(file)
    assert len(trace.arrivals) == count
    assert 3_400 < trace.duration < 3_600
    scaled = trace.at_rate(5.0)
    assert len(scaled.moments(math.inf, Random(0))) == count
    assert scaled.duration == pytest.approx((count - 1) / 5.0)
    gaps = [after.at - before.at for before, after in pairwise(trace.arrivals)]
    assert sum(gaps) == pytest.approx(trace.duration)
