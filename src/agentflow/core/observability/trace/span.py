"""What a trace is made of: spans, which began and ended, and marks, which happened at one moment in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from agentflow.core.observability.attribution import Parts

__all__ = ["Mark", "Span", "Status"]

Status: TypeAlias = Literal["done", "failed", "cancelled", "refused", "running", "waiting", "parked", "lost", "unknown"]
"""How something stands: "waiting" is parked, "parked" was, in a run that has gone on since; "lost" was at work when its
process died, in a run that has gone on since; "unknown" where its run is over and nobody said how it ended."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one moment: a retry, a wait that is over, a breaker that opened."""

    kind: str
    at: float
    number: int = 0
    attempt: int = 1
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """Something that began and ended. Times are seconds since the run began; `end` is when it ended, or the last that
    is known of a run where it has not.

    `what` is flow, node, model, attempt, tool, compensate or pause, or the user's own word. `data` holds what its first
    and its last event said, `breakdown` the seconds by what they were spent on. `number` names it, `parent` what is
    around it.
    """

    number: int
    parent: int | None
    what: str
    name: str
    path: str
    start: float
    end: float
    status: Status
    attempt: int = 1
    visit: int = 1
    item: int | None = None
    """Which item of an `Each` it is the work for, from 0."""
    data: Mapping[str, object] = field(default_factory=dict)
    breakdown: Parts = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    children: tuple[Span, ...] = ()

    @property
    def duration(self) -> float:
        return self.end - self.start

    @property
    def error(self) -> str | None:
        """What went wrong in it, in words."""
        said = self.data.get("error")
        return None if said is None else str(said)

    @property
    def is_open(self) -> bool:
        return self.status in ("running", "unknown")

    @property
    def is_cut_short(self) -> bool:
        """Whether it ended with its stretch of the run, so that it ran again in a later one, and counts there."""
        return self.status in ("parked", "lost")

    def walk(self) -> Iterator[Span]:
        """It and all that happened inside, from the outside in, in order."""
        waiting: list[Span] = [self]
        while waiting:
            span = waiting.pop()
            yield span
            waiting.extend(reversed(span.children))
