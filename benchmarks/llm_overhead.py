"""What a model call costs the caller's process: AgentFlow, bare aiohttp, the openai SDK and LiteLLM.

    python benchmarks/llm_overhead.py                                    makes .venvs/llm-… with pip, then measures
    python benchmarks/llm_overhead.py --here --clients agentflow aiohttp    in this environment

    this process ──commands──▶ one process a client, each in an environment of its own ──HTTP──▶ llm_server.py

The clients take turns and each measures the CPU of its own process (`llm_clients.py`); the server's is not counted. The
server answers in about 40 µs of its own, on loopback.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import ask, heard, started
from results import ROOT, Report, median, note, number, options

HERE = Path(__file__).resolve().parent
AIOHTTP = "aiohttp==3.14.5"
REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "agentflow": ("--editable", str(ROOT), AIOHTTP),
    "aiohttp": (AIOHTTP,),
    "openai": ("openai==3.54.0",),
    "litellm": ("litellm==1.106.2", AIOHTTP),
}
NAMES = {"agentflow": "AgentFlow", "aiohttp": "bare aiohttp", "openai": "openai SDK", "litellm": "LiteLLM"}
OURS, BASE = "agentflow", "aiohttp"
PIECES = 50
ROUNDS = 32
SLOW = {"openai": 4, "litellm": 4}
"""These take part in every so-many-th round only."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of each a round holds. Rounds are short and many, so that what is compared was measured together."""

    rounds: int = ROUNDS
    alone: int = 60
    crowd: int = 100
    each: int = 2
    streams: int = 10

    def parts(self) -> dict[str, dict[str, object]]:
        """The commands of a round."""
        return {
            "alone": {"do": "call", "calls": self.alone, "at_once": 1},
            "crowd": {"do": "call", "calls": self.crowd * self.each, "at_once": self.crowd},
            "short": {"do": "stream", "calls": self.streams, "pieces": 1},
            "long": {"do": "stream", "calls": self.streams, "pieces": PIECES},
        }


TINY = Plan(rounds=1, alone=3, crowd=3, each=1, streams=2)


@dataclass(slots=True)
class Measured:
    """One client's numbers, by round: seconds of CPU a call, alone and in a crowd, and of streams of 1 and 50 pieces.

    `first` is the wall time to a stream's first piece, the best of a round: other programs only ever add to it.
    """

    import_cpu: float = 0.0
    resident: float | None = None
    version: str = ""
    rounds: dict[str, dict[int, float]] = field(
        default_factory=lambda: {part: {} for part in (*Plan().parts(), "first")}
    )

    def note(self, turn: int, part: str, said: dict[str, Any]) -> None:
        self.rounds[part][turn] = said["cpu"]
        if part == "long":
            self.rounds["first"][turn] = min(said["first"])

    def middle(self, part: str) -> float:
        """The median in µs."""
        return median(self.rounds[part].values()) * 1e6

    @property
    def piece(self) -> float:
        """µs of CPU for each further piece of a stream, the median."""
        pairs = zip(self.rounds["long"].values(), self.rounds["short"].values(), strict=True)
        return median((long - short) / (PIECES - 1) for long, short in pairs) * 1e6


# ---- processes ---------------------------------------------------------------------------------------------------


def environment(name: str) -> Path:
    """The interpreter of a client's own environment, which is made where it is missing or pinned otherwise."""
    folder = ROOT / ".venvs" / f"llm-{name}"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(REQUIREMENTS[name])
    if not stamp.exists() or stamp.read_text() != wanted:
        note(f"llm_overhead: making {folder.relative_to(ROOT)}")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]], check=True)
        stamp.write_text(wanted)
    return python


def version(python: Path, name: str) -> str:
    if name == "agentflow":
        return ""
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


# ---- measuring ---------------------------------------------------------------------------------------------------


def measure(pythons: Mapping[str, Path], plan: Plan) -> dict[str, Measured]:
    results = {name: Measured(version=version(python, name)) for name, python in pythons.items()}
    with ExitStack() as stack:
        server = stack.enter_context(started(sys.executable, str(HERE / "llm_server.py")))
        port = str(heard(server))
        children = {}
        for name, python in pythons.items():
            child = stack.enter_context(started(str(python), str(HERE / "llm_clients.py"), name, port))
            ready = heard(child)
            results[name].import_cpu, results[name].resident = ready["import_cpu"], ready["resident"]
            children[name] = child
        for turn in range(-2, plan.rounds):  # two rounds to warm up
            for part, command in plan.parts().items():
                for name in list(children)[:: 1 if turn % 2 else -1]:
                    if turn % SLOW.get(name, 1) == 0:
                        said = ask(children[name], **command)
                        if turn >= 0:
                            results[name].note(turn, part, said)
    return results


