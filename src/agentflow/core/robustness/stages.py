"""The stages of a pipeline, in the one order there is: what each is called, and why it stands where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

__all__ = ["STAGES", "Stage", "described", "odd_order"]


@dataclass(frozen=True, slots=True)
class Stage:
    """`each` is true of what every attempt passes anew."""

    name: str
    title: str
    why: str
    each: bool = False


STAGES: Final[Sequence[Stage]] = (
    Stage("timeout", "total time-out", "it bounds everything: attempts, the waits between them, queues"),
    Stage("shed", "load shedder", "what is refused shall cost nothing, so it is asked before anything is taken"),
    Stage("hedge", "hedge", "each of the calls that race has its own attempts"),
    Stage("retry", "retry", "each attempt is limited, counted by the breaker and timed for itself"),
    Stage("limit", "rate limiter", "each attempt is a request, so each takes its share and waits its turn", each=True),
    Stage("pool", "resource pool", "it waits, so it comes before the breaker's permit", each=True),
    Stage("breaker", "circuit breaker", "its permit is taken last: none is held while something waits", each=True),
    Stage("attempt_timeout", "attempt time-out", "it begins when the call does, not while it queues", each=True),
    Stage("faults", "fault injector", "to all other stages a fault looks like one of the call", each=True),
)
_ORDER: Final = {stage.name: number for number, stage in enumerate(STAGES)}


def odd_order(names: Sequence[str]) -> str | None:
    """What is odd about stages named in this order, and what happens instead; None where nothing is."""
    for before, after in pairwise(names):
        if _ORDER[after] < _ORDER[before]:
            stage = STAGES[_ORDER[after]]
            right = " → ".join(sorted(names, key=_ORDER.__getitem__))
            return f"{after} was named after {before}, but it comes before it: {stage.why}. What runs is {right} → call"
    return None


def described(name: str, guards: Mapping[str, object]) -> str:
    """Every stage that there is, one a line, as the call passes them."""
    lines = [name]
    attempts = False
    for stage in STAGES:
        guard = guards.get(stage.name)
        if guard is None:
            continue
        if stage.each and not attempts:
            attempts = True
            lines.append("  each attempt:")
        lines.append(f"{'    ' if stage.each else '  '}{stage.title:<18}{_told(stage, guard, guards)}")
    lines.append(f"{'    ' if attempts else '  '}the call")
    return "\n".join(lines)


def _told(stage: Stage, guard: object, guards: Mapping[str, object]) -> str:
    if isinstance(guard, float | int):
        return f"{guard:g} s"
    told = str(getattr(guard, "summary", None) or guard)
    budget = guards.get("budget") if stage.name == "retry" else None
    return told if budget is None else f"{told}; {getattr(budget, 'summary', budget)}"
