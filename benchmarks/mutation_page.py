"""What became of the mutants of `core/robustness`: kept as JSON, module by module, and shown as docs/mutation.md.

modules = kept(file)                     what was found before
keep(file, modules)
page(modules, reasons)                   a table, and each survivor with the reason why it may live
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import yaml

from results import ROOT, Table, machine

PACKAGE: Final = "agentflow.core.robustness"
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
    document = yaml.safe_load((Path(__file__).resolve().parent / "mutation_reasons.yml").read_text("utf-8")) or {}
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
more: a condition turned round, a call left out, None returned. Left alone are types, protocols, `__all__`, `__slots__`,
and the wording of the errors in `raise`. Hypothesis draws at most 20 examples here, the same ones each time: `make
test` draws more, and is harder to fool.

Tests have been written since against what survived in samples with seed 1, so that these score higher than the modules
as a whole would: another seed (`--seed 2`) says how much.
"""


def page(modules: Mapping[str, Module], known: Mapping[str, Sequence[Reason]], tree: Path = ROOT) -> str:
    ordered = [modules[name] for name in sorted(modules)]
    count, run, killed = (sum(numbers) for numbers in zip(*(sizes(each) for each in ordered), strict=True))
    rows = [row(module, tree) for module in ordered]
    rows.append(["**all**", "", f"{count:,}", f"{run:,}", f"{killed:,}", f"{run - killed:,}", share(killed, run)])
    columns = ["module", "what was run", "mutants", "run", "killed", "survived", "score"]
    table = Table("", columns, rows).markdown().removeprefix("### \n\n")
    parts = [PAGE.strip(), "## What was killed", table, "## What survived, and why", *survivors(ordered, known)]
    return "\n\n".join([*parts, f"Run on {datetime.now(UTC):%Y-%m-%d} on {machine()}."]) + "\n"


def sizes(module: Module) -> tuple[int, int, int]:
    return module.count, len(module.outcomes), module.killed


def row(module: Module, tree: Path) -> list[str]:
    count, run, killed = sizes(module)
    what = "all" if module.seed is None else f"a sample, seed {module.seed}"
    file = tree / "src" / PACKAGE.replace(".", "/") / f"{module.name}.py"
    if not file.exists() or digest(file.read_text("utf-8")) != module.digest:
        what += ", of an earlier text"
    return [module.name, what, f"{count:,}", f"{run:,}", f"{killed:,}", f"{run - killed:,}", share(killed, run)]


def share(killed: int, run: int) -> str:
    return f"{100 * killed / run:.1f} %" if run else "–"


def survivors(modules: Sequence[Module], known: Mapping[str, Sequence[Reason]]) -> Iterator[str]:
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


# ---- the verdict -----------------------------------------------------------------------------------------------------


def status(modules: Mapping[str, Module], known: Mapping[str, Sequence[Reason]]) -> int:
    """1 if too few were killed, or if nobody has said why one survived."""
    run, killed = sum(len(each.outcomes) for each in modules.values()), sum(each.killed for each in modules.values())
    silent = [
        mutant
        for module in modules.values()
        for mutant in module.survivors
        if reason_of(mutant, known.get(module.name, [])) is None
    ]
    return int(bool(silent) or killed < PROMISED * run)