# ---- reporting ---------------------------------------------------------------------------------------------------


def report(results: Mapping[str, Measured], crowd: int) -> Report:
    made = Report(
        "llm_overhead",
        "A model call",
        "CPU of the caller's process in µs, against a server on loopback whose own CPU is not counted; each client in "
        "a process and an environment of its own, taking turns. AgentFlow goes its full way: registry, builder, "
        "client, provider. Bare aiohttp is a session with `json.loads` and no error handling.",
    )
    call_table(made, results, crowd)
    stream_table(made, results)
    start_table(made, results)
    add_promises(made, results, crowd)
    made.raw = {name: result.rounds for name, result in results.items()}
    return made


def label(name: str, result: Measured) -> str:
    return f"{NAMES[name]} {result.version}".strip()


def call_table(made: Report, results: Mapping[str, Measured], crowd: int) -> None:
    rows = []
    for name, result in results.items():
        cells = []
        for part in ("alone", "crowd"):
            cells += [number(result.middle(part)), ratio(results, name, part)]
        rows.append([label(name, result), *cells])
    made.table(
        "One call", ["client", "alone", "× bare", f"{crowd} at once, a call", "× bare"], rows, "The answer comes whole."
    )


def stream_table(made: Report, results: Mapping[str, Measured]) -> None:
    rows = [
        [
            label(name, result),
            number(result.middle("long")),
            ratio(results, name, "long"),
            number(result.piece),
            number(result.middle("first")),
        ]
        for name, result in results.items()
    ]
    made.table(
        f"One stream of {PIECES} pieces",
        ["client", "CPU a stream", "× bare", "CPU a piece", "first piece after"],
        rows,
        f"All pieces arrive in one burst. A piece's CPU is the difference between streams of {PIECES} and of 1. The "
        "first piece's time is wall time in µs, the best of each round.",
    )


def start_table(made: Report, results: Mapping[str, Measured]) -> None:
    rows = [
        [
            label(name, result),
            number(result.import_cpu * 1e3),
            "–" if result.resident is None else number(result.resident),
        ]
        for name, result in results.items()
    ]
    made.table(
        "Import and memory",
        ["client", "import and set-up, ms of CPU", "resident after the first call, MB"],
        rows,
        "One process each; asyncio and json are loaded already, and count into the resident memory.",
    )


def ratio(results: Mapping[str, Measured], name: str, part: str) -> str:
    value = over(results, name, BASE, part)
    return "–" if value is None else number(value)


def over(results: Mapping[str, Measured], above: str, below: str, part: str) -> float | None:
    """The median ratio of the rounds in which both took part."""
    pairs = together(results, above, below, part)
    return median(own / base for own, base in pairs) if pairs else None


def together(results: Mapping[str, Measured], above: str, below: str, part: str) -> list[tuple[float, float]]:
    if above not in results or below not in results:
        return []
    own, base = results[above].rounds[part], results[below].rounds[part]
    return [(own[turn], base[turn]) for turn in own if turn in base]


def add_promises(made: Report, results: Mapping[str, Measured], crowd: int) -> None:
    for part, how in (("alone", "alone"), ("crowd", f"{crowd} at once")):
        what = f"a call, {how}"
        made.promise(what, limit=1.4, measured=over(results, OURS, BASE, part), unit="× bare aiohttp")
        for name, limit in (("openai", 5), ("litellm", 12)):
            measured = over(results, name, OURS, part)
            made.promise(
                f"{what}: {NAMES[name]} over AgentFlow", limit=limit, measured=measured, unit="×", at_least=True
            )
    piece = results[OURS].piece if OURS in results else None
    bare = f"bare aiohttp here: {number(results[BASE].piece)}" if BASE in results else ""
    made.promise("a piece of a stream", limit=12, measured=piece, unit="µs of CPU", beside=bare)
    late = [own - bare for own, bare in together(results, OURS, BASE, "first")]
    measured = median(late) * 1e6 if late else None
    bare = f"bare aiohttp here: {number(results[BASE].middle('first'))}" if BASE in results else ""
    made.promise("the first piece, later than bare aiohttp", limit=150, measured=measured, unit="µs", beside=bare)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clients", nargs="+", choices=REQUIREMENTS, default=list(REQUIREMENTS))
    parser.add_argument("--here", action="store_true", help="run the clients in this environment, install nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each takes its turn (%(default)s)")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    pythons = {name: Path(sys.executable) if arguments.here else environment(name) for name in arguments.clients}
    plan = TINY if arguments.tiny else Plan(rounds=arguments.rounds)
    report(measure(pythons, plan), plan.crowd).finish(arguments.output)
    note(f"llm_overhead: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
