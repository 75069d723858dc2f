"""How findings are told: gates, JSON with other tools' names, the page, a baseline that is read back."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.known_latencies import KnownLatencies, numbered

from agentflow.clock import VirtualClock
from agentflow.errors import ConfigurationError, DocumentError, RateLimitError
from agentflow.mcp.optimization.benchmark import (
    Benchmark,
    BenchmarkReport,
    Contains,
    Objective,
    Poisson,
    baseline,
)
from agentflow.mcp.optimization.benchmark.amounts import between, dollars, per_cent, seconds
from agentflow.mcp.optimization.benchmark.crew import laid_together
from agentflow.mcp.optimization.benchmark.gates import Gate
from agentflow.mcp.optimization.benchmark.generator import Generated
from agentflow.mcp.optimization.benchmark.measures import Measures, Window
from agentflow.mcp.optimization.benchmark.percentiles import Estimate
from agentflow.mcp.optimization.benchmark.record import Record

# What guidellm 0.8.1 calls the metrics of a benchmark (GenerativeMetrics), and the fields of a distribution.
GUIDELLM = set(
    "request_totals requests_per_second request_concurrency request_latency request_dispatch_delay "
    "request_scheduled_latency turn_predecessor_delay turn_scheduling_delay root_dispatch_delay "
    "request_streaming_iterations_count prompt_token_count output_token_count total_token_count time_to_first_token_ms "
    "time_to_first_output_token_ms time_per_output_token_ms inter_token_latency_ms time_to_last_round_trip_ms "
    "avg_round_trip_time_ms prompt_tokens_per_second output_tokens_per_second tokens_per_second "
    "output_tokens_per_iteration iter_tokens_per_iteration text image video audio tool_call turns slo_attainment "
    "slo_determined_requests request_goodput".split()
)
SUMMARY = set(
    "mean median mode variance std_dev min max count total_sum percentiles pdf mean_ci percentile_cis".split()
)
# What aiperf 0.13.0 calls its metrics (tags) and the fields of one (JsonMetricResult).
AIPERF = set(
    "request_throughput request_latency request_count time_to_first_token inter_token_latency output_token_throughput "
    "output_sequence_length input_sequence_length goodput good_request_count inter_chunk_latency total_output_tokens "
    "benchmark_duration error_request_count".split()
)
RESULT = set("unit avg p1 p5 p10 p25 p50 p75 p90 p95 p99 min max std count sum".split())


def report(*, slower: float = 1.0, seed: int = 0, name: str = "known", failing: bool = True) -> BenchmarkReport:
    clock = VirtualClock()
    errors: dict[int, Exception] = (
        {number: RateLimitError("too fast") for number in range(0, 500, 40)} if failing else {}
    )
    server = KnownLatencies(clock, slower=slower, price=0.001, failing=errors)
    benchmark = Benchmark(
        (name, server),
        dataset=numbered(500),
        arrivals=Poisson(20.0),
        duration=10.0,
        objective=Objective(ttft=0.3),
        checkers=[Contains("tide")],
        clock=clock,
    )
    return clock.run(benchmark.run())


@pytest.fixture(scope="module")
def found() -> BenchmarkReport:
    return report()


# ---- gates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "fails"),
    [
        ("p99.ttft > 60", False),
        ("p50.ttft>0.01", True),
        ("mean.e2e<=10", True),
        ("p99.9.itl>10", False),
        ("p99.lag>0", False),
        ("error_share>0.01", True),
        ("goodput<1", False),
        ("good_share<0.99", True),
        ("cost_per_million_good>1e9", False),
        ("quality<1", False),
        ("quality.contains:tide<1", False),
        ("quality.exact<0", True),  # nobody measured it
        ("known: p50.ttft>0.01", True),
    ],
)
def test_a_gate_says_what_must_not_be(found: BenchmarkReport, gate: str, fails: bool) -> None:
    [verdict] = found.judged([gate])
    assert verdict.failed is fails, verdict


@pytest.mark.parametrize("gate", ["ttft>2", "p98.ttft>2", "p99.ttft=2", "p99.ttft>x", "speed>1", "p99.ttft", ">1", ""])
def test_what_is_no_gate_is_an_error(gate: str) -> None:
    with pytest.raises(ConfigurationError, match="gate"):
        Gate.parse(gate)


def test_a_gate_for_a_model_that_was_not_measured_is_an_error_and_no_pass(found: BenchmarkReport) -> None:
    with pytest.raises(ConfigurationError, match="is none of the models: known"):
        found.judged(["other: goodput<1"])


# ---- JSON --------------------------------------------------------------------------------------------------------


def test_json_has_the_names_of_guidellm_and_aiperf_and_their_numbers(found: BenchmarkReport) -> None:
    document = found.to_json()
    json.dumps(document, allow_nan=False)
    [run] = document["benchmarks"]
    metrics, aiperf, ours = run["metrics"], run["aiperf"], run["agentflow"]
    assert metrics.keys() <= GUIDELLM
    assert aiperf.keys() == AIPERF
    assert metrics["time_to_first_token_ms"]["successful"].keys() <= SUMMARY
    assert set(aiperf["time_to_first_token"]) <= RESULT
    measures = found["known"]
    assert metrics["request_totals"] == {
        "successful": len(measures.answered),
        "errored": measures.errors["RateLimitError"],
        "incomplete": 0,
        "total": len(measures.counted),
    }
    p99 = measures.sent_times["ttft"].percentiles["p99"].value
    assert metrics["time_to_first_token_ms"]["successful"]["percentiles"]["p99"] == pytest.approx(p99 * 1000.0)
    assert aiperf["time_to_first_token"]["p99"] == pytest.approx(p99 * 1000.0)
    assert ours["times"]["ttft"]["p99"]["value"] == measures.times["ttft"].percentiles["p99"].value
    assert metrics["slo_attainment"] == ours["good_share"]["value"]


def test_json_holds_neither_prompts_nor_answers(found: BenchmarkReport) -> None:
    assert "tide" not in json.dumps(found.to_json()).replace("contains:tide", "")


def test_a_report_is_a_baseline_and_equal_requests_are_paired(found: BenchmarkReport, tmp_path: Path) -> None:
    file = tmp_path / "before.json"
    found.write(json_file=file)
    read = baseline(file)
    again = read.measures["known"]
    assert again.counted == tuple(replace(each, gaps=(), text="") for each in found["known"].counted)
    assert again.goodput == found["known"].goodput
    assert again.quality == found["known"].quality
    assert again.times["ttft"].ordered == found["known"].times["ttft"].ordered


@pytest.mark.parametrize(("seed", "paired"), [(0, True), (1, False)])
def test_a_slower_version_is_worse_than_its_baseline(
    found: BenchmarkReport, tmp_path: Path, seed: int, paired: bool
) -> None:
    file = tmp_path / "before.json"
    found.write(json_file=file)
    clock = VirtualClock()
    benchmark = Benchmark(
        ("known", KnownLatencies(clock, slower=1.4, price=0.001)),
        dataset=numbered(500),
        arrivals=Poisson(20.0),
        duration=10.0,
        seed=seed,
        clock=clock,
    )
    [comparison] = clock.run(benchmark.run(baseline=baseline(file))).comparisons
    assert comparison.paired is paired
    assert "mean.ttft" in {each.metric for each in comparison.worse(0.05)}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "agentflow.benchmark/1"}', '{"format": "other"}'])
def test_what_is_no_report_is_no_baseline(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DocumentError):
        baseline(tmp_path / "x.json")


# ---- the page ----------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_asks_nobody_for_anything(found: BenchmarkReport) -> None:
    page = found.to_html()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    tags = [tag for tag, _ in reader.tags]
    assert "script" not in tags
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "http" not in re.sub(r'http-equiv="Content-Security-Policy"', "", page)
    assert tags.count("svg") >= 6
    assert "prefers-color-scheme: dark" in page


def test_a_name_cannot_break_out_of_the_page() -> None:
    page = report(name="<script>alert(1)</script>\u202e").to_html()
    assert "<script" not in page
    assert "\u202e" not in page


def test_the_page_stands_where_nothing_was_answered() -> None:
    nothing = Measures("m", (Record(0, 0.0, error="ServerError"),), Window(0.0, 1.0), Objective())
    found = report()
    Reader().feed(replace(found, runs=(replace(found.runs[0], measures=nothing),)).to_html())
    assert found.to_json()


# ---- doubts ------------------------------------------------------------------------------------------------------


def test_a_generator_that_was_late_makes_the_run_invalid(found: BenchmarkReport) -> None:
    assert found.valid
    run = found.runs[0]
    late = [replace(each, sent=None if each.sent is None else each.sent + 0.05) for each in run.measures.records]
    doubted = replace(found, runs=(replace(run, measures=replace(run.measures, records=tuple(late))),))
    assert not doubted.valid
    assert "50.0 ms behind" in doubted.doubts[0]
    assert "not valid" in doubted.to_html()
    deaf = replace(found, runs=(replace(run, beats=(0.03,) * 100),))
    assert "event loop" in deaf.doubts[0]


# ---- several processes -------------------------------------------------------------------------------------------


@given(workers=st.integers(1, 7), count=st.integers(0, 60), seed=st.integers(0, 1_000))
def test_what_several_workers_measured_laid_together_is_what_one_would_have(
    workers: int, count: int, seed: int
) -> None:
    server = KnownLatencies(VirtualClock(), seed=seed)
    whole = []
    for index in range(count):
        moments = server.moments(index, index * 0.1)
        whole.append(Record(index, index * 0.1, index * 0.1, moments[0], moments[-1], moments[-1], output_tokens=8))
    parts = [Generated(whole[number::workers], [float(number)]) for number in range(workers)]
    laid = laid_together(parts[::-1])
    assert laid.records == whole
    one = Measures("m", tuple(whole), Window(0.0, 10.0), Objective())
    other = Measures("m", tuple(laid.records), Window(0.0, 10.0), Objective())
    assert {name: each.percentiles for name, each in one.times.items()} == {
        name: each.percentiles for name, each in other.times.items()
    }


# ---- amounts -----------------------------------------------------------------------------------------------------


def test_amounts_are_told_in_the_unit_that_suits() -> None:
    told = [seconds(each) for each in (1e-15, 12e-6, 0.0123, 0.9999, 1.234, 123.4, 5000.0, math.inf, None)]
    assert told == ["0 ms", "12 µs", "12.3 ms", "1 s", "1.23 s", "123 s", "5,000 s", "never", "–"]
    assert [per_cent(each) for each in (1.7e-18, 0.004, 0.05, 0.5, 0.9995, 1.0)] == [
        "0.0%",
        "0.4%",
        "5%",
        "50.0%",
        "99.95%",
        "100.0%",
    ]
    assert [dollars(each) for each in (0.0, 0.00123, 12.5, None, math.inf)] == ["$0.00", "$0.00123", "$12.50", "–", "∞"]
    assert between(Estimate(1.0, 0.9, 1.2)) == "900 ms–1.2 s"
    assert between(Estimate(1.0, 1.1, 1.2)) == "1.1–1.2 s"
    assert between(Estimate(1.0, 0.9, None)) == "≥ 900 ms"
