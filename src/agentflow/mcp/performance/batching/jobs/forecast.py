"""What a job's deadline means to it now: when it stops waiting, and how likely it is that it need not."""

from __future__ import annotations

from agentflow.mcp.performance.batching.jobs.chance import DAY, chance
from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy, Escape, plan_of_escape
from agentflow.mcp.performance.batching.jobs.rows import JobRow, PartRow
from agentflow.mcp.performance.batching.jobs.store import Store

__all__ = ["chance_of", "escape_of"]


def escape_of(store: Store, job: JobRow) -> Escape | None:
    """When it stops waiting; None where it has no deadline."""
    if job.deadline is None:
        return None
    remaining = store.counts(job.id).open
    return plan_of_escape(BatchPolicy.from_json(job.policy), job.deadline, created=job.created, remaining=remaining)


def chance_of(store: Store, job: JobRow, part: PartRow, now: float, window: float = DAY) -> float | None:
    """How likely it is that a part is done in time; None where it has no deadline."""
    escape = escape_of(store, job)
    if escape is None:
        return None
    waited = 0.0 if part.submitted is None else now - part.submitted
    durations = store.durations(job.provider, job.model_id)
    return chance(durations, waited=waited, left=escape.cancel - now, window=window)
