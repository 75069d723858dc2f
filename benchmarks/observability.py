"""What watching costs: a node, a model call and an event, with nobody watching and with each of our observers.

    python benchmarks/observability.py                    all, with a million events through the run store
    python benchmarks/observability.py --events 100000

A chain of nodes that do nothing, and calls of a model that answers at once; each observer takes its turn in the same
process. The caller's side is the CPU of the thread that runs the flow (`time.thread_time`); what a run store does in
its own thread is in the CPU of the process. Beside ours stands what is glued together by hand for the same: an
OpenTelemetry span of 14 attributes, a counter and a histogram of prometheus-client, a logging record into a file.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from agentflow import AgentFlow, AsyncFlow, ModelRegistry, Response, ScriptedProvider, Usage, node
from agentflow.core import ExecutionEvent, Observer, SharedState
from agentflow.core.observability.audit import AuditLog, use_audit
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.observers import observe
from agentflow.core.observability.store import RunStore
from results import Report, median, note, number, options

NODES = 100
"""Nodes of the chain; a run of it is short enough to change places often."""


class Nothing:
    """What it costs to be watched at all."""

    inline = True

    def observe(self, event: ExecutionEvent) -> None:
        pass


@dataclass(slots=True)
class Cell:
    """One observer: µs a node or a call, on the caller's side and in the whole process, a round each."""

    name: str
    watching: Callable[[], object]
    caller: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)

    async def measure(self, work: Callable[[], Awaitable[object]], units: int, repeat: int) -> None:
        gc.collect()
        thread, process = time.thread_time(), time.process_time()
        for _ in range(repeat):
            await work()
        self.caller.append((time.thread_time() - thread) / units / repeat * 1e6)
        self.process.append((time.process_time() - process) / units / repeat * 1e6)


# ---- who watches -------------------------------------------------------------------------------------------------


@contextmanager
def watched_by(observer: Observer | None) -> Iterator[None]:
    with ExitStack() as stack:
        if observer is not None:
            stack.enter_context(observe(observer))
        yield


@contextmanager
def stored(folder: Path) -> Iterator[None]:
    with RunStore(folder / "runs.db") as store, observe(store):
        yield


@contextmanager
def audited(folder: Path) -> Iterator[None]:
    log = AuditLog(folder / "audit", "k" * 32, fsync=1.0)
    with log, use_audit(log):
        yield


