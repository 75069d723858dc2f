"""What stands in the file of batch jobs, row by row, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentflow.mcp.performance.batching.jobs.states import Event, State

__all__ = ["Counts", "Entry", "JobRow", "NewRequest", "PartRow", "RequestRow", "RequestState", "SettledRow", "Settling"]

RequestState = Literal["open", "asking", "answered", "failed", "cancelled"]
"""`asking` is asked directly, just now or when the process died."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """Times are seconds since 1970. `digest` is the hash of all that it asks."""

    id: str
    model: str
    provider: str
    model_id: str
    created: float
    deadline: float | None
    tenant: str | None
    policy: str
    digest: str
    direct: float | None = None
    cancelled: float | None = None


@dataclass(frozen=True, slots=True)
class PartRow:
    """`intent` is when its submission was last intended, `asked` how often it was asked after without news, `due` when
    it is next, `hold` what is reserved for it in a budget, `rejected` the batches that turned out to be somebody
    else's."""

    id: str
    job: str
    number: int
    state: State
    requests: int
    file: str | None
    batch: str | None
    outcome: str | None
    intent: float | None
    submitted: float | None
    ended: float | None
    done: int | None
    failed: int | None
    asked: int
    due: float
    hold: str | None
    rejected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewRequest:
    """What is asked, as it goes over the wire and as we say it."""

    custom_id: str
    path: str
    body: bytes
    request: str


@dataclass(frozen=True, slots=True)
class RequestRow:
    seq: int
    custom_id: str
    path: str
    body: bytes
    request: str
    state: RequestState
    part: str | None
    attempts: int
    at_risk: bool


@dataclass(frozen=True, slots=True)
class Settling:
    """What became of a request. `billed` is False where it is known to have cost nothing."""

    seq: int
    state: RequestState
    via: Literal["batch", "direct"] | None = None
    answer: str | None = None
    error: str | None = None
    cost: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class SettledRow:
    seq: int
    custom_id: str
    state: RequestState
    via: str | None
    answer: str | None
    error: str | None
    cost: float | None
    attempts: int
    at_risk: bool
    billed_twice: bool
    settled: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a job's requests. `cost` is in USD, None where a price is unknown; `second_cost` is what was billed twice."""

    total: int
    open: int
    answered: int
    failed: int
    cancelled: int
    direct: int
    at_risk: int
    billed_twice: int
    cost: float | None
    second_cost: float


@dataclass(frozen=True, slots=True)
class Entry:
    """Of the journal. A decision that is about the whole job has no part, and no states."""

    at: float
    part: str | None
    event: Event | str
    old: State | None
    new: State | None
    reason: str
