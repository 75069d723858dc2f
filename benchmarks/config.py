"""What it costs to begin: configuration load, model switching, imports, `agentflow --help`, resident memory.

    python benchmarks/config.py

Loads and look-ups are measured in this process, warm, medians of CPU. Imports and memory are measured in many fresh
processes that take turns with a bare interpreter.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

from agentflow.llm import AgentFlow, ModelRegistry
from processes import cost, heard, started
from results import Report, median, note, number, options, paired

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Plan:
    models: tuple[int, ...] = (10, 100, 1_000)
    loads: int = 15
    lookups: int = 20_000
    processes: int = 15
    memory: int = 5
    providers: int = 50


TINY = Plan(models=(10,), loads=1, lookups=10, processes=1, memory=1, providers=2)


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU of one call, garbage of earlier ones collected before."""
    gc.collect()
    begun = time.process_time()
    work()
    return time.process_time() - begun


# ---- loading -----------------------------------------------------------------------------------------------------


def models_yml(size: int) -> str:
    """A configuration as one would write it: ten providers, `size` models, a quarter with parameters of their own."""
    lines = ["defaults: {timeout: 60, retry: {max_attempts: 3}}", "providers:"]
    for number_ in range(10):
        address = f"http://127.0.0.1:{8_000 + number_}/v1"
        lines.append(f'  lab{number_}: {{kind: openai, base_url: "{address}", headers: {{x-team: search}}}}')
    lines.append("models:")
    for number_ in range(size):
        lines += [f"  model-{number_}:", f"    provider: lab{number_ % 10}", f"    model_id: vendor/model-{number_}"]
        lines.append(f"    temperature: {number_ % 10 / 10}")
        if number_ % 4 == 0:
            lines += ["    max_tokens: 2048", '    stop: ["END", "STOP"]', "    retry: {max_attempts: 5}"]
    return "\n".join(lines) + "\n"


