"""What the guards around a call cost while nothing fails, and what they do at their edges: ours and other libraries'.

    python benchmarks/robustness.py

All candidates run in one process and take turns, in many short samples. A sample is so short that most are undisturbed
even on a machine that others use too, so that beside the median stands the least, which is what the code itself takes.
What is guarded is a coroutine that returns at once; what it costs by itself is in the first row.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from results import Report, median, note, number, options
from robustness_calls import OURS, PIPELINE, PRIMITIVES, STACKS, TENACITY, Call, made
from robustness_edges import EDGES, Edge, observed

BARE = "the call alone"
TIMEOUT = "asyncio.timeout"
ANSWER = 42
TITLES = {
    "retry": "Retry, three attempts with back-off",
    "breaker": "Circuit breaker, closed",
    "limiter": "Rate limiter, never at its limit",
    "time-out": "Time-out, never reached",
    "places": "A limited number of calls at once",
    "pool": "A resource, lent and given back",
}


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int = 400
    calls: int = 100
    """Calls of a sample: a millisecond or so, at most a few."""


TINY = Plan(rounds=2, calls=3)


@dataclass(slots=True)
class Cell:
    name: str
    call: Call
    times: list[float] = field(default_factory=list)
    """CPU in µs a call, one for each round."""

    async def measure(self, calls: int) -> None:
        call = self.call
        begun = time.process_time()
        for _ in range(calls):
            await call()
        self.times.append((time.process_time() - begun) / calls * 1e6)

    @property
    def least(self) -> float:
        return min(self.times)


async def work() -> int:
    return ANSWER


async def measured(plan: Plan) -> dict[str, list[Cell]]:
    """Every group of candidates; the bare call and `asyncio.timeout`, which tells how fast the machine is, in each."""
    common = {BARE: work, TIMEOUT: PRIMITIVES["time-out"][TIMEOUT][0](work)}
    groups = {name: made(candidates, work) for name, candidates in (*PRIMITIVES.items(), ("stack", STACKS))}
    found = {name: [Cell(each, call) for each, call in (common | calls).items()] for name, calls in groups.items()}
    for cell in (cell for cells in found.values() for cell in cells):
        assert await cell.call() == ANSWER, f"{cell.name} gave something else"
        for _ in range(3):
            await cell.measure(plan.calls)
        cell.times.clear()
    gc.collect()
    gc.freeze()
    for turn in range(plan.rounds):
        for cells in (*found.values(), found["stack"], found["stack"]):  # the longer a call, the rarer a quiet sample
            for cell in cells if turn % 2 else reversed(cells):
                await cell.measure(plan.calls)
    gc.unfreeze()
    return found


# ---- reporting ---------------------------------------------------------------------------------------------------


def report(found: dict[str, list[Cell]], edges: list[Edge]) -> Report:
    made_of = Report(
        "robustness",
        "Guards around a call",
        "CPU in µs a call that succeeds, the call itself (the first row) included; all in one process, in samples that "
        "take turns. The least of many samples is what the code takes on a quiet machine, the median what it took.",
    )
    stacks = found["stack"]
    made_of.table(
        "Whole stacks",
        ["", "least", "median", "× the pipeline"],
        rows(stacks, PIPELINE),
        "Everything on: total time-out, load shedder (AIMD), three attempts with a retry budget, limits of requests "
        "and tokens, breaker. The others have no shedder and no budget, and count no tokens; hyx has a bulkhead.",
    )
    for group, title in TITLES.items():
        made_of.table(title, ["", "least", "median", "× AgentFlow"], rows(found[group], first_of_ours(found[group])))
    add_edges(made_of, edges)
    add_promises(made_of, stacks, edges)
    made_of.raw = {group: {cell.name: cell.times for cell in cells} for group, cells in found.items()}
    return made_of


def first_of_ours(cells: list[Cell]) -> str:
    return next(cell.name for cell in cells if cell.name.startswith(OURS))


def rows(cells: list[Cell], base: str) -> list[list[str]]:
    by_name = {cell.name: cell for cell in cells}
    return [
        [
            cell.name,
            number(cell.least),
            number(median(cell.times)),
            "1" if cell.name == base else number(cell.least / by_name[base].least),
        ]
        for cell in cells
    ]


def add_edges(made_of: Report, edges: list[Edge]) -> None:
    made_of.table(
        "At the edges",
        ["seen in this run", "right", "AgentFlow", "others"],
        [
            [edge.what, edge.right, edge.ours, "; ".join(f"{who}: {said}" for who, said in edge.others)]
            for edge in edges
        ],
        "Each is tried on every library that has such a guard.",
    )


def add_promises(made_of: Report, stacks: list[Cell], edges: list[Edge]) -> None:
    cells = {cell.name: cell for cell in stacks}
    ours, timer = cells[PIPELINE], cells[TIMEOUT]
    made_of.promise(
        "the whole pipeline, nothing failing",
        limit=8,
        measured=ours.least,
        unit="µs of CPU",
        beside=f"`asyncio.timeout` alone here: {number(timer.least)}",
    )
    theirs = cells.get(TENACITY)
    made_of.promise(
        "the whole pipeline, over tenacity, aiolimiter, aiobreaker and a time-out",
        limit=0.25,
        measured=None if theirs is None else ours.least / theirs.least,
        unit="×",
    )
    wrong = sum(edge.ours != edge.right for edge in edges)
    made_of.promise("edges at which a guard does the wrong thing", limit=0, measured=wrong, unit=f"of {len(edges)}")


async def everything(plan: Plan) -> tuple[dict[str, list[Cell]], list[Edge]]:
    found = await measured(plan)
    edges: list[Awaitable[Edge]] = [observed(edge) for edge in EDGES]
    return found, [await edge for edge in edges]


def main() -> None:
    arguments = options(__doc__).parse_args()
    begun = time.perf_counter()
    found, edges = asyncio.run(everything(TINY if arguments.tiny else Plan()))
    report(found, edges).finish(arguments.output)
    note(f"robustness: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
