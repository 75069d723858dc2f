"""On a virtual clock, where every latency is known: what is reported is what was."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from tests.support.known_latencies import KnownLatencies, numbered

from agentflow.clock import VirtualClock
from agentflow.errors import ModelTimeoutError, RateLimitError
from agentflow.mcp.optimization.benchmark import (
    Arrivals,
    Benchmark,
    BenchmarkReport,
    Constant,
    Gamma,
    Objective,
    Poisson,
    Trace,
)
from agentflow.mcp.optimization.benchmark.measures import PERCENTILES, Measures
from agentflow.mcp.optimization.benchmark.percentiles import quantile
from agentflow.mcp.optimization.benchmark.trace import Arrival

STALL = (20.0, 25.0)


def measured(
    server: KnownLatencies,
    clock: VirtualClock,
    *,
    arrivals: Arrivals = Poisson(10.0),  # noqa: B008 - a value
    duration: float = 50.0,
    warmup: float = 0.0,
    cooldown: float = 0.0,
    drain: float = 30.0,
    objective: Objective | None = None,
    max_in_flight: int = 1000,
) -> BenchmarkReport:
    benchmark = Benchmark(
        server,
        dataset=numbered(5_000),
        arrivals=arrivals,
        duration=duration,
        warmup=warmup,
        cooldown=cooldown,
        drain=drain,
        objective=objective,
        max_in_flight=max_in_flight,
        clock=clock,
        seed=5,
    )
    return clock.run(benchmark.run())


def truth(server: KnownLatencies, measures: Measures) -> dict[str, list[float]]:
    """By the server's own account of the moments that the plan asked at, whatever the generator did."""
    found: dict[str, list[float]] = {"ttft": [], "itl": [], "tpot": [], "e2e": []}
    for record in measures.counted:
        moments = server.moments(record.index, record.intended)
        found["ttft"].append(moments[0] - record.intended)
        found["e2e"].append(moments[-1] - record.intended)
        found["tpot"].append((moments[-1] - moments[0]) / (len(moments) - 1))
        found["itl"] += [after - before for before, after in pairwise(moments)]
    return found


@pytest.mark.parametrize(
    "arrivals", [Constant(10.0), Poisson(10.0), Gamma(10.0, 3.0)], ids=["even", "poisson", "gamma"]
)
@pytest.mark.parametrize("stall", [(0.0, 0.0), STALL], ids=["healthy", "stalling"])
def test_reported_percentiles_are_the_true_ones(arrivals: Arrivals, stall: tuple[float, float]) -> None:
    clock = VirtualClock()
    server = KnownLatencies(clock, stall=stall)
    measures = measured(server, clock, arrivals=arrivals)["known"]
    for name, values in truth(server, measures).items():
        told = measures.times[name]
        assert told.count == len(values)
        for at, p in PERCENTILES.items():
            assert told.percentiles[at].value == pytest.approx(quantile(sorted(values), p), abs=1e-9), (name, at)


def test_a_closed_loop_omits_the_stall_that_an_open_loop_sees() -> None:
    """Ten requests a second meet a stall of 5 s in 50: a tenth of them wait for it. One client that asks again when it
    is answered meets it once, and calls its 99th percentile healthy."""
    clock = VirtualClock()
    server = KnownLatencies(clock, stall=STALL)
    open_loop = measured(server, clock)["known"].times["e2e"].percentiles

    async def closed_loop() -> list[float]:
        clock, latencies = server.clock, []
        while (begun := clock.monotonic()) < 50.0:
            request_number = len(latencies)
            await clock.sleep(server.moments(request_number, begun)[-1] - begun)
            latencies.append(clock.monotonic() - begun)
        return sorted(latencies)

    server.clock = VirtualClock()
    closed = server.clock.run(closed_loop())
    assert max(closed) > 4.0  # it was there, and met it
    assert quantile(closed, 0.99) < 0.9
    assert open_loop["p99"].value > 4.0
    assert open_loop["p95"].value > 2.0 > quantile(closed, 0.95)


def test_a_generator_that_is_held_back_still_counts_from_the_intended_moment() -> None:
    """With one request in flight at a time the sending is a closed loop. The latency that a user would have had is told
    all the same, and stands beside the one that a tool without a plan would tell."""
    clock = VirtualClock()
    server = KnownLatencies(clock, stall=STALL)
    report = measured(server, clock, arrivals=Constant(2.0), max_in_flight=1)
    measures = report["known"]
    moment, waits = 0.0, []
    for record in measures.counted:  # one queue, one server: computed by hand
        begun = max(moment, record.intended)
        moment = server.moments(record.index, begun)[-1]
        waits.append(moment - record.intended)
    for at, p in PERCENTILES.items():
        assert measures.times["e2e"].percentiles[at].value == pytest.approx(quantile(sorted(waits), p), abs=1e-9)
    assert measures.sent_times["e2e"].percentiles["p90"].value < 0.8 < measures.times["e2e"].percentiles["p90"].value
    assert measures.lag.percentiles["p99.9"].value == 0.0  # held back by a limit, not late by its own doing
    assert "waited for room" in " ".join(report.runs[0].remarks(report.setting))


def test_what_is_not_answered_in_time_is_infinitely_late_and_not_left_out() -> None:
    clock = VirtualClock()
    server = KnownLatencies(clock, stall=(48.0, 500.0))
    report = measured(server, clock, drain=10.0)
    measures = report["known"]
    cut_off = measures.errors["Unfinished"]
    assert 10 <= cut_off <= 40
    assert clock.monotonic() == pytest.approx(60.0, abs=1.0)
    e2e = measures.times["e2e"]
    assert e2e.count == len(measures.counted)
    assert sum(map(math.isinf, e2e.ordered)) == cut_off
    assert math.isinf(e2e.percentiles["p99"].value)
    assert e2e.percentiles["p90"].value < 1.0