def measure_loads(plan: Plan, folder: Path) -> dict[int, tuple[list[float], list[float]]]:
    """For each number of models: seconds of a whole load, and of PyYAML's C parser on the same file."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[int, tuple[list[float], list[float]]] = {}
    for size in plan.models:
        file = folder / f"{size}.yml"
        file.write_text(models_yml(size), "utf-8")
        loads, parses = found[size] = ([], [])
        assert len(loaded(file).models()) >= size
        for _ in range(plan.loads):
            loads.append(cpu(partial(loaded, file)))
            parses.append(cpu(partial(yaml.load, file.read_bytes(), loader)))
    return found


def loaded(file: Path) -> ModelRegistry:
    return ModelRegistry.load(file, environ={}, cwd=file.parent, home=file.parent)


# ---- switching ---------------------------------------------------------------------------------------------------


def measure_switching(plan: Plan, folder: Path) -> dict[str, list[float]]:
    """Seconds for each change to another model."""
    size = plan.models[-1]
    names = [f"model-{number_}" for number_ in range(size)]
    found: dict[str, list[float]] = {"first": [], "again": [], "call": []}
    for _ in range(plan.loads):
        registry = loaded(folder / f"{size}.yml")
        found["first"].append(cpu(partial(look_up, registry, names, size)) / size)
        found["again"].append(cpu(partial(look_up, registry, names, plan.lookups)) / plan.lookups)
        found["call"].append(cpu(partial(build, registry, names, plan.lookups)) / plan.lookups)
    return found


def look_up(registry: ModelRegistry, names: list[str], count: int) -> None:
    resolve = registry.resolve
    for _, name in zip(range(count), cycle(names), strict=False):
        resolve(name)


def build(registry: ModelRegistry, names: list[str], count: int) -> None:
    for _, name in zip(range(count), cycle(names), strict=False):
        AgentFlow.model(name, registry=registry).prompt("Hello").build()
        registry.resolve(name)


# ---- fresh processes ---------------------------------------------------------------------------------------------

STARTS = {
    "a bare interpreter": "pass",
    "import asyncio": "import asyncio",
    "import agentflow": "import agentflow",
    "from agentflow import AsyncFlow": "from agentflow import AsyncFlow",
    "from agentflow import AgentFlow": "from agentflow import AgentFlow",
    "import aiohttp": "import aiohttp",
}
HELP = "agentflow --help"


def measure_starts(plan: Plan) -> dict[str, list[float]]:
    """Seconds of CPU of whole processes."""
    commands: dict[str, tuple[str, ...]] = {what: (sys.executable, "-c", code) for what, code in STARTS.items()}
    script = Path(sys.executable).parent / "agentflow"
    if script.exists():
        commands[HELP] = (str(script), "--help")
    found: dict[str, list[float]] = {what: [] for what in commands}
    for turn in range(plan.processes + 1):
        for what in list(commands)[:: 1 if turn % 2 else -1]:
            found[what].append(cost(*commands[what]))
    return {what: times[1:] for what, times in found.items()}  # the first round fills the caches of files


def measure_memory(plan: Plan) -> dict[str, list[dict[str, float]]]:
    """What `config_memory.py` says, a fresh process each time."""
    found: dict[str, list[dict[str, float]]] = {"asyncio": [], "aiohttp": [], "agentflow": []}
    if not Path("/proc/self/statm").exists():
        note("config: no /proc here, so memory is not measured")
        return {}
    with started(sys.executable, str(HERE / "llm_server.py")) as server:
        port = str(heard(server))
        for _ in range(plan.memory):
            for kind, facts in found.items():
                with started(sys.executable, str(HERE / "config_memory.py"), kind, port, str(plan.providers)) as child:
                    facts.append(heard(child))
    return found


# ---- reporting ---------------------------------------------------------------------------------------------------


def report(plan: Plan, folder: Path) -> Report:
    made = Report("config", "To begin with", "Configuration, imports, memory: CPU and resident memory of AgentFlow.")
    loading(made, measure_loads(plan, folder))
    switching(made, measure_switching(plan, folder))
    starting(made, measure_starts(plan))
    memory(made, measure_memory(plan), plan.providers)
    return made


def loading(made: Report, loads: dict[int, tuple[list[float], list[float]]]) -> None:
    rows = [
        [
            f"{size:,} models",
            number(median(whole) * 1e3),
            number(median(parse) * 1e3),
            number(paired(whole, parse)),
        ]
        for size, (whole, parse) in loads.items()
    ]
    made.table(
        "Loading models.yml",
        ["", "load, ms", "PyYAML alone, ms", "×"],
        rows,
        "A whole `ModelRegistry.load`: built-in defaults, the file, validation, overlay; beside it PyYAML's "
        "`CSafeLoader` on the same file.",
    )
    largest = max(loads)
    whole, parse = loads[largest]
    made.promise(
        f"configuration load, {largest:,} models",
        limit=60,
        measured=median(whole) * 1e3,
        unit="ms",
        beside=f"PyYAML alone here: {number(median(parse) * 1e3)}",
    )
    made.raw["load"] = {size: whole for size, (whole, _) in loads.items()}


def switching(made: Report, times: dict[str, list[float]]) -> None:
    names = {
        "again": "`registry.resolve(name)`, seen before",
        "first": "`registry.resolve(name)`, the first time",
        "call": "`AgentFlow.model(name).prompt(…).build()` and resolve",
    }
    made.table(
        "Switching models",
        ["", "µs"],
        [[what, number(median(times[part]) * 1e6)] for part, what in names.items()],
        "A different model each time, over all models of the largest file.",
    )
    made.promise("switching models, seen before", limit=20, measured=median(times["again"]) * 1e6, unit="µs")
    made.promise("switching models, the first time", limit=20, measured=median(times["first"]) * 1e6, unit="µs")
    made.raw["switch"] = times


def starting(made: Report, times: dict[str, list[float]]) -> None:
    bare = times["a bare interpreter"]
    over = {what: median(own - base for own, base in zip(took, bare, strict=True)) for what, took in times.items()}
    rows = [
        [what, number(median(took) * 1e3), "–" if took is bare else number(over[what] * 1e3)]
        for what, took in times.items()
    ]
    made.table(
        "Starting a process",
        ["", "ms of CPU", "over the interpreter"],
        rows,
        "`import agentflow` hands on names alone; what a name needs is imported when it is first used, and aiohttp "
        "with the first call to a server.",
    )
    here = f"`import asyncio` here: {number(over['import asyncio'] * 1e3)}"
    ours = over["import agentflow"] * 1e3
    made.promise("`import agentflow`", limit=30, measured=ours, unit="ms of CPU", beside=here)
    helped = median(times[HELP]) * 1e3 if HELP in times else None
    made.promise("`agentflow --help`", limit=150, measured=helped, unit="ms of CPU", beside=here)
    made.raw["start"] = times


def memory(made: Report, found: dict[str, list[dict[str, float]]], providers: int) -> None:
    names = {"asyncio": "the interpreter with asyncio", "aiohttp": "bare aiohttp", "agentflow": "AgentFlow"}
    middle = {kind: median(facts["resident"] for facts in all_of) for kind, all_of in found.items()}
    made.table(
        "Resident memory",
        ["after import and one call", "MB"],
        [[names[kind], number(value)] for kind, value in middle.items()],
        f"A further provider with a connection of its own: {further(found)} KB (over {providers}).",
    )
    made.promise("resident after import and one call", limit=45, measured=middle.get("agentflow"), unit="MB")
    measured = median(facts["provider"] for facts in found["agentflow"]) if found else None
    made.promise("a further provider", limit=200, measured=measured, unit="KB")
    made.raw["memory"] = found


def further(found: dict[str, list[dict[str, float]]]) -> str:
    return number(median(facts["provider"] for facts in found["agentflow"])) if found else "–"


def main() -> None:
    parser = options(__doc__)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = report(TINY if arguments.tiny else Plan(), Path(folder))
        except subprocess.CalledProcessError as error:
            sys.exit(f"config: {' '.join(error.cmd)} ended with status {error.returncode}")
    made.finish(arguments.output)
    note(f"config: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
