"""What it costs to keep a run: a step, many runs at once, going on after 10,000 steps, bytes, runs that are parked.

    python benchmarks/durability.py                        all that is installed here
    python benchmarks/durability.py --no-postgres

The same loop in each: AgentFlow on SQLite and through DBOS on PostgreSQL, LangGraph with its savers, bare sqlite3 and
bare DBOS as floors. All in one run, taking turns. CPU is that of the whole process, threads included, and so not that
of a PostgreSQL; wall time is what a run waits for, and depends on the disk. What is about a fresh process is measured
in one (`durability_alone.py`, `durability_postgres.py`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentflow.core.durability.values import decode, encode
from durability_postgres import server
from durability_sides import Kept, Side, inserts, langgraph, langgraph_plain, ours, plain, size_of
from processes import ask, cost, heard, started
from results import Report, median, note, number, options, paired

HERE = Path(__file__).resolve().parent
KEPT = "AgentFlow, SQLite NORMAL"
PLAIN = "AgentFlow, nothing kept"
FLOOR = "sqlite3 alone, an INSERT a step, NORMAL"


def sides() -> dict[str, Side]:
    found: dict[str, Side] = {
        PLAIN: plain,
        FLOOR: inserts("normal"),
        KEPT: ours("normal"),
        f"{KEPT}, two records a step": ours("normal", two_records=True),
    }
    if find_spec("langgraph") is not None:
        found["LangGraph, nothing kept"] = langgraph_plain
        found["LangGraph, exit, NORMAL"] = langgraph("exit")
        found["LangGraph, async, NORMAL"] = langgraph("async")
        found["LangGraph, sync, NORMAL"] = langgraph("sync")
    else:
        note("durability: LangGraph is not installed here, so it is left out")
    found["sqlite3 alone, an INSERT a step, FULL"] = inserts("full")
    found["AgentFlow, SQLite FULL"] = ours("full")
    found["AgentFlow, SQLite FULL, two records a step"] = ours("full", two_records=True)
    if find_spec("langgraph") is not None:
        found["LangGraph, sync, FULL, as it comes"] = langgraph("sync", full=True)
    return found


@dataclass(slots=True)
class Times:
    """Seconds for one unit of work, a round each."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    async def measure(self, work: Callable[[], Awaitable[object]], units: int) -> None:
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        await work()
        self.note((time.process_time() - cpu) / units, (time.perf_counter() - wall) / units)

    def note(self, cpu: float, wall: float) -> None:
        self.cpu.append(cpu)
        self.wall.append(wall)


Measured = dict[str, Times]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything there is."""

    rounds: int = 5
    steps: int = 200
    runs: int = 100
    steps_each: int = 5
    items: int = 1_000
    long: Sequence[int] = (10_000, 100_000)
    parked: int = 10_000
    pieces: int = 200
    on_postgres: int = 200


TINY = Plan(rounds=1, steps=5, runs=5, steps_each=2, items=5, long=(20,), parked=200, pieces=5, on_postgres=5)


# ---- on SQLite ---------------------------------------------------------------------------------------------------


async def measure_sqlite(plan: Plan, folder: Path) -> dict[str, Measured]:
    """A run alone, many at once, and an `Each`, with every side in turn."""
    found: dict[str, Measured] = {"alone": {}, "at once": {}, "each": {}}
    async with AsyncExitStack() as stack:
        kept = {name: await stack.enter_async_context(side(made(folder))) for name, side in sides().items()}
        for each in kept.values():
            await each.loop(2)
        for turn in range(plan.rounds):
            for name in kept if turn % 2 else reversed(kept):
                await measure_one(found, name, kept[name], plan)
            note(f"durability: round {turn + 1} of {plan.rounds} on SQLite")
    return found


def made(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


async def measure_one(found: dict[str, Measured], name: str, kept: Kept, plan: Plan) -> None:
    await found["alone"].setdefault(name, Times()).measure(lambda: kept.loop(plan.steps), plan.steps)
    if name != FLOOR and not name.startswith("sqlite3"):
        many, steps = plan.runs, plan.steps_each

        async def at_once() -> None:
            await asyncio.gather(*(kept.loop(steps) for _ in range(many)))

        await found["at once"].setdefault(name, Times()).measure(at_once, many * steps)
        await found["each"].setdefault(name, Times()).measure(lambda: kept.each(plan.items), plan.items)


async def measure_bytes(plan: Plan, folder: Path) -> dict[str, list[float]]:
    """Bytes in files for a step, by side: what all steps write, without the first ones, once the files are closed."""
    chosen = {name: side for name, side in sides().items() if "NORMAL" in name and "exit" not in name}
    chosen.pop(FLOOR)
    works = [(0, False), (1_000, False), (50_000, False), (1_000, True)]
    found: dict[str, list[float]] = {}
    for name, side in chosen.items():
        for size, grows in works:
            place = made(folder)
            sizes = []
            for _ in range(2):
                async with side(place) as kept:
                    await kept.loop(plan.pieces, size, grows=grows)
                sizes.append(size_of(place))
            found.setdefault(name, []).append((sizes[1] - sizes[0]) / plan.pieces)
    return found


# ---- in processes of their own -----------------------------------------------------------------------------------


def alone(what: str, folder: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "durability_alone.py"), what, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{what} failed: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure_resume(plan: Plan, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The best of three that go on with a copy of the same files, as only the first one finds the run waiting."""
    found: dict[str, list[dict[str, Any]]] = {}
    ways = [("AgentFlow", "keep", "resume", plan.long)]
    if find_spec("langgraph") is not None:
        ways.append(("LangGraph", "keep-lg", "resume-lg", plan.long[:1]))
    for name, keep, resume, sizes in ways:
        for steps in sizes:
            place = made(folder)
            alone(keep, place, steps)
            bytes_ = size_of(place)
            tries = []
            for number_ in range(3):
                twin = folder / f"{place.name}-{number_}"
                subprocess.run(["cp", "-r", str(place), str(twin)], check=True)
                tries.append(alone(resume, twin, steps))
            least = {key: min(each[key] for each in tries) for key in tries[0]}
            found.setdefault(name, []).append({"steps": steps, "bytes": bytes_, **least})
            note(f"durability: {name} went on after {steps:,} steps")
    return found


