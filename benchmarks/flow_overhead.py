"""What a step of a flow costs: AgentFlow, PocketFlow, LangGraph, pydantic-graph and bare asyncio, side by side.

    python benchmarks/flow_overhead.py                     all engines that are installed
    python benchmarks/flow_overhead.py --engines asyncio agentflow

Four shapes, the same no-op work in each (a node counts that it ran), all engines in one process, taking turns:

    chain, loop    steps one after another (see `flow_engines.py`)
    map, branches  fan-out over data, or to nodes, and a join

Bare asyncio stands for the floor: prep, exec and post awaited by hand with a dictionary look-up for what follows, and a
`TaskGroup` for the parallel shapes. Every run is checked: as many nodes ran as should.
"""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from flow_engines import ENGINES, Engine, OurEngine, OurEngineAsItComes, Run, ran
from results import Report, median, note, number, options, paired

SIZES = {
    "chain": (10, 100, 1_000),
    "loop": (10, 100, 10_000),
    "map": (10, 100, 1_000),
    "branches": (10, 100, 1_000),
}
LONG = 100_000
"""The size of a chain and a loop that AgentFlow alone must walk."""


# ---- measuring ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Cell:
    """One engine on one shape of one size."""

    engine: str
    shape: str
    size: int
    run: Run
    every: int = 1
    """It takes part in every so-many-th round; slow engines run less often."""
    repeat: int = 1
    times: list[float] = field(default_factory=list)
    """CPU in µs a node, one for each round."""

    async def measure(self) -> float:
        """CPU seconds for `repeat` runs, each of which must have run every node."""
        gc.collect()
        before = ran.count
        started = time.process_time()
        for _ in range(self.repeat):
            await self.run()
        took = time.process_time() - started
        ran_nodes = ran.count - before
        assert ran_nodes == self.size * self.repeat, f"{self.engine} {self.shape}: {ran_nodes} nodes ran"
        return took


def cells(engines: Sequence[Engine], *, tiny: bool) -> list[Cell]:
    found = []
    for shape, sizes in SIZES.items():
        for size in (10,) if tiny else sizes:
            for engine in engines:
                if shape != "map" and engine.name == OurEngineAsItComes.name:
                    continue
                run = getattr(engine, shape)(size)
                if run is not None:
                    found.append(Cell(engine.name, shape, size, run))
    return found


