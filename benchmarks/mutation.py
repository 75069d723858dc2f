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
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import yaml

from mutant_runs import Court, Running, Test
from mutants import Mutant, mutants_of
from mutation_page import PACKAGE, Module, Outcome, digest, keep, kept, page, reasons, status
from results import ROOT, note, options

JUDGING: Final = Path(__file__).resolve().parent / "mutation.yml"


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
        self.judging: dict[str, list[str]] = yaml.safe_load(JUDGING.read_text("utf-8"))
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
        """Those that survived; in a text that has changed since they are found by what they change, and the page goes
        on to say of which text the others were."""
        same = digest(text) == before.digest
        known = {_mark(each, same) for each in before.survivors}
        wanted = [each for each in mutants_of(text)[0] if _mark(each, same) in known]
        judged = list(self.judged(before.name, wanted, tests))
        killed = [each for each in before.outcomes if not each.survived]
        return replace(before, outcomes=sorted([*killed, *judged], key=lambda each: each.number))

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


def _mark(mutant: Mutant | Outcome, same: bool) -> tuple[object, ...]:
    """By what it is known again, in the same text or in another one."""
    return (mutant.number,) if same else (mutant.within, mutant.was, mutant.now)


def outcome(mutant: Mutant, verdict: str, judges: int) -> Outcome:
    return Outcome(mutant.number, mutant.within, mutant.line, mutant.was, mutant.now, verdict, judges)


# ---- the command line ------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="those to run (all that mutation.yml names)")
    parser.add_argument("--sample", type=int, default=30, metavar="N", help="mutants of each module (%(default)s)")
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
    left_out = False
    if not chosen.page:
        plan = Plan(
            None if chosen.all else 1 if chosen.tiny else chosen.sample, chosen.seed, chosen.workers, chosen.survivors
        )
        with Court.opened(chosen.tree) as court:
            bench = Bench(court, plan)
            for name in chosen.modules or bench.judging:
                try:
                    modules[name] = bench.run(name, modules.get(name))
                except (RuntimeError, FileNotFoundError) as error:
                    note(f"{name}: not run. {error}")
                    left_out = True
                    continue
                keep(file, modules)
                note(f"{name}: {modules[name].killed} of {len(modules[name].outcomes)} killed")
    known = reasons()
    text = page(modules, known, chosen.tree)
    if chosen.write:
        chosen.write.write_text(text, "utf-8")
    else:
        print(text, end="")
    return int(left_out) or status(modules, known)


if __name__ == "__main__":
    sys.exit(main())
