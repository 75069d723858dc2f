"""What may come, and does no harm: floods, wrong values, many threads, forks, clocks that jump, millions of events."""

from __future__ import annotations

import gc
import logging
import math
import os
import random
import subprocess
import sys
import threading
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.run_events import RunEvents

from agentflow.clock import VirtualClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.errors import ConfigurationError


def visits(nodes: int, run_id: str = "r1") -> list[ExecutionEvent]:
    """A run that visits so many nodes, each of another name."""
    run = RunEvents(run_id)
    flow = run.begin("flow", "article")
    for number in range(nodes):
        visit = run.begin("node", f"article/n{number}#1", flow)
        run.at += 0.5
        run.end(visit, breakdown={"own": 0.5})
    run.end(flow)
    return run.events


def told(metrics: MetricsCollector, events: list[ExecutionEvent]) -> MetricsSnapshot:
    for event in events:
        metrics.observe(event)
    return metrics.snapshot()


# ---- floods --------------------------------------------------------------------------------------------------


def test_labels_beyond_the_bound_go_to_one_series_and_are_counted() -> None:
    """Nothing is lost: the sums are right, and all the labels of what is beyond say "other"."""
    snapshot = told(MetricsCollector(clock=VirtualClock(), max_series=10), visits(50))
    series = snapshot.select("node_visits")
    assert len(series) == 11
    assert series[-1].labels == {"flow": "other", "node": "other", "status": "other"}
    assert series[-1].value() == 40.0
    assert snapshot.value("node_visits") == 50.0
    assert snapshot.value("node_duration_seconds", "count") == 50.0
    assert snapshot.value("series_overflow", labels={"metric": "node_visits"}) == 40.0
    assert snapshot.value("nodes_in_flight") == 0.0


def test_a_bound_of_one_holds_for_all_metrics() -> None:
    """Those that count what was beyond it have a series for each metric all the same."""
    metrics = MetricsCollector(clock=VirtualClock(), max_series=1)
    snapshot = told(metrics, visits(5))
    assert all(len(snapshot.select(name)) <= 2 for name in ("node_visits", "node_duration_seconds", "wait_seconds"))
    assert len(snapshot.select("series_overflow")) > 2


def test_no_two_series_bear_the_same_labels() -> None:
    """Also where somebody's own label is called other, and where different labels are redacted or cut to the same."""
    metrics = MetricsCollector(clock=VirtualClock(), max_series=3)
    for label in ("other", "x" * 500, "x" * 501, "a@example.org", "b@example.org", "c", "d", "e"):
        metrics.count("mine", 1.0, {"label": label})
    series = metrics.snapshot().select("mine")
    assert len({str(each.labels) for each in series}) == len(series) == 3
    assert metrics.snapshot().value("mine") == 8.0
    assert metrics.snapshot().value("mine", labels={"label": "other"}) == 5.0


def test_a_flood_of_names_and_labels_is_bounded() -> None:
    """A thousand metrics in all, whatever is counted; what has no place is refused and counted."""
    metrics = MetricsCollector(clock=VirtualClock(), max_series=5)
    for number in range(3000):
        metrics.count(f"metric_{number}", 1.0, {f"label_{number}": "x"})
        metrics.count("mine", 1.0, {f"label_{number}": "x"})
        metrics.record("mine_too", 1.0, {"label": str(number)})
    snapshot = metrics.snapshot()
    assert len(snapshot.series) < 1100
    assert snapshot.value("mine") == snapshot.value("mine_too") == 3000.0
    assert snapshot.value("samples_refused", labels={"reason": "names"}) > 1900  # type: ignore[operator]