async def measure(found: Sequence[Cell], *, rounds: int, budget: float) -> None:
    """Fill in `times`. A cell whose rounds would take longer than `budget` seconds takes part in fewer."""
    for cell in found:
        warm = await cell.measure()
        if warm < 0.1:
            warm = await cell.measure()  # the first run of a quick one tells little
        cell.repeat = max(1, min(2_000 // cell.size, int(budget / rounds / max(warm, 1e-6))))
        affordable = max(3, int(budget / max(warm * cell.repeat, 1e-6)))
        cell.every = max(1, rounds // affordable)
    gc.freeze()
    for turn in range(rounds):
        for cell in found if turn % 2 else reversed(found):
            if turn % cell.every == 0:
                cell.times.append(await cell.measure() / (cell.size * cell.repeat) * 1e6)


async def measure_long(*, size: int, rounds: int) -> dict[str, list[float]]:
    """A chain and a loop of `size`: µs of CPU a node."""
    engine = OurEngine()
    times: dict[str, list[float]] = {}
    for shape in ("chain", "loop"):
        cell = Cell(engine.name, shape, size, getattr(engine, shape)(size))
        await cell.measure()
        times[shape] = [await cell.measure() / size * 1e6 for _ in range(rounds)]
    return times


# ---- reporting ---------------------------------------------------------------------------------------------------

TITLES = {
    "chain": ("A chain of nodes", "PocketFlow"),
    "loop": ("A loop of two nodes", "PocketFlow"),
    "map": ("Fan-out over a list, and join", "asyncio"),
    "branches": ("Fan-out to as many branches, and join", "asyncio"),
}
NOTES = {
    "map": "`Each` (as wide as the list, or 64 items at once as it comes), PocketFlow's `AsyncParallelBatchNode`, "
    "LangGraph's `Send`, pydantic-graph's `map`; bare asyncio is a `TaskGroup` with a task an item.",
    "branches": "`Parallel` of as many nodes, each with its own view of the state; PocketFlow has no such shape.",
}


def report(found: Sequence[Cell], long: dict[str, list[float]]) -> Report:
    made = Report(
        "flow_overhead",
        "A step of a flow",
        "CPU in µs a node, all engines in one process, taking turns. Each node only counts that it ran.",
    )
    for shape, (_, base) in TITLES.items():
        add_table(made, shape, [cell for cell in found if cell.shape == shape], base, long.get(shape))
    add_promises(made, found, long)
    made.raw = {f"{cell.engine}/{cell.shape}/{cell.size}": cell.times for cell in found}
    made.raw |= {f"AgentFlow/{shape}/long": times for shape, times in long.items()}
    return made


def add_table(made: Report, shape: str, found: Sequence[Cell], base: str, long: list[float] | None) -> None:
    sizes = sorted({cell.size for cell in found})
    largest = sizes[-1]
    reference = times_of(found, base, largest)
    rows = []
    for engine in dict.fromkeys(cell.engine for cell in found):
        own = [times_of(found, engine, size) for size in sizes]
        row = [engine, *(number(median(times)) for times in own)]
        if long:
            row.append(number(median(long)) if engine == OurEngine.name else "")
        rows.append([*row, number(ratio(found, engine, base, largest)) if reference else "–"])
    rows.sort(key=lambda row: float(row[len(sizes)].replace(",", "")))
    columns = ["engine", *(f"{size:,}" for size in sizes), *([f"{LONG:,}"] if long else [])]
    made.table(TITLES[shape][0], [*columns, f"× {base} at {largest:,}"], rows, NOTES.get(shape, ""))


def times_of(found: Sequence[Cell], engine: str, size: int) -> list[float]:
    return next((cell.times for cell in found if (cell.engine, cell.size) == (engine, size)), [])


def ratio(found: Sequence[Cell], engine: str, base: str, size: int) -> float:
    """Of the same rounds: an engine that ran every third time is compared with every third time of the other."""
    chosen = {cell.engine: cell for cell in found if cell.size == size}
    every = max(chosen[engine].every, chosen[base].every)
    picked = [chosen[name].times[:: max(1, every // chosen[name].every)] for name in (engine, base)]
    return paired(*picked)


def add_promises(made: Report, found: Sequence[Cell], long: dict[str, list[float]]) -> None:
    def against(shape: str, engine: str, base: str) -> float | None:
        same = [cell for cell in found if cell.shape == shape]
        largest = max(cell.size for cell in same)
        if not times_of(same, base, largest) or not times_of(same, engine, largest):
            return None
        return ratio(same, engine, base, largest)

    ours = OurEngine.name
    for shape in ("chain", "loop"):
        value = against(shape, ours, "PocketFlow")
        made.promise(f"a step of a {shape}", limit=0.5, measured=value, unit="× PocketFlow")
    for shape, what in (("map", "`Each`"), ("branches", "`Parallel`")):
        value = against(shape, ours, "asyncio")
        made.promise(f"fan-out and join, {what}", limit=2.0, measured=value, unit="× TaskGroup")
    for shape, times in long.items():
        same = [cell for cell in found if cell.shape == shape]
        short = times_of(same, ours, max(cell.size for cell in same))
        made.promise(
            f"a {shape} of {LONG:,} against {max(cell.size for cell in same):,}, a node",
            limit=1.5,
            measured=median(times) / median(short),
            unit="× (linear)",
        )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="which to run")
    parser.add_argument("--rounds", type=int, default=11, help="how often each takes its turn (%(default)s)")
    parser.add_argument("--budget", type=float, default=0.4, help="seconds for an engine on one size (%(default)s)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # PocketFlow warns about every end of a flow
    chosen = []
    for name in arguments.engines:
        factory, module = ENGINES[name]
        if find_spec(module) is None:
            note(f"flow_overhead: {name} is not installed here, so it is left out")
        else:
            chosen.append(factory())
    asyncio.run(benchmark(chosen, arguments.rounds, arguments.budget, arguments.tiny, arguments.output))


async def benchmark(engines: Sequence[Engine], rounds: int, budget: float, tiny: bool, output: Path) -> None:
    started = time.perf_counter()
    found = cells(engines, tiny=tiny)
    note(f"flow_overhead: {len(found)} cells built in {time.perf_counter() - started:.0f} s")
    await measure(found, rounds=1 if tiny else rounds, budget=0.01 if tiny else budget)
    ours = any(engine.name == OurEngine.name for engine in engines)
    long = await measure_long(size=LONG, rounds=3) if ours and not tiny else {}
    report(found, long).finish(output)
    note(f"flow_overhead: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
