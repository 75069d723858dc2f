"""What is read from the run store: a run, what was spent, how good it was, what is missing.

Times are seconds since 1970, durations seconds, costs US dollars. A cost is that of the calls whose price is known;
`unpriced` counts the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["By", "CostRow", "Feedback", "LossRecord", "Outcome", "RunRecord", "RunStatus"]

RunStatus: TypeAlias = Literal["running", "waiting", "done", "failed", "cancelled", "lost"]
"""`waiting` is parked, for an answer or a timer; `lost`: its process died before it was over."""

By: TypeAlias = Literal["model", "flow", "day", "provider", "tenant"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. `kind` is `flow`, or `call` for a question to a model outside of any flow.

    `seen` is when its last event happened, `duration` None while it goes on or waits: else from its first beginning to
    its last end. `stretches` counts how often it was begun or went on, `parked` the seconds between these, in which
    nobody ran it, up to its last beginning. `models` are the configured names of those
    that have answered.
    """

    id: str
    kind: Literal["flow", "call"]
    name: str
    status: RunStatus
    started: float
    seen: float
    duration: float | None
    error: str | None
    error_type: str | None
    tenant: str | None
    parent_run: str | None
    events: int
    calls: int
    failed_calls: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    breakdown: Mapping[str, float] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    pid: int = 0
    host: str = ""
    stretches: int = 1
    parked: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.status not in ("running", "waiting")

    @property
    def known_cost(self) -> float | None:
        """The cost as far as it is known; None where nothing of it is."""
        return _known(self.cost, self.calls - self.failed_calls, self.unpriced)


@dataclass(frozen=True, slots=True)
class CostRow:
    """What was spent on one model, flow, day (`2026-11-30`, local time), provider or tenant."""

    key: str
    calls: int
    failed_calls: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float

    @property
    def known_cost(self) -> float | None:
        """As of a run."""
        return _known(self.cost, self.calls - self.failed_calls, self.unpriced)


def _known(cost: float, answered: int, unpriced: int) -> float | None:
    """One call that is known to be free is enough for a cost of nothing to be known."""
    return None if unpriced and unpriced >= answered and not cost else cost


@dataclass(frozen=True, slots=True)
class Feedback:
    """How good a run's outcome was: `score` from 0 to 1, `source` is `user` or `checker`, `path` what it is about."""

    run_id: str
    time: float
    score: float | None
    label: str | None
    comment: str | None
    source: str | None
    path: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run, and one judgement of it."""

    run: RunRecord
    feedback: Feedback


@dataclass(frozen=True, slots=True)
class LossRecord:
    """Events that one process did not bring into the file, the first and the last of them at these times.

    The reasons are those of `RunStore.losses`; `note` says more where there is more to say.
    """

    reason: str
    events: int
    first: float
    last: float
    note: str
    pid: int
