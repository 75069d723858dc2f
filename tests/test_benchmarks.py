"""The benchmarks run, with the smallest sizes and in this environment. What they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def run(name: str, output: Path, *options: str) -> dict[str, Any]:
    """What a benchmark printed and wrote; it must succeed."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--tiny", "--output", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written: dict[str, Any] = json.loads((output / f"{name}.json").read_text("utf-8"))
    assert f"## {written['title']}" in done.stdout
    return written


def measured(report: dict[str, Any], what: str) -> object:
    return next(promise["measured"] for promise in report["promises"] if promise["what"].startswith(what))


def test_flow_overhead_compares_our_engine_with_bare_asyncio(tmp_path: Path) -> None:
    """Every shape runs in both, and each run has checked that all of its nodes ran."""
    report = run("flow_overhead", tmp_path, "--engines", "agentflow", "agentflow-64", "asyncio")
    assert set(report["raw"]) == {
        f"{engine}/{shape}/10"
        for engine, shapes in {
            "AgentFlow": ("chain", "loop", "map", "branches"),
            "AgentFlow, 64 at once": ("map",),
            "asyncio": ("chain", "loop", "map", "branches"),
        }.items()
        for shape in shapes
    }
    assert measured(report, "fan-out and join, `Each`") is not None


def test_flow_overhead_says_what_it_could_not_measure(tmp_path: Path) -> None:
    """Without the other engines their ratios are missing; nothing is made up."""
    report = run("flow_overhead", tmp_path, "--engines", "agentflow", "asyncio")
    assert measured(report, "a step of a chain") is None


def test_llm_overhead_calls_and_streams_through_both_clients(tmp_path: Path) -> None:
    """Ours and bare aiohttp against the raw server, each in its own process; every answer is checked there."""
    report = run("llm_overhead", tmp_path, "--here", "--clients", "agentflow", "aiohttp")
    assert measured(report, "a call, alone") is not None
    assert measured(report, "the first piece") is not None
    assert measured(report, "a call, alone: openai") is None
    assert measured(report, "calls at the same time") == 20
    ours = report["raw"]["agentflow"]
    assert ours["most"]["held"] == 20, "all of them were before the server at the same time"
    assert [turn["answered"] for turn in ours["many"]] == [5]
    assert ours["starts"][0].keys() == {"import_cpu", "resident", "four"}


def test_config_measures_loads_starts_and_memory(tmp_path: Path) -> None:
    report = run("config", tmp_path)
    assert measured(report, "configuration load") is not None
    assert measured(report, "`import agentflow`") is not None
    assert measured(report, "`agentflow --help`") is not None


def test_observability_measures_a_node_a_call_and_an_event_with_each_observer(tmp_path: Path) -> None:
    report = run("observability", tmp_path)
    watching = {name.partition("/")[2] for name in report["raw"]}
    assert {"nobody", "MetricsCollector", "RunStore", "AuditLog", "OpenTelemetry, sampled in"} <= watching
    assert measured(report, "MetricsCollector") is not None
    (many,) = [table["rows"] for table in report["tables"] if table["title"].startswith("Many events")]
    assert many[0][:2] == ["2,000", "0"]  # none lost


def test_durability_measures_steps_resumes_sizes_and_parked_runs(tmp_path: Path) -> None:
    """Each run has checked that it came to its end; PostgreSQL and other libraries take part where they are there."""
    report = run("durability", tmp_path, "--no-postgres")
    assert measured(report, "durable: a step on SQLite NORMAL") is not None
    assert measured(report, "durable: going on after 20 steps") is not None
    assert measured(report, "durable: tasks of 200 parked runs") == 0
    assert measured(report, "durable: a step on PostgreSQL") is None
    (sizes,) = [table["rows"] for table in report["tables"] if table["title"] == "Bytes of a step"]
    assert float(sizes[0][3].replace(",", "")) > 40_000, "texts of 50 KB are kept, and not packed away"


def test_robustness_measures_every_guard_and_tries_their_edges(tmp_path: Path) -> None:
    """Other libraries take part where they are installed; ours does the right thing at each edge."""
    report = run("robustness", tmp_path)
    assert set(report["raw"]) == {"retry", "breaker", "limiter", "time-out", "places", "pool", "stack"}
    assert measured(report, "the whole pipeline, nothing failing") is not None
    assert measured(report, "edges at which a guard does the wrong thing") == 0


def test_the_load_generator_is_held_against_a_server_that_knows_its_latencies(tmp_path: Path) -> None:
    """Every request is answered and found again in the server's own account; without GuideLLM no word of it."""
    report = run("load_generator", tmp_path)
    assert measured(report, "percentiles and means against the truth") is not None
    assert [promise["what"] for promise in report["promises"] if "GuideLLM" in promise["what"]] == []
    [only] = report["raw"]["rounds"]
    assert only["answered"] == 60


def test_router_overhead_measures_decisions_and_calls(tmp_path: Path) -> None:
    """LiteLLM takes part where it may install itself; the tiny run learns no policy."""
    report = run("router_overhead", tmp_path, "--alone")
    assert measured(report, "router: the slowest decision") is not None
    assert measured(report, "router: added to a call") is not None
    assert report["raw"]["litellm"] is None


