"""Would the tests of `core/robustness` notice a mistake? Thousands are made on purpose, one at a time.

    python benchmarks/mutation.py                                 a seeded sample of every module
    python benchmarks/mutation.py buckets retry --all             every mutant of two modules
    python benchmarks/mutation.py buckets --survivors             those that survived last time, once more
    python benchmarks/mutation.py --page --write docs/mutation.md      the page, of what was found before

Results are kept by module in build/benchmarks/mutation.json, so that modules can be run one by one; a module whose text
has changed since says so on the page. Which tests judge a module says `mutation.yml`; why a mutant may survive says
`mutation_reasons.yml`. The status is 1 if too few were killed, or if one survived and nobody wrote down why.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final

import yaml

from mutant_runs import Court, Running, Test
from mutants import Mutant, mutants_of
from results import ROOT, Table, machine, note, options

PACKAGE: Final = "agentflow.core.robustness"
HERE: Final = Path(__file__).resolve().parent
PROMISED: Final = 0.85
KILLED: Final = frozenset({"killed", "timed out"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """A mutant and what became of it; `judges`: how many tests execute the place."""

    number: int
    within: str
    line: int
    was: str
    now: str
    verdict: str
    judges: int

    @property
    def survived(self) -> bool:
        return self.verdict not in KILLED


@dataclass(slots=True)
class Module:
    """What is known of a module's mutants: `count` there are, and those in `outcomes` were run."""

    name: str
    digest: str
    count: int
    seed: int | None
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def survivors(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.survived]

    @property
    def killed(self) -> int:
        return len(self.outcomes) - len(self.survivors)


# ---- running ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """`sample`: mutants of each module, None for all of them; `workers`: processes at once."""

    sample: int | None
    seed: int
    workers: int
    survivors: bool


class Bench:
    """Runs modules before their judges; a file of tests has one baseline, whoever asks for it."""

    def __init__(self, court: Court, plan: Plan) -> None:
        self.court, self.plan = court, plan
        self.judging: dict[str, list[str]] = yaml.safe_load((HERE / "mutation.yml").read_text())
        self.files: dict[str, list[Test]] = {}

    def run(self, name: str, before: Module | None) -> Module:
        text = self.court.file(f"{PACKAGE}.{name}").read_text("utf-8")
        tests = [test for file in self.judging[name] for test in self.tests(file)]
        if self.plan.survivors and before is not None:
            return self.again(before, text, tests)
        random = Random(f"{self.plan.seed}/{name}")
        mutants, count = mutants_of(text, sample=self.plan.sample, random=random)
        seed = self.plan.seed if len(mutants) < count else None
        module = Module(name, digest(text), count, seed)
        module.outcomes = sorted(self.judged(name, mutants, tests), key=lambda each: each.number)
        return module

    def again(self, before: Module, text: str, tests: Sequence[Test]) -> Module:
        """Those that survived, found by what they change; one whose place is no more is forgotten."""
        known = {(each.within, each.was, each.now) for each in before.survivors}
        mutants, count = mutants_of(text)
        wanted = [each for each in mutants if (each.within, each.was, each.now) in known]
        judged = list(self.judged(before.name, wanted, tests))
        kept = [each for each in before.outcomes if not each.survived]
        outcomes = sorted([*kept, *judged], key=lambda each: each.number)
        return replace(before, digest=digest(text), count=count, outcomes=outcomes)

    def tests(self, file: str) -> list[Test]:
        if file not in self.files:
            self.files[file] = self.court.baseline(PACKAGE, f"tests/core/{file}.py")
        return self.files[file]

    def judged(self, name: str, mutants: Sequence[Mutant], tests: Sequence[Test]) -> Iterator[Outcome]:
        """Several at once; each outcome as it is known."""
        module, waiting = f"{PACKAGE}.{name}", list(reversed(mutants))
        running: list[tuple[Running, Mutant, int]] = []
        while waiting or running:
            while waiting and len(running) < self.plan.workers:
                mutant = waiting.pop()
                judges = self.court.judges(tests, module, mutant)
                if judges:
                    running.append((self.court.begin(module, mutant, judges), mutant, len(judges)))
                else:
                    yield outcome(mutant, "not reached", 0)
            for entry in list(running):
                if (verdict := entry[0].verdict()) is not None:
                    running.remove(entry)
                    yield outcome(entry[1], verdict, entry[2])
            time.sleep(0.01)


def outcome(mutant: Mutant, verdict: str, judges: int) -> Outcome:
    return Outcome(mutant.number, mutant.within, mutant.line, mutant.was, mutant.now, verdict, judges)


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


# ---- what is kept ----------------------------------------------------------------------------------------------------


def kept(file: Path) -> dict[str, Module]:
    if not file.exists():
        return {}
    modules = [Module(**entry) for entry in json.loads(file.read_text("utf-8"))["modules"]]
    for module in modules:
        module.outcomes = [Outcome(**entry) for entry in module.outcomes]  # type: ignore[arg-type]
    return {module.name: module for module in modules}


def keep(file: Path, modules: dict[str, Module]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    found = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine()}
    document = found | {"modules": [asdict(modules[name]) for name in sorted(modules)]}
    file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")


# ---- the page --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """Why mutants that answer to all of its marks may live: `within` a function, `was` and `now` hold these words."""

    reason: str
    within: str = ""
    was: str = ""
    now: str = ""

    def covers(self, mutant: Outcome) -> bool:
        inside = not self.within or mutant.within == self.within or mutant.within.startswith(f"{self.within}.")
        return inside and self.was in mutant.was and self.now in mutant.now