def measure_postgres(plan: Plan) -> Measured:
    found: Measured = {}
    names = {"dbos": "DBOS alone", "agentflow": "AgentFlow through DBOS"}
    if find_spec("langgraph.checkpoint.postgres") is not None:
        names["langgraph"] = "LangGraph, async"
    with ExitStack() as stack:
        postgres = stack.enter_context(server())
        if postgres is None:
            return found
        talks = {}
        for side, name in names.items():
            url = postgres.create(f"bench_{side}")
            talks[name] = stack.enter_context(started(sys.executable, str(HERE / "durability_postgres.py"), side, url))
            heard(talks[name])
        for turn in range(plan.rounds):
            for name in talks if turn % 2 else reversed(talks):
                said = ask(talks[name], steps=plan.on_postgres)
                found.setdefault(name, Times()).note(said["cpu"], said["wall"])
        note("durability: PostgreSQL measured")
    return found


# ---- values, imports ---------------------------------------------------------------------------------------------

VALUE = {
    "id": "3f9a1c", "n": 17, "ratio": 0.25, "ok": True, "nothing": None,
    "tags": ["tides", "moon", "sun"], "where": {"city": "Brest", "lat": 48.39, "lon": -4.49},
    "text": "The tide rises and falls twice a day, mostly.",
}  # fmt: skip


def measure_values(plan: Plan) -> Measured:
    """Seconds for one encoding or decoding of some 200 bytes, the least of short samples in each round."""
    text = encode(VALUE, "value")
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    decoder = json.JSONDecoder().decode
    ways: dict[str, Callable[[], object]] = {
        "encode": lambda: encode(VALUE, "value"),
        "json.dumps": lambda: encoder(VALUE),
        "decode": lambda: decode(text),
        "json.loads": lambda: decoder(text),
    }
    found: Measured = {}
    for _ in range(plan.rounds):
        samples: dict[str, list[float]] = {}
        for _ in range(20):
            for name, way in ways.items():
                began = time.process_time()
                for _ in range(200):
                    way()
                samples.setdefault(name, []).append((time.process_time() - began) / 200)
        for name, times in samples.items():
            found.setdefault(name, Times()).note(min(times), 0.0)
    return found


IMPORTS = {
    "a bare interpreter with asyncio and sqlite3": "import asyncio, sqlite3",
    "import agentflow": "import agentflow",
    "from agentflow import AsyncFlow": "from agentflow import AsyncFlow",
    "from agentflow import AsyncFlow, SqliteDurability": "from agentflow import AsyncFlow, SqliteDurability",
}