def test_batching_is_compared_with_none_on_a_clock_that_jumps(tmp_path: Path) -> None:
    report = run("batching", tmp_path)
    assert measured(report, "the median latency at the lowest rate") == pytest.approx(21.0, abs=0.5)


def test_budgets_are_never_exceeded_while_they_are_measured(tmp_path: Path) -> None:
    report = run("budget", tmp_path)
    assert measured(report, "a cost above its bound") == 0
    assert measured(report, "the account less the sum of all costs") == 0
    most = measured(report, "the most that was ever spent and reserved")
    assert isinstance(most, float)
    assert most <= 1.0


def test_stack_overhead_measures_the_tail_with_and_without_all_of_it(tmp_path: Path) -> None:
    report = run("stack_overhead", tmp_path)
    assert measured(report, "whole stack: added") is not None


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("flow_overhead")


@pytest.fixture
def results(benchmark: ModuleType) -> ModuleType:
    return import_module("results")


@pytest.fixture
def callers(benchmark: ModuleType) -> ModuleType:
    return import_module("llm_caller")


async def test_a_run_that_leaves_a_node_out_is_refused(benchmark: ModuleType) -> None:
    """A fast engine that does not do the work must not win."""

    async def nothing() -> None: ...

    with pytest.raises(AssertionError, match="0 nodes ran"):
        await benchmark.Cell("lazy", "chain", 10, nothing).measure()


def test_slow_engines_are_compared_by_the_rounds_they_shared(benchmark: ModuleType) -> None:
    async def never() -> None: ...

    fast = benchmark.Cell("fast", "chain", 10, never, every=1, times=[1.0, 100.0, 1.0, 100.0])
    slow = benchmark.Cell("slow", "chain", 10, never, every=2, times=[3.0, 3.0])
    assert benchmark.ratio([fast, slow], "slow", "fast", 10) == 3.0


async def test_calls_of_a_burst_that_fail_are_counted_by_their_kind(callers: ModuleType) -> None:
    """They end nothing: what one library fails at must not hide what the others do."""

    class Shaky:
        async def call(self, prompt: str) -> str:
            assert prompt.endswith("delay=50")
            return next(answers)()

    def refuse() -> str:
        raise ConnectionError

    answers = iter([refuse, lambda: callers.ANSWER, lambda: "something else", refuse])
    burst = callers.Burst(Shaky(), 4, 50)
    await burst.run(60)
    told = burst.told()
    assert (told["answered"], told["failed"], told["late"]) == (1, 3, 0)
    assert told["errors"] == {"ConnectionError": 2, "wrong answer": 1}


def test_ten_thousand_calls_are_no_promise_kept_if_one_of_them_failed(callers: ModuleType) -> None:
    measures, reports = import_module("llm_measured"), import_module("llm_report")
    said = {"answered": 9_999, "failed": 1, "late": 0, "errors": {"ModelTimeoutError": 1}, "held": 10_000, "wall": 9.0}
    ours = measures.Measured(most={**said, "cpu": 1e-3}, starts=[{"import_cpu": 0.1, "resident": 40.0, "four": None}])
    for part in measures.Plan().parts():
        ours.note(0, part, {"cpu": 1e-3, "first": [1e-3]})
    ours.note_many(0, {**said, "cpu": 1e-3})
    made = reports.report({"agentflow": ours}, measures.Plan())
    assert next(promise for promise in made.promises if "none failed" in promise.what).verdict == "**not held**"
    assert "| AgentFlow | 9,999 | 1 (1 ModelTimeoutError) | 10,000 | 1,000 | 9 |" in made.markdown()


@pytest.mark.parametrize(
    ("limit", "value", "at_least", "verdict"),
    [
        (1.4, 1.4, False, "held"),
        (1.4, 1.41, False, "**not held**"),
        (5, 4.9, True, "**not held**"),
        (5, 5, True, "held"),
        (5, None, True, "not measured"),
    ],
)
def test_a_promise_says_whether_it_is_held(
    results: ModuleType, limit: float, value: float | None, at_least: bool, verdict: str
) -> None:
    assert results.Promise("a call", limit, value, "×", at_least).verdict == verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.971, "0.97"), (5.0, "5"), (12.34, "12.3"), (30.0, "30"), (4398.2, "4,398"), (99.94, "99.9")],
)
def test_numbers_are_short(results: ModuleType, value: float, text: str) -> None:
    assert results.number(value) == text


def test_the_page_gathers_promises_and_survives_the_json_file(results: ModuleType, tmp_path: Path) -> None:
    """What is read back from the file makes the same page as what was measured."""
    report = results.Report("config", "To begin with", "Costs.")
    report.table("Memory", ["", "MB"], [["AgentFlow", "41"]])
    report.promise("memory", limit=45, measured=41.0, unit="MB", beside="here: 36")
    report.finish(tmp_path)
    page = results.page([results.load(tmp_path / "config.json")])
    assert page == results.page([report])
    assert "| memory | ≤ 45 MB | 41 (here: 36) | held |" in page
    assert "| AgentFlow | 41 |" in page