def reasons() -> dict[str, list[Reason]]:
    document = yaml.safe_load((HERE / "mutation_reasons.yml").read_text("utf-8")) or {}
    return {name: [Reason(**entry) for entry in entries] for name, entries in document.items()}


def reason_of(mutant: Outcome, known: Sequence[Reason]) -> str | None:
    return next((each.reason for each in known if each.covers(mutant)), None)


PAGE: Final = """# Mutation testing

Written by `benchmarks/mutation.py`. It changes one small thing of a module of `core/robustness` at a time, and runs the
tests that execute that statement: a mutant that fails a test is killed, and so is one that never ends (20 s of CPU). A
mutant that survives is a change that no test notices: either nobody could, or a test is missing. Promised: ≥ 85 %
killed.

Mutants are made by mutmut's operators (numbers, strings, comparisons, arithmetic, `and`/`or`, `is`, `in`, assignments,
arguments, lambdas, `break`, conditional expressions), applied to decorated functions and class bodies too, and by three
more: a condition turned round, a call left out, None returned. Left alone are types, `__all__`, `__slots__`, and the
wording of the errors in `raise`. Hypothesis draws at most 20 examples here, the same ones each time: `make test` draws
more, and is harder to fool.
"""


def page(modules: dict[str, Module]) -> str:
    known = reasons()
    ordered = [modules[name] for name in sorted(modules)]
    count, run, killed = (sum(numbers) for numbers in zip(*(sizes(each) for each in ordered), strict=True))
    rows = [row(module) for module in ordered]
    rows.append(["**all**", "", f"{count:,}", f"{run:,}", f"{killed:,}", f"{run - killed:,}", share(killed, run)])
    columns = ["module", "what was run", "mutants", "run", "killed", "survived", "score"]
    table = Table("", columns, rows).markdown().removeprefix("### \n\n")
    parts = [PAGE.strip(), "## What was killed", table, "## What survived, and why", *survivors(ordered, known)]
    return "\n\n".join([*parts, f"Run on {machine()}."]) + "\n"


def sizes(module: Module) -> tuple[int, int, int]:
    return module.count, len(module.outcomes), module.killed


def row(module: Module) -> list[str]:
    count, run, killed = sizes(module)
    what = "all" if module.seed is None else f"a sample, seed {module.seed}"
    if digest((ROOT / "src" / PACKAGE.replace(".", "/") / f"{module.name}.py").read_text("utf-8")) != module.digest:
        what += ", of an earlier text"
    return [module.name, what, f"{count:,}", f"{run:,}", f"{killed:,}", f"{run - killed:,}", share(killed, run)]


def share(killed: int, run: int) -> str:
    return f"{100 * killed / run:.1f} %" if run else "–"


def survivors(modules: Sequence[Module], known: dict[str, list[Reason]]) -> Iterator[str]:
    for module in modules:
        if module.survivors:
            yield f"### {module.name}"
            yield "\n".join(survivor(each, known.get(module.name, [])) for each in module.survivors)


def survivor(mutant: Outcome, known: Sequence[Reason]) -> str:
    place = f"`{mutant.within}`, " if mutant.within else ""
    reason = reason_of(mutant, known) or "**nobody has said why**"
    return f"- {place}line {mutant.line}: {code(mutant.was)} → {code(mutant.now)}  \n  {reason}"


def code(text: str) -> str:
    """As Markdown shows it; a long statement is cut."""
    text = text if len(text) <= 160 else f"{text[:157]}…"
    return f"`` {text} ``" if "`" in text else f"`{text or ' '}`"


# ---- the command line ------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="those to run (all that mutation.yml names)")
    parser.add_argument("--sample", type=int, default=12, metavar="N", help="mutants of each module (%(default)s)")
    parser.add_argument("--all", action="store_true", help="every mutant, which takes hours for all modules")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at once (%(default)s)")
    parser.add_argument("--survivors", action="store_true", help="only those that survived last time")
    parser.add_argument("--tree", type=Path, default=ROOT, help="whose modules and tests (this checkout: %(default)s)")
    parser.add_argument("--page", action="store_true", help="run nothing, show what is known")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there instead of printing it")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    file = chosen.output / "mutation.json"
    modules = kept(file)
    if not chosen.page:
        plan = Plan(
            None if chosen.all else 1 if chosen.tiny else chosen.sample, chosen.seed, chosen.workers, chosen.survivors
        )
        with Court.opened(chosen.tree) as court:
            bench = Bench(court, plan)
            for name in chosen.modules or bench.judging:
                modules[name] = bench.run(name, modules.get(name))
                keep(file, modules)
                note(f"{name}: {modules[name].killed} of {len(modules[name].outcomes)} killed")
    if chosen.write:
        chosen.write.write_text(page(modules), "utf-8")
    else:
        print(page(modules), end="")
    return status(modules)


def status(modules: dict[str, Module]) -> int:
    """1 if too few were killed, or if nobody has said why one survived."""
    known = reasons()
    run, killed = sum(len(each.outcomes) for each in modules.values()), sum(each.killed for each in modules.values())
    silent = [
        mutant
        for module in modules.values()
        for mutant in module.survivors
        if reason_of(mutant, known.get(module.name, [])) is None
    ]
    return int(bool(silent) or killed < PROMISED * run)


if __name__ == "__main__":
    sys.exit(main())