def measure_imports(plan: Plan) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _ in range(plan.rounds):
        for name, code in IMPORTS.items():
            found.setdefault(name, []).append(cost(sys.executable, "-c", code))
    return found


# ---- reporting ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Findings:
    sqlite: dict[str, Measured]
    bytes: dict[str, list[float]]
    resume: dict[str, list[dict[str, Any]]]
    parked: dict[str, Any]
    values: Measured
    imports: dict[str, list[float]]
    postgres: Measured


def report(found: Findings, plan: Plan) -> Report:
    made_ = Report(
        "durability",
        "Keeping runs",
        "The same loop of one small step, kept by each in its own way. CPU is that of the whole process, its threads "
        "included; wall time depends on the disk, and on whoever else uses the machine.",
    )
    add_steps(made_, found, plan)
    add_postgres(made_, found.postgres)
    add_resume(made_, found)
    add_bytes(made_, found.bytes)
    add_parked(made_, found.parked, plan)
    add_small(made_, found)
    add_promises(made_, found, plan)
    made_.raw = {
        f"{what}/{name}": {"cpu": times.cpu, "wall": times.wall}
        for what, all_ in {**found.sqlite, "PostgreSQL": found.postgres, "values": found.values}.items()
        for name, times in all_.items()
    }
    return made_


def milliseconds(values: Sequence[float]) -> str:
    return number(median(values) * 1e3)


def add_steps(made_: Report, found: Findings, plan: Plan) -> None:
    titles = {
        "alone": (
            "One run, step after step",
            "What is kept of a step of ours is one record, or two where a node has a `post` of its own. `NORMAL` and "
            "`FULL` are SQLite's `synchronous`: FULL waits for the disk at each commit, as LangGraph's saver does if "
            "nobody tells it otherwise. With `exit` LangGraph keeps nothing before the run ends.",
        ),
        "at once": (
            f"{plan.runs} runs at once",
            f"Each of {plan.steps_each} steps. All that is saved in one turn of the event loop is one transaction.",
        ),
        "each": (
            f"A fan-out over {plan.items:,} items, and join",
            "Ours is `Each`, 64 items at once, LangGraph's `Send`. Each item is kept.",
        ),
    }
    for what, (title, text) in titles.items():
        base = found.sqlite[what][KEPT]
        rows = [
            [name, milliseconds(times.cpu), milliseconds(times.wall), number(1 / median(times.wall)),
             number(paired(times.cpu, base.cpu))]
            for name, times in found.sqlite[what].items()
        ]  # fmt: skip
        unit = "an item" if what == "each" else "a step"
        columns = ["", f"CPU, ms {unit}", f"wall, ms {unit}", "a second", f"CPU × {KEPT}"]
        made_.table(title, columns, rows, text)


def add_postgres(made_: Report, found: Measured) -> None:
    if not found:
        return
    base = found["DBOS alone"]
    rows = [
        [name, milliseconds(times.cpu), milliseconds(times.wall), number(paired(times.cpu, base.cpu)),
         number(paired(times.wall, base.wall))]
        for name, times in found.items()
    ]  # fmt: skip
    made_.table(
        "On PostgreSQL",
        ["", "CPU, ms a step", "wall, ms a step", "CPU × DBOS alone", "wall × DBOS alone"],
        rows,
        "A server on the same machine with fsync on, as Debian ships it; its CPU is not counted. DBOS alone awaits "
        "`run_step_async` in a loop; ours runs the flow of the other tables. Each in a process of its own.",
    )


def add_resume(made_: Report, found: Findings) -> None:
    rows = [
        [name, f"{each['steps']:,}", number(each["wall"] * 1e3), number(each["cpu"] * 1e3),
         number(each["cpu"] / each["steps"] * 1e6), number(each["more"] / 1e6), number(each["bytes"] / 1e6)]
        for name, all_ in found.resume.items()
        for each in all_
    ]  # fmt: skip
    made_.table(
        "Going on with a long run",
        ["", "steps", "wall, ms", "CPU, ms", "µs a step", "memory, MB more", "file, MB"],
        rows,
        "In a fresh process, imports not counted, the least of three. Ours reads the journal and walks the run again; "
        "LangGraph reads its last checkpoint alone, and so goes on at once however long the run is.",
    )


def add_bytes(made_: Report, found: dict[str, list[float]]) -> None:
    columns = ["bytes a step", "a number", "1 KB", "50 KB", "1 KB more in a list"]
    rows = [[name, *(number(each) for each in sizes)] for name, sizes in found.items() if any(sizes)]
    made_.table(
        "Bytes of a step",
        columns,
        rows,
        "All files, closed. Each step writes a number, and a text that cannot be packed well: in the place of the last "
        "one, or at the end of a list, which LangGraph keeps whole with each checkpoint.",
    )