@contextmanager
def traced(ratio: float) -> Iterator[None]:
    """The SDK with a batch processor, and an exporter that takes what it is given."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    from agentflow.integrations.opentelemetry import OpenTelemetryObserver

    class Swallow(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            pass

    provider = TracerProvider(sampler=TraceIdRatioBased(ratio))
    provider.add_span_processor(BatchSpanProcessor(Swallow(), max_queue_size=100_000))
    meters = MeterProvider()
    try:
        with observe(OpenTelemetryObserver(tracer_provider=provider, meter_provider=meters)):
            yield
    finally:
        provider.shutdown()
        meters.shutdown()


def observers(folder: Path) -> list[Cell]:
    cells = [
        Cell("nobody", lambda: watched_by(None)),
        Cell("an observer that does nothing", lambda: watched_by(Nothing())),
        Cell("MetricsCollector", lambda: watched_by(MetricsCollector())),
        Cell("RunStore", lambda: stored(folder)),
        Cell("AuditLog", lambda: audited(folder)),
    ]
    if find_spec("opentelemetry.sdk") is not None:
        cells.append(Cell("OpenTelemetry, sampled in", lambda: traced(1.0)))
        cells.append(Cell("OpenTelemetry, sampled out", lambda: traced(0.0)))
    else:
        note("observability: the OpenTelemetry SDK is not installed here, so it is left out")
    return cells


# ---- what is watched ---------------------------------------------------------------------------------------------


def chain() -> AsyncFlow:
    @node
    async def nothing(state: SharedState) -> None:
        return None

    path = nothing.named("n0") >> nothing.named("n1")
    for number_ in range(2, NODES):
        path = path >> nothing.named(f"n{number_}")
    return AsyncFlow(path, name="chain")


def call(folder: Path) -> Callable[[], Awaitable[object]]:
    registry = ModelRegistry.load(environ={}, cwd=folder, home=folder)
    answer = Response("Hello", "m", "toy", usage=Usage(12, 3), finish_reason="stop", cost=0.001)
    registry.register_provider("toy", lambda settings: ScriptedProvider(lambda request: answer, name="toy"))
    return AgentFlow.model("toy/m", registry=registry).prompt("Hi").execute


async def measure(
    cells: Sequence[Cell], work: Callable[[], Awaitable[object]], units: int, *, rounds: int, repeat: int
) -> None:
    await work()
    for turn in range(rounds):
        for cell in cells if turn % 2 else reversed(cells):
            with cell.watching():  # type: ignore[attr-defined]
                await work()
                await cell.measure(work, units, repeat)


def by_hand(folder: Path, rounds: int) -> dict[str, list[float]]:
    """µs for one unit of work, as it is instrumented by hand."""
    found: dict[str, list[float]] = {}
    ways: dict[str, Callable[[], object]] = {}
    log = logging.getLogger("benchmark")
    log.propagate = False
    handler = logging.FileHandler(folder / "by-hand.log")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    ways["a logging record into a file"] = lambda: log.info("node %s took %.3f s", "n1", 0.012)
    if find_spec("opentelemetry.sdk") is not None:
        from opentelemetry.sdk.trace import TracerProvider

        tracer = TracerProvider().get_tracer("benchmark")
        attributes = {f"attribute.{number_}": "value" for number_ in range(14)}

        def span() -> None:
            with tracer.start_as_current_span("node", attributes=attributes):
                pass

        ways["an OpenTelemetry span, no processor"] = span
    if find_spec("prometheus_client") is not None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        registry = CollectorRegistry()
        total = Counter("visits", "Visits.", ["flow", "node", "status"], registry=registry)
        seconds = Histogram("seconds", "Seconds.", ["flow", "node"], registry=registry)

        def counted() -> None:
            total.labels("chain", "n1", "done").inc()
            seconds.labels("chain", "n1").observe(0.012)

        ways["prometheus-client, a counter and a histogram"] = counted
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.thread_time()
            for _ in range(1_000):
                way()
            found.setdefault(name, []).append((time.thread_time() - started) / 1_000 * 1e6)
    handler.close()
    return found


# ---- a million events through the run store ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flood:
    """What became of many events: how fast they were written, what was held meanwhile, how large the file is."""

    events: int
    lost: int
    seconds: float
    caller: float
    """µs of the caller's thread for an event."""
    early: int
    late: int
    """Resident bytes after a tenth of them, and after all."""
    size: int


