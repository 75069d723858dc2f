"""What is said of mutants: which tests judge a module, what counts as killed, and the page.

Making mutants needs mutmut, which belongs to `make bench`; the page does not."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
GUARDS = ROOT / "src" / "agentflow" / "core" / "robustness"


@pytest.fixture
def mutation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("mutation_page")


def test_every_guard_has_its_judges() -> None:
    """A module that nobody names in mutation.yml would never be tried."""
    judging = yaml.safe_load((ROOT / "benchmarks" / "mutation.yml").read_text("utf-8"))
    assert {file.stem for file in GUARDS.glob("*.py")} - {"__init__"} <= set(judging)
    assert not {file for files in judging.values() for file in files if not (ROOT / f"tests/core/{file}.py").exists()}


def test_a_reason_covers_what_answers_to_all_of_its_marks(mutation: ModuleType) -> None:
    mutant = mutation.Outcome(1, "Line.pop", 9, "if a < b:", "if a <= b:", "survived", 3)
    covering = [{"was": "a < b"}, {"within": "Line"}, {"within": "Line.pop", "now": "<="}]
    others = [{"was": "b < a"}, {"within": "Li"}, {"within": "Line.pop", "now": ">"}]
    assert all(mutation.Reason("why", **marks).covers(mutant) for marks in covering)
    assert not any(mutation.Reason("why", **marks).covers(mutant) for marks in others)


def test_what_hangs_is_killed_and_what_no_test_reaches_is_not(mutation: ModuleType) -> None:
    module = mutation.Module("turn", "", 16, None)
    for verdict in ("killed", "timed out", "survived", "not reached"):
        module.outcomes.append(mutation.Outcome(1, "", 1, "was", "now", verdict, 0))
    assert (module.killed, [each.verdict for each in module.survivors]) == (2, ["survived", "not reached"])


def test_the_page_says_what_was_run_and_why_each_survivor_lives(mutation: ModuleType, tmp_path: Path) -> None:
    turn = mutation.Module("turn", "of another text", 16, 7)
    turn.outcomes = [mutation.Outcome(n, "Turn", n, f"was {n}", "now", "killed", 1) for n in range(9)]
    turn.outcomes.append(mutation.Outcome(9, "Turn", 9, "a", "b", "survived", 1))
    mutation.keep(tmp_path / "mutation.json", {"turn": turn})
    modules = mutation.kept(tmp_path / "mutation.json")
    text = mutation.page(modules, {})
    assert "| turn | a sample, seed 7, of an earlier text | 16 | 10 | 9 | 1 | 90.0 % |" in text
    assert "`Turn`, line 9: `a` → `b`  \n  **nobody has said why**" in text
    assert mutation.status(modules, {}) == 1
    reasons = {"turn": [mutation.Reason("equivalent", was="a")]}
    assert "`a` → `b`  \n  equivalent" in mutation.page(modules, reasons)
    assert mutation.status(modules, reasons) == 0


def test_every_reason_is_of_a_guard_that_is_there(mutation: ModuleType) -> None:
    assert set(mutation.reasons()) <= {file.stem for file in GUARDS.glob("*.py")}
    assert all(reason.reason for reasons in mutation.reasons().values() for reason in reasons)
