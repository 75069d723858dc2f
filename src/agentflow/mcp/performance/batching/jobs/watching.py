"""From a batch at the provider to answers in the file: ask how it is, fetch what it says, plan what it left undone.

SUBMITTED ─▶ ENDED ─▶ COLLECTED · EXPIRED · CANCELLED · FAILED ─▶ a follow-up part with the failures alone
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from agentflow.errors import (
    AuthenticationError,
    BatchRefusedError,
    BatchRequestError,
    ModelError,
    NotFoundError,
    PermissionDeniedError,
)
from agentflow.llm.providers.batches.endpoint import Batch, BatchFault
from agentflow.mcp.performance.batching.jobs.collecting import Harvest, Leftover, collect
from agentflow.mcp.performance.batching.jobs.desk import Desk
from agentflow.mcp.performance.batching.jobs.outcomes import error_text
from agentflow.mcp.performance.batching.jobs.policy import parts_of, pause
from agentflow.mcp.performance.batching.jobs.rows import PartRow, RequestRow, Settling
from agentflow.mcp.performance.batching.jobs.states import Event, State

__all__ = ["runs_of", "watch"]

_LOOKS_AGAIN: Final = 3  # at answers that are not all there
_FULL: Final = frozenset({"token_limit_exceeded", "batch_limit_exceeded"})  # too much at once; later there is room
_FULL_FOR: Final = 5.0  # times the longest pause
_ENDS: Final = {
    "completed": Event.COLLECTED,
    "expired": Event.EXPIRED,
    "cancelled": Event.CANCELLED,
    "failed": Event.FAILED,
}


async def watch(desk: Desk, part: PartRow) -> AsyncGenerator[int, None]:
    """One step of a part that the provider has; yields how many requests it settled."""
    harvest = Harvest()
    try:
        batch = await _seen(desk, part)
        if batch is None:
            return
        if part.state is not State.ENDED:
            part = await desk.move(
                part,
                Event.ENDED,
                f"the provider says {batch.outcome}",
                ended=desk.now(),
                outcome=batch.outcome,
                done=batch.done,
                failed=batch.failed,
            )
        if batch.outcome == "failed" and not batch.results:  # there is nothing to fetch
            harvest.missing = desk.store.requests(desk.id, part=part.id, states=("open", "asking"))
        else:
            try:
                async with aclosing(collect(desk, part, batch, harvest)) as news:
                    async for settled in news:
                        yield settled
            except NotFoundError:  # its files are gone; what they held may have been paid for
                if part.asked < _LOOKS_AGAIN:
                    raise
                harvest.missing = desk.store.requests(desk.id, part=part.id, states=("open", "asking"))
    except ModelError as error:
        _again(desk, part, error)
        wrong_key = isinstance(error, AuthenticationError | PermissionDeniedError)
        if wrong_key or (not error.retryable and part.asked >= _LOOKS_AGAIN):
            raise  # time does not mend it; the part waits in the file until somebody does
        return
    if harvest.missing and batch.outcome == "completed" and part.asked < _LOOKS_AGAIN:
        _again(desk, part)  # perhaps the file is not whole yet
        return
    yield await _close(desk, part, batch, harvest)


async def _seen(desk: Desk, part: PartRow) -> Batch | None:
    """The batch, if it has ended."""
    assert part.batch is not None
    try:
        batch = await desk.endpoint.check(part.batch)
    except NotFoundError:
        return Batch(part.batch, outcome="failed")  # deleted, or too old: it has nothing to say any more
    if batch.outcome is None:
        if part.state is State.CANCELLING:
            await desk.endpoint.cancel(part.batch)  # the wish may have been lost
        news = (batch.done, batch.failed) != (part.done, part.failed)
        asked = 0 if news else part.asked + 1
        due = desk.now() + pause(desk.policy, asked, desk.clock.random())
        desk.store.note(part, due=due, asked=asked, done=batch.done, failed=batch.failed)
        return None
    return batch


def _again(desk: Desk, part: PartRow, error: ModelError | None = None) -> None:
    seconds = pause(desk.policy, part.asked, desk.clock.random())
    if error is not None and error.retry_after is not None:
        seconds = max(seconds, error.retry_after)
    desk.store.note(part, due=desk.now() + seconds, asked=part.asked + 1)


# ---- the end -------------------------------------------------------------------------------------------------


async def _close(desk: Desk, part: PartRow, batch: Batch, harvest: Harvest) -> int:
    """The part's last state, with what is left of it planned anew in the same breath."""
    job = desk.job
    left = [*harvest.leftovers, *_missing(desk, part, batch, harvest.missing), *_called_off(desk, harvest.cancelled)]
    again = [each for each in left if job.cancelled is None and _is_asked_again(desk, each)]
    final = [each for each in left if each not in again]
    full = any(fault.code in _FULL for fault in batch.faults)
    rows = [each.row for each in again]
    most = -(-part.requests // 2) if full else part.requests  # what was too much at once goes in halves
    direct = job.direct is not None or _was_called_off(desk, part)
    settled = [_final(desk, each, job.cancelled is not None) for each in final]
    await desk.settle(part)
    desk.store.finish(
        part,
        _ENDS[batch.outcome or "completed"],
        at=desk.now(),
        reason=_told(batch, harvest, len(again)),
        settled=settled,
        again=[row.seq for row in rows],
        at_risk=[each.row.seq for each in left if each.at_risk],
        counted=not direct and all(each.tried for each in again),
        follow_up=[] if direct else [[row.seq for row in run] for run in runs_of(desk, rows, most)],
        due=desk.now() + _FULL_FOR * desk.policy.poll_most if full else 0.0,
    )
    await desk.told(part, desk.store.part(part.id), _told(batch, harvest, len(again)))
    return len(settled)


def _was_called_off(desk: Desk, part: PartRow) -> bool:
    """Whether it was cancelled because a deadline was near: what is left of it has no time for another batch."""
    return any(entry.part == part.id and entry.event == Event.CANCEL for entry in desk.store.journal(desk.id))


def _missing(desk: Desk, part: PartRow, batch: Batch, rows: Sequence[RequestRow]) -> list[Leftover]:
    """Requests of which the batch says nothing. One that was refused or is gone has worked on none of them, or nobody
    knows; one that has ended well has lost answers that may have been paid for."""
    if batch.faults:
        blamed = {fault.index: fault for fault in batch.faults}
        every = None if any(index is not None for index in blamed) else blamed[None]
        places = {row.seq: at for at, row in enumerate(desk.store.requests(desk.id, part=part.id))}
        return [_refusal(desk, row, blamed.get(places[row.seq]) or every) for row in rows]
    error = BatchRequestError("missing", "the batch ended without a word of this request", job=desk.id)
    if batch.outcome == "expired":
        error = BatchRequestError("expired", "the provider's time was up before all was done", job=desk.id)
    risky = batch.outcome != "expired"
    return [Leftover(row, error, worth_repeating=True, at_risk=risky) for row in rows]


def _refusal(desk: Desk, row: RequestRow, fault: BatchFault | None) -> Leftover:
    if fault is None:
        told = BatchRequestError("failed", "the batch was refused for another of its requests", job=desk.id)
        return Leftover(row, told, worth_repeating=True, tried=False)
    error = BatchRefusedError(f"the provider refuses it: {fault.message}", job=desk.id, code=fault.code)
    return Leftover(row, error, worth_repeating=fault.code in _FULL)


def _called_off(desk: Desk, rows: Sequence[RequestRow]) -> list[Leftover]:
    error = BatchRequestError("cancelled", "the batch was cancelled before it came to this request", job=desk.id)
    return [Leftover(row, error, worth_repeating=True, tried=False) for row in rows]


def _is_asked_again(desk: Desk, left: Leftover) -> bool:
    return left.worth_repeating and (not left.tried or left.row.attempts < desk.policy.attempts)


def _final(desk: Desk, left: Leftover, cancelled: bool) -> Settling:
    if cancelled and left.worth_repeating:
        told = BatchRequestError("cancelled", "the job was cancelled before this request was answered", job=desk.id)
        return Settling(left.row.seq, "cancelled", "batch", error=error_text(told))
    return Settling(left.row.seq, "failed", "batch", error=error_text(left.error))


def _told(batch: Batch, harvest: Harvest, again: int) -> str:
    told = [f"its answers are collected ({batch.outcome})"]
    told += [f"{again} are asked again"] * bool(again)
    told += [f"{harvest.twice} came twice"] * bool(harvest.twice)
    told += [f"{harvest.unknown} were for nobody here"] * bool(harvest.unknown)
    told += [f"{len(harvest.missing)} are missing"] * bool(harvest.missing)
    return ", ".join(told + [fault.message for fault in batch.faults[:3]])


def runs_of(desk: Desk, rows: Sequence[RequestRow], most: int) -> list[list[RequestRow]]:
    """Requests as parts that the provider takes, of `most` requests at most."""
    sizes = [len(row.body) for row in rows]
    return [[rows[at] for at in run] for run in parts_of(sizes, desk.endpoint.limits, desk.policy, most)]