def flood(folder: Path, events: int) -> Flood:
    """Events as runs of a hundred nodes tell them, as fast as the file takes them."""
    store = RunStore(folder / "flood.db", max_bytes=None, max_age=None)
    early, spent, done = 0, 0.0, 0
    started = time.perf_counter()
    with store:
        for run in range(events // (2 * NODES)):
            told = run_of(f"run-{run:08}")
            before = time.thread_time()
            for event in told:
                store.observe(event)
            spent += time.thread_time() - before
            done += len(told)
            if store.behind > 5_000:
                store.flush(60.0)
            if not early and done >= events // 10:
                store.flush(60.0)
                early = resident()
        store.flush(120.0)
        late = resident()
        took = time.perf_counter() - started
        lost = store.lost
    return Flood(done, lost, took, spent / done * 1e6, early, late, (folder / "flood.db").stat().st_size)


def run_of(run_id: str) -> list[ExecutionEvent]:
    now = 1.8e9
    told = [ExecutionEvent("flow_start", run_id, "flow", "flow", 1, 1, now, span=1)]
    for number_ in range(1, NODES):
        path, span = f"flow/n{number_}#1", 2 * number_
        told.append(ExecutionEvent("node_start", run_id, path, f"n{number_}", 1, span, now, span=span, parent=1))
        data = {"breakdown": {"own": 0.01}}
        told.append(
            ExecutionEvent("node_success", run_id, path, f"n{number_}", 1, span + 1, now, 0.01, 1, data, span, 1)
        )
    data = {"action": "default", "breakdown": {"own": 1.0}}
    told.append(ExecutionEvent("flow_success", run_id, "flow", "flow", 1, 2 * NODES, now, 1.0, 1, data, 1))
    return told


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---- reporting ---------------------------------------------------------------------------------------------------


def report(nodes: Sequence[Cell], calls: Sequence[Cell], hand: dict[str, list[float]], many: Flood) -> Report:
    made = Report(
        "observability",
        "Watching",
        "CPU in µs, each observer in its turn in one process. A watched node tells two events, a watched call four.",
    )
    for what, cells in (("node", nodes), ("model call", calls)):
        base = cells[0]
        rows = [
            [
                cell.name,
                number(median(cell.caller)),
                number(added(cell, base)),
                number(median(cell.process) - median(base.process)),
            ]
            for cell in cells
        ]
        columns = [f"a {what}, watched by", "caller's side", "more than nobody", "more in the whole process"]
        made.table(f"A {what}", columns, rows)
    made.table(
        "The same by hand",
        ["for one node", "µs"],
        [[name, number(median(times))] for name, times in hand.items()],
        "What a node costs that is instrumented by hand, without telling where its time went.",
    )
    made.table(
        "Many events through the run store",
        ["events", "lost", "events/s", "caller, µs an event", "resident MB, early", "late", "bytes an event"],
        [
            [
                f"{many.events:,}",
                f"{many.lost:,}",
                number(many.events / many.seconds),
                number(many.caller),
                number(many.early / 1e6),
                number(many.late / 1e6),
                number(many.size / many.events),
            ]
        ],
    )
    add_promises(made, nodes, many)
    made.raw = {
        f"{what}/{cell.name}": cell.caller for what, cells in (("node", nodes), ("call", calls)) for cell in cells
    }
    return made


def added(cell: Cell, base: Cell) -> float:
    """What it costs beyond nobody's watching, round by round."""
    return median(ours - theirs for ours, theirs in zip(cell.caller, base.caller, strict=True))


def add_promises(made: Report, nodes: Sequence[Cell], many: Flood) -> None:
    by_name = {cell.name: cell for cell in nodes}
    nothing, metrics, store = (by_name[name] for name in (nodes[1].name, "MetricsCollector", "RunStore"))
    base = nodes[0]
    hand_over = added(nothing, base) / 2
    made.promise(
        "MetricsCollector, both events of a node",
        limit=3.0,
        measured=added(metrics, nothing),
        unit="µs",
        beside=f"to be watched at all {number(added(nothing, base))}, a node unwatched {number(median(base.caller))}",
    )
    made.promise(
        "the run store, an event on the caller's side",
        limit=10.0,
        measured=added(store, nothing) / 2,
        unit="µs",
        beside=f"to be told of an event at all {number(hand_over)}",
    )
    growth = many.late / many.early
    made.promise(f"memory over {many.events:,} events, the last nine tenths", limit=1.05, measured=growth, unit="×")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="how often each takes its turn (%(default)s)")
    parser.add_argument("--events", type=int, default=1_000_000, help="through the run store (%(default)s)")
    arguments = parser.parse_args()
    started = time.perf_counter()
    rounds, events = (2, 2_000) if arguments.tiny else (arguments.rounds, arguments.events)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes, calls = observers(folder), observers(folder)
        asyncio.run(measure(nodes, chain().run, NODES, rounds=rounds, repeat=1 if arguments.tiny else 20))
        note("observability: nodes measured")
        asyncio.run(measure(calls, call(folder), 1, rounds=rounds, repeat=5 if arguments.tiny else 300))
        note("observability: calls measured")
        hand = by_hand(folder, rounds)
        many = flood(folder, events)
    report(nodes, calls, hand, many).finish(arguments.output)
    note(f"observability: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
