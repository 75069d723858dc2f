"""What a model call costs the caller's process: AgentFlow, bare aiohttp, and five libraries one could take instead.

    python benchmarks/llm_overhead.py                                    makes .venvs/llm-… with pip, then measures
    python benchmarks/llm_overhead.py --here --clients agentflow aiohttp    in this environment

    this process ──commands──▶ one process a client, each in an environment of its own ──HTTP──▶ llm_server.py

The clients take turns and each measures the CPU of its own process (`llm_caller.py`); the server's is not counted. The
server answers in about 40 µs of its own, on loopback.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llm_measured import OURS, ROUNDS, TINY, Measured, Plan
from llm_report import report
from processes import allow_files, ask, heard, started
from results import ROOT, note, options

HERE = Path(__file__).resolve().parent
AIOHTTP = "aiohttp==3.14.5"
REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "agentflow": ("--editable", str(ROOT), AIOHTTP),
    "aiohttp": (AIOHTTP,),
    "openai": ("openai==3.54.0",),
    "any-llm": ("any-llm-sdk[openai,anthropic,gemini,moonshot]==1.40.2",),
    "pydantic-ai": ("pydantic-ai-slim[openai,anthropic,google]==2.68.0",),
    "langchain-openai": ("langchain-openai==1.7.4",),
    "litellm": ("litellm==1.106.2", AIOHTTP),
}
DISTRIBUTIONS = {"any-llm": "any-llm-sdk", "pydantic-ai": "pydantic-ai-slim"}
SPARE_FILES = 300


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
    if name == OURS:
        return ""
    code = f"from importlib.metadata import version; print(version({DISTRIBUTIONS.get(name, name)!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


class Lab:
    """The server, and the clients that are started to ask it."""

    def __init__(self, pythons: Mapping[str, Path], stack: ExitStack, files: int) -> None:
        self.pythons = pythons
        self.enough_files = allow_files(files)  # for all processes started from here
        self._server = stack.enter_context(started(sys.executable, str(HERE / "llm_server.py")))
        self._port = str(heard(self._server))

    def client(self, name: str, stack: ExitStack) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """A fresh process, and what it says of its start."""
        command = (str(self.pythons[name]), str(HERE / "llm_caller.py"), name, self._port)
        child = stack.enter_context(started(*command))
        return child, heard(child)

    def burst(self, child: subprocess.Popen[str], command: dict[str, Any]) -> dict[str, Any]:
        """What came of many calls at the same time, and how many of them the server had before it at once."""
        ask(self._server, do="peak")
        try:
            said = ask(child, **command)
        except (RuntimeError, OSError):
            said = {"answered": 0, "failed": command["calls"], "late": 0, "errors": {"the process ended": 1}}
        ended = bool(said["late"]) or "cpu" not in said
        return {**said, "held": ask(self._server, do="peak")["requests"], "ended": ended}


# ---- measuring ---------------------------------------------------------------------------------------------------


def measure(pythons: Mapping[str, Path], plan: Plan) -> dict[str, Measured]:
    results = {name: Measured(version=version(python, name)) for name, python in pythons.items()}
    with ExitStack() as stack:
        lab = Lab(pythons, stack, plan.most + SPARE_FILES)
        steps = {
            "starts": measure_starts,
            "calls and streams": measure_rounds,
            f"{plan.many:,} at once": measure_many,
            f"{plan.most:,} at once": measure_most,
        }
        for what, step in steps.items():
            begun = time.perf_counter()
            step(lab, plan, results)
            note(f"llm_overhead: {what}: {time.perf_counter() - begun:.0f} s")
    return results


def measure_starts(lab: Lab, plan: Plan, results: Mapping[str, Measured]) -> None:
    """Fresh processes: import, one call, and one call each through three further providers."""
    for _ in range(plan.starts):
        for name, result in results.items():
            with ExitStack() as stack:
                child, ready = lab.client(name, stack)
                result.starts.append({**ready, "four": ask(child, do="others")["resident"]})


def measure_rounds(lab: Lab, plan: Plan, results: Mapping[str, Measured]) -> None:
    with ExitStack() as stack:
        children = {name: lab.client(name, stack)[0] for name in results}
        for turn in range(-2, plan.rounds):  # two rounds to warm up, of which the slow take one
            for part, command in plan.parts().items():
                for name in list(children)[:: 1 if turn % 2 else -1]:
                    if plan.takes_part(name, turn):
                        said = ask(children[name], **command)
                        if turn >= 0:
                            results[name].note(turn, part, said)


def measure_many(lab: Lab, plan: Plan, results: Mapping[str, Measured]) -> None:
    """Bursts whose connections are open already: the first, which opens them, does not count."""
    with ExitStack() as stack:
        children = {name: lab.client(name, stack)[0] for name in results}
        for turn in range(-1, plan.many_turns):
            for name in [name for name in children if plan.takes_part(name, turn)][:: 1 if turn % 2 else -1]:
                said = lab.burst(children[name], plan.burst(plan.many, 0))
                if turn >= 0 or said["ended"]:
                    results[name].note_many(turn, said)
                if said["ended"]:
                    del children[name]


def measure_most(lab: Lab, plan: Plan, results: Mapping[str, Measured]) -> None:
    """One burst in a fresh process each, as large as may be; nothing is opened before."""
    if not lab.enough_files:
        note(f"llm_overhead: the hard limit of open files (ulimit -Hn) is below {plan.most + SPARE_FILES:,}")
        return
    for name, result in results.items():
        with ExitStack() as stack:
            result.most = lab.burst(lab.client(name, stack)[0], plan.burst(plan.most, plan.delay))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clients", nargs="+", choices=REQUIREMENTS, default=list(REQUIREMENTS))
    parser.add_argument("--here", action="store_true", help="run the clients in this environment, install nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each takes its turn (%(default)s)")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    pythons = {name: Path(sys.executable) if arguments.here else environment(name) for name in arguments.clients}
    plan = TINY if arguments.tiny else Plan(rounds=arguments.rounds)
    report(measure(pythons, plan), plan).finish(arguments.output)
    note(f"llm_overhead: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