def test_a_time_out_counts_as_too_late_and_another_error_as_an_error() -> None:
    clock = VirtualClock()
    failing: dict[int, Exception] = {
        number: ModelTimeoutError("too late", seconds=1.0) for number in range(0, 5_000, 10)
    }
    failing |= {number: RateLimitError("too fast") for number in range(5, 5_000, 10)}
    measures = measured(KnownLatencies(clock, failing=failing), clock)["known"]
    count = len(measures.counted)
    assert measures.errors["ModelTimeoutError"] == pytest.approx(count / 10, abs=1)
    assert measures.errors["RateLimitError"] == pytest.approx(count / 10, abs=1)
    assert measures.times["e2e"].count == count - measures.errors["RateLimitError"]
    assert math.isinf(measures.times["e2e"].percentiles["p95"].value)
    assert measures.error_share is not None
    assert measures.error_share.value == pytest.approx(0.2, abs=0.01)


def test_warm_up_and_cool_down_are_sent_and_not_counted() -> None:
    """A cold server answers slowly for ten seconds; nothing of that is in the numbers, and all of it is in the load."""
    clock = VirtualClock()
    server = KnownLatencies(clock, stall=(0.0, 10.0))
    report = measured(server, clock, duration=30.0, warmup=10.0, cooldown=5.0)
    measures = report["known"]
    assert len(server.asked) == len(measures.records)
    assert {number for number, at in server.asked if 10.0 <= at < 40.0} == {each.index for each in measures.counted}
    assert 0 < len(measures.counted) < len(measures.records)
    assert measures.times["e2e"].ordered[-1] < 2.0


def test_goodput_counts_requests_that_meet_all_objectives_at_once() -> None:
    """Half of the requests meet either limit; the joint share is not the smaller of the two."""
    clock = VirtualClock()
    server = KnownLatencies(clock)
    objective = Objective(ttft=0.135, tpot=0.0195)
    measures = measured(server, clock, objective=objective)["known"]
    moments = [(each.intended, server.moments(each.index, each.intended)) for each in measures.counted]
    first = [all_of[0] - at <= 0.135 for at, all_of in moments]
    pace = [(all_of[-1] - all_of[0]) / 7 <= 0.0195 for _, all_of in moments]
    both = sum(one and other for one, other in zip(first, pace, strict=True))
    assert len(measures.good) == both
    assert both < 0.8 * min(sum(first), sum(pace))
    assert measures.goodput == pytest.approx(both / 50.0)
    assert measures.good_share is not None
    assert measures.good_share.value == pytest.approx(both / len(moments))


def test_cost_per_million_good_tokens_pays_for_the_bad_ones_too() -> None:
    clock = VirtualClock()
    server = KnownLatencies(clock, price=0.002)
    measures = measured(server, clock, objective=Objective(ttft=0.135))["known"]
    paid = 0.002 * len(measures.counted)
    assert measures.cost == pytest.approx(paid)
    assert measures.cost_per_million_good == pytest.approx(paid / (8 * len(measures.good)) * 1e6)


def test_throughput_is_what_ended_within_the_window_so_that_a_backlog_shows() -> None:
    """While a server stalls nothing ends, however much arrives."""
    clock = VirtualClock()
    server = KnownLatencies(clock, stall=(20.0, 60.0))
    measures = measured(server, clock, duration=30.0, cooldown=0.0, drain=60.0)["known"]
    ended = sum(server.moments(each.index, each.intended)[-1] < 30.0 for each in measures.records)
    assert measures.throughput == pytest.approx(ended / 30.0)
    assert measures.throughput < 0.75 * measures.offered


def test_the_same_seed_plans_the_same_and_measures_the_same() -> None:
    one, other = VirtualClock(), VirtualClock()
    assert (
        measured(KnownLatencies(one), one)["known"].records == measured(KnownLatencies(other), other)["known"].records
    )


def test_a_provider_that_says_no_usage_is_estimated_and_the_report_says_so() -> None:
    clock = VirtualClock()

    class Silent(KnownLatencies):
        async def execute_streaming(self, request):  # type: ignore[no-untyped-def]
            async for chunk in super().execute_streaming(request):
                if chunk.usage is None:
                    yield chunk

    report = measured(Silent(clock), clock, duration=5.0)
    assert report["known"].estimated == len(report["known"].answered)
    assert any("estimated" in remark for remark in report.runs[0].remarks(report.setting))


def test_a_window_ends_with_the_trace_that_is_replayed() -> None:
    clock = VirtualClock()
    trace = Trace(tuple(Arrival(0.5 * number, 1, 1) for number in range(21)))
    report = measured(KnownLatencies(clock), clock, arrivals=trace, duration=3600.0)
    assert report["known"].window.end == 10.0
    assert report["known"].offered == pytest.approx(2.0)


def test_a_calm_part_of_a_trace_is_told_beside_the_rate_of_all_of_it() -> None:
    clock = VirtualClock()
    moments = [*range(21), *(20.0 + 0.01 * number for number in range(1, 400))]
    trace = Trace(tuple(Arrival(float(at), 1, 1) for at in moments))
    report = measured(KnownLatencies(clock), clock, arrivals=trace, duration=15.0)
    assert "brought 1 requests a second" in " ".join(report.runs[0].remarks(report.setting))