def add_parked(made_: Report, parked: dict[str, Any], plan: Plan) -> None:
    columns = ["runs", "tasks", "memory, bytes a run", "file, bytes a run", "CPU, ms to begin and park one",
               f"ms to list the {plan.parked // 100} that are due", "ms to list the newest 100"]  # fmt: skip
    row = [
        f"{plan.parked:,}", str(parked["tasks"]), number(parked["held"]), number(parked["bytes"]),
        number(parked["cpu"] * 1e3), number(parked["due"] * 1e3), number(parked["newest"] * 1e3),
    ]  # fmt: skip
    made_.table("Runs that wait", columns, [row], "Parked at a question, in the process that began them.")


def add_small(made_: Report, found: Findings) -> None:
    rows = [
        [name, number(min(times.cpu) * 1e6), number(median(times.cpu) * 1e6)] for name, times in found.values.items()
    ]
    size = len(encode(VALUE, "value"))
    made_.table(f"A value of {size} bytes", ["µs of CPU", "least", "median"], rows, "`json` with the same separators.")
    rows = [[name, number(median(times) * 1e3)] for name, times in found.imports.items()]
    made_.table("Starting a process", ["", "ms of CPU"], rows)


def add_promises(made_: Report, found: Findings, plan: Plan) -> None:
    steps = found.sqlite["alone"]
    floor = f"`sqlite3` alone here: {milliseconds(steps[FLOOR].cpu)}"
    two = steps[f"{KEPT}, two records a step"]
    for what, times in (("a step on SQLite NORMAL", steps[KEPT]), ("a step of two records", two)):
        made_.promise(
            f"durable: {what}",
            limit=0.3,
            measured=median(times.cpu) * 1e3,
            unit="ms of CPU",
            beside=f"the least {number(min(times.cpu) * 1e3)}; {floor}",
        )
    for name, limit in (("LangGraph, async, NORMAL", 1.0), ("LangGraph, sync, NORMAL", 1.0)):
        ratio = paired(steps[KEPT].cpu, steps[name].cpu) if name in steps else None
        made_.promise(f"durable: a step over {name}", limit=limit, measured=ratio, unit="× its CPU")
    ours_, dbos = found.postgres.get("AgentFlow through DBOS"), found.postgres.get("DBOS alone")
    for what in ("cpu", "wall"):
        both = ours_ is not None and dbos is not None
        measured = paired(getattr(ours_, what), getattr(dbos, what)) if both else None
        made_.promise(
            "durable: a step on PostgreSQL over DBOS alone",
            limit=1.2,
            measured=measured,
            unit="× its CPU" if what == "cpu" else "× its wall time",
        )
    first = found.resume["AgentFlow"][0]
    made_.promise(
        f"durable: going on after {first['steps']:,} steps",
        limit=1.0,
        measured=first["wall"],
        unit="s",
        beside=f"CPU {number(first['cpu'])} s",
    )
    made_.promise(
        f"durable: tasks of {plan.parked:,} parked runs", limit=0, measured=found.parked["tasks"], unit="tasks"
    )
    for ours_name, theirs, limit in (("encode", "json.dumps", 8.0), ("decode", "json.loads", 5.0)):
        least, json_least = (min(found.values[name].cpu) * 1e6 for name in (ours_name, theirs))
        made_.promise(
            f"durable: `{ours_name}` of a value of 200 bytes",
            limit=limit,
            measured=least,
            unit="µs of CPU",
            beside=f"`{theirs}` here: {number(json_least)}",
        )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=Plan().rounds, help="how often each takes its turn (%(default)s)")
    parser.add_argument("--no-postgres", action="store_true", help="leave out what needs a PostgreSQL")
    arguments = parser.parse_args()
    plan = TINY if arguments.tiny else Plan(rounds=arguments.rounds)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = Findings(
            values=measure_values(plan),
            imports=measure_imports(plan),
            sqlite=asyncio.run(measure_sqlite(plan, folder)),
            bytes=asyncio.run(measure_bytes(plan, folder)),
            parked=alone("park", made(folder), plan.parked),
            resume=measure_resume(plan, folder),
            postgres={} if arguments.no_postgres else measure_postgres(plan),
        )
    report(found, plan).finish(arguments.output)
    note(f"durability: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
