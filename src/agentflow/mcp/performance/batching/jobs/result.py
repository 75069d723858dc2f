"""What a batch job tells: of each request what became of it, and of the whole how far it is.

async for result in job.results():
    result.index, result.text, result.error, result.cost, result.via
job.status().answered, .open, .cost, .chance, .at_risk
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentflow.llm.messages import Response
from agentflow.mcp.performance.batching.jobs.outcomes import read_error, read_response
from agentflow.mcp.performance.batching.jobs.rows import Counts, JobRow, PartRow, SettledRow
from agentflow.mcp.performance.batching.jobs.states import FINAL, State

__all__ = ["BatchResult", "BatchStatus", "PartStatus", "result_of", "status_of"]

_ORDER = tuple(State)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of the request at `index` of those that were submitted: a `response` or an `error`.

    `via` says which way it was answered, None where it was not asked; `attempts` how often it was sent. `at_risk` says
    that it may be billed twice, `billed_twice` that it was.
    """

    index: int
    custom_id: str
    response: Response | None
    error: Exception | None
    via: Literal["batch", "direct"] | None
    attempts: int
    cost: float | None
    at_risk: bool = False
    billed_twice: bool = False

    @property
    def text(self) -> str:
        """The words of the answer. Raises the error where there is none."""
        if self.response is None:
            assert self.error is not None
            raise self.error
        return self.response.text


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One batch at the provider, or one that is to be. `done` and `failed` are what the provider counts."""

    name: str
    state: State
    requests: int
    batch: str | None
    done: int | None
    failed: int | None


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a job is. `state` is that of its part that is furthest behind; once all requests are settled it is
    collected, or cancelled, or failed where none was answered.

    `cost` is in USD and None where a price is unknown; `chance` is how likely it is that all batches are done in time,
    None without a deadline. `at_risk` counts requests that may be billed twice, `billed_twice` those that were, for
    `second_cost` USD. `open_parts` counts batches that the provider has not let go of.
    """

    id: str
    model: str
    provider: str
    state: State
    total: int
    open: int
    answered: int
    failed: int
    cancelled: int
    direct: int
    cost: float | None
    created: float
    deadline: float | None
    chance: float | None
    at_risk: int
    billed_twice: int
    second_cost: float
    parts: tuple[PartStatus, ...]

    @property
    def done(self) -> bool:
        """Whether every request is settled."""
        return not self.open

    @property
    def open_parts(self) -> int:
        return sum([part.state not in FINAL for part in self.parts])

    @property
    def likely_done(self) -> int:
        """Requests that are settled, or that the provider says it is done with."""
        running = [part for part in self.parts if part.state not in FINAL]
        return min(
            self.total, self.total - self.open + sum([(each.done or 0) + (each.failed or 0) for each in running])
        )


def result_of(row: SettledRow) -> BatchResult:
    return BatchResult(
        row.seq,
        row.custom_id,
        None if row.answer is None else read_response(row.answer),
        None if row.error is None else read_error(row.error),
        row.via,  # type: ignore[arg-type]
        row.attempts,
        row.cost,
        row.at_risk,
        row.billed_twice,
    )


def status_of(job: JobRow, parts: Sequence[PartRow], counts: Counts, chance: float | None) -> BatchStatus:
    return BatchStatus(
        job.id,
        job.model,
        job.provider,
        _state(parts, counts),
        counts.total,
        counts.open,
        counts.answered,
        counts.failed,
        counts.cancelled,
        counts.direct,
        counts.cost,
        job.created,
        job.deadline,
        chance,
        counts.at_risk,
        counts.billed_twice,
        counts.second_cost,
        tuple([_part(part) for part in parts]),
    )


def _part(part: PartRow) -> PartStatus:
    return PartStatus(part.id, part.state, part.requests, part.batch, part.done, part.failed)


def _state(parts: Sequence[PartRow], counts: Counts) -> State:
    if counts.open:
        living = [part.state for part in parts if part.state not in FINAL]
        return min(living, key=_ORDER.index, default=State.PLANNED)
    if counts.cancelled:
        return State.CANCELLED
    return State.COLLECTED if counts.answered or not counts.failed else State.FAILED