def test_a_label_is_cut_and_bears_no_secret() -> None:
    """A value of ten megabytes, a key, and a key that stands where the cut goes through."""
    key = "sk-proj-" + "4f9aB7" * 8
    metrics = MetricsCollector(clock=VirtualClock())
    run = RunEvents()
    flow = run.begin("flow", "article")
    for name in ("x" * 10_000_000, key, "y" * 110 + " " + key):
        run.point("hedge", flow, guard=name)
    snapshot = told(metrics, run.events)
    guards = [series.labels["guard"] for series in snapshot.select("hedges")]
    assert [len(guard) <= 120 for guard in guards] == [True] * 3
    assert key[8:20] not in snapshot.to_json()


# ---- wrong values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "labels", "reason"),
    [
        ("it", math.nan, {}, "value"),
        ("it", math.inf, {}, "value"),
        ("it", -math.inf, {}, "value"),
        ("it", 1e100, {}, "value"),
        ("it", 10**400, {}, "value"),
        ("it", "1", {}, "value"),
        ("it", True, {}, "value"),
        ("it", None, {}, "value"),
        ("it", -1.0, {}, "negative"),
        ("", 1.0, {}, "name"),
        ("my.metric", 1.0, {}, "name"),
        ("1st", 1.0, {}, "name"),
        ("über", 1.0, {}, "name"),
        ("x" * 101, 1.0, {}, "name"),
        ("it\n", 1.0, {}, "name"),
        (None, 1.0, {}, "name"),
        ("series_overflow", 1.0, {}, "name"),
        ("it", 1.0, {"a b": "c"}, "labels"),
        ("it", 1.0, {"a": None}, "labels"),
        ("it", 1.0, {1: "a"}, "labels"),
        ("it", 1.0, {"a": 10**5000}, "labels"),
        ("it", 1.0, {f"l{number}": "" for number in range(21)}, "labels"),
        ("it", 1.0, ["a"], "labels"),
        ("node_duration_seconds", 1.0, {}, "kind"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_counted_and_raises_nothing(
    name: Any, value: Any, labels: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever counts in the middle of a run hears nothing of it there; the first one is told in the log."""
    metrics = MetricsCollector(clock=VirtualClock())
    with caplog.at_level(logging.WARNING, "agentflow.metrics"):
        metrics.count(name, value, labels)
    snapshot = metrics.snapshot()
    assert {series.name for series in snapshot.series} == {"samples_refused"}
    assert snapshot.value("samples_refused", labels={"reason": reason}) == 1.0
    assert len(caplog.records) == 1


def test_a_metric_stays_of_the_kind_that_it_is() -> None:
    metrics = MetricsCollector(clock=VirtualClock())
    metrics.count("it", 2.0)
    metrics.gauge("it", 9.0)
    metrics.record("it", 9.0)
    assert metrics.snapshot().value("it", "total") == 2.0
    assert metrics.snapshot().value("samples_refused", labels={"reason": "kind"}) == 2.0


def test_gauges_and_histograms_take_negative_values() -> None:
    metrics = MetricsCollector(clock=VirtualClock())
    for value in (-3.0, -2.0, 0.0, 5):
        metrics.gauge("balance", value)
        metrics.record("change", value, {"shard": 3})  # type: ignore[dict-item]  # a number is as good as its text
    snapshot = metrics.snapshot()
    assert snapshot.value("balance") == 5.0
    assert snapshot.value("change", "min", labels={"shard": "3"}) == -3.0
    assert snapshot.value("change", "p50") == pytest.approx(-2.0, rel=0.01)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({1: 2}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FACTS = (
    "model provider cost lost_cost lost_requests input_tokens timing breakdown error_type guard seconds tool score to"
)


@given(
    st.sampled_from(
        "model_start model_success model_error node_success tool_error retry breaker_state feedback".split()
    ),
    st.dictionaries(st.sampled_from(FACTS.split()), anything),
    st.none() | st.floats(),
    st.text(max_size=5),
)
def test_an_event_with_anything_in_it_does_no_harm(
    kind: str, data: dict[str, Any], duration: float | None, path: str
) -> None:
    """A user may emit events of their own that are called like ours."""
    metrics = MetricsCollector(clock=VirtualClock())
    metrics.observe(ExecutionEvent(kind, "r", path, "n", 1, 1, 0.0, duration, 1, data, 1, 1))
    for series in MetricsSnapshot.from_json(metrics.snapshot().to_json()).series:
        assert math.isfinite(series.value("sum" if series.kind == "histogram" else None) or 0.0)


def test_an_event_that_says_nonsense_is_counted() -> None:
    metrics = MetricsCollector(clock=VirtualClock())
    seconds: Any = "long"
    bad = ExecutionEvent("node_success", "r", "f/n#1", "n", 1, 1, 0.0, seconds, 1, {}, 1, 1)
    assert told(metrics, [*visits(1)[:2], bad]).value("samples_refused", labels={"reason": "event"}) == 1.0


@pytest.mark.parametrize("most", [0, -1])
def test_a_collector_needs_room(most: int) -> None:
    with pytest.raises(ConfigurationError, match="max_series"):
        MetricsCollector(max_series=most)


# ---- time ----------------------------------------------------------------------------------------------------


class Jumpy(VirtualClock):
    """A clock that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


def test_a_clock_that_goes_back_stands_still() -> None:
    """What is counted meanwhile counts for the last moment that there was."""
    clock = Jumpy()
    metrics = MetricsCollector(clock=clock)
    metrics.count("it")
    clock.now = 10.0
    metrics.count("it")
    assert metrics.snapshot().value("it", "total", 60.0) == 2.0
    clock.now = 1100.0
    metrics.count("it")
    assert metrics.snapshot().value("it", "total", 60.0) == 1.0
    assert metrics.snapshot().value("it") == 3.0


def test_a_clock_that_jumps_ahead_empties_the_windows() -> None:
    """A machine that slept for a week."""
    clock = Jumpy()
    metrics = MetricsCollector(clock=clock)
    metrics.count("it")
    metrics.record("seconds", 1.0)
    clock.now += 7 * 86_400.0
    snapshot = metrics.snapshot()
    assert snapshot.value("it", "total", 3600.0) == snapshot.value("seconds", "count", 3600.0) == 0.0
    assert snapshot.value("it") == snapshot.value("seconds") == 1.0


# ---- threads and processes -----------------------------------------------------------------------------------


def test_many_threads_count_without_losing_any() -> None:
    """Events of their own runs, metrics of one's own, and snapshots in between, all at once."""
    metrics = MetricsCollector()
    threads, rounds = 6, 40
    start = threading.Barrier(threads)

    def count(number: int) -> None:
        start.wait()
        for turn in range(rounds):
            told(metrics, visits(5, f"r{number}-{turn}"))
            metrics.count("mine", 1.0, {"thread": str(number % 2)})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        working = [threading.Thread(target=count, args=(number,)) for number in range(threads)]
        for thread in working:
            thread.start()
        for thread in working:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    snapshot = metrics.snapshot()
    assert snapshot.value("node_visits") == snapshot.value("node_duration_seconds") == threads * rounds * 5
    assert snapshot.value("flow_runs") == snapshot.value("mine") == threads * rounds
    assert snapshot.value("nodes_in_flight") == snapshot.value("flows_in_flight") == 0.0


def test_what_a_finalizer_tells_in_the_middle_of_counting_stops_nobody() -> None:
    """The collector of garbage may run an object's `__del__` at any moment, in the thread that holds the lock."""
    metrics = MetricsCollector(clock=VirtualClock())

    class Last:
        def __del__(self) -> None:
            metrics.count("ended")
            metrics.snapshot()

    with metrics._lock:
        last: Last | None = Last()
        del last
    assert metrics.snapshot().value("ended") == 1.0


PROCESS = """
import asyncio, sys
from agentflow.core import AsyncFlow, node
from agentflow.core.observability.metrics.collector import MetricsCollector
metrics = MetricsCollector()
@node
async def write(state): metrics.record("seconds", float(sys.argv[1]))
for _ in range(10):
    asyncio.run(AsyncFlow(write, name="article").run({}, observers=[metrics]))
print(metrics.snapshot().to_json())
"""


def test_several_processes_are_one() -> None:
    """Real ones, which run flows at the same time, and whose snapshots travel as JSON."""
    command = [sys.executable, "-c", PROCESS]
    working = [subprocess.Popen([*command, f"{number}"], stdout=subprocess.PIPE) for number in (1, 2, 3)]
    snapshots = [MetricsSnapshot.from_json(process.communicate(timeout=60)[0]) for process in working]
    metrics = MetricsCollector()
    for snapshot in snapshots:
        metrics.merge(snapshot)
    merged = metrics.snapshot()
    assert merged.value("node_visits", labels={"node": "write", "status": "done"}) == 30.0
    assert merged.value("node_duration_seconds", "count", 300.0) == merged.value("flow_runs") == 30.0
    assert merged.value("seconds", "sum") == 60.0
    assert merged.value("seconds", "p50", 3600.0) == pytest.approx(2.0, rel=0.01)
    together = snapshots[0].merged(snapshots[1]).merged(snapshots[2])
    assert together.value("seconds", "p50") == merged.value("seconds", "p50")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_begins_anew_even_while_another_thread_counts() -> None:
    """So its numbers can be merged into its parent's, and the lock that was held at the fork holds nobody up."""
    program = """
import os, sys, threading
from agentflow.core.observability.metrics.collector import MetricsCollector
metrics = MetricsCollector()
metrics.count("it", 5.0)
held, go = threading.Event(), threading.Event()
def hold():
    with metrics._lock:
        held.set()
        go.wait(30)
thread = threading.Thread(target=hold)
thread.start()
held.wait(30)
child = os.fork()
if child == 0:
    metrics.count("it", 1.0)
    os._exit(int(metrics.snapshot().value("it") or 99))
go.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), metrics.snapshot().value("it"))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["1", "5.0"]


# ---- memory --------------------------------------------------------------------------------------------------


def reached_from(root: object) -> int:
    """The bytes of all objects that can be reached from this one, code and types left out."""
    outside = (type, ModuleType, FunctionType, BuiltinFunctionType)
    seen, waiting, total = {id(root)}, [root], 0
    while waiting:
        found = waiting.pop()
        total += sys.getsizeof(found)
        for each in gc.get_referents(found):
            if id(each) not in seen and not isinstance(each, outside):
                seen.add(id(each))
                waiting.append(each)
    return total


def many_events() -> list[ExecutionEvent]:
    """8,000 events of runs of three nodes, with latencies of every size."""
    chance = random.Random(7)
    events: list[ExecutionEvent] = []
    for number in range(1000):
        run = RunEvents(f"r{number}")
        flow = run.begin("flow", f"flow{number % 3}")
        for name in ("read", "write", "judge"):
            visit = run.begin("node", f"flow{number % 3}/{name}#1", flow)
            run.at += chance.lognormvariate(-1.0, 2.0)
            run.end(visit, breakdown={"own": 0.1, "limiter": 0.2})
        run.end(flow)
        events += run.events
    return events


def test_memory_is_flat_over_a_million_events() -> None:
    """Four hours of them, so that every slot of the hour has been used and dropped."""
    clock = VirtualClock()
    metrics = MetricsCollector(clock=clock)
    events, observe, sizes = many_events(), metrics.observe, []
    for turn in range(1, 126):
        for event in events:
            observe(event)
        clock.advance(120.0)
        if turn in (50, 125):
            sizes.append(reached_from(metrics))
    snapshot = metrics.snapshot()
    assert (snapshot.value("node_visits") or 0.0) + (snapshot.value("flow_runs") or 0.0) == 500_000.0
    assert snapshot.value("node_duration_seconds", "count", 3600.0) == 30 * 3000
    assert sizes[1] < sizes[0] * 1.1
    assert sizes[1] < 3_000_000
