"""From a planned part to a batch at the provider, and never to two: intend, act, and ask before acting again.

    PLANNED ─▶ UPLOADING ─▶ UPLOADED ─▶ SUBMITTING ─▶ SUBMITTED
                   │ a crash, or no clear answer  │
                   └──── is it there? ────────────┴── yes: go on with it · no, and time enough has passed: again

What the provider answers to `create` is either clear (accepted, or refused with a status below 500) or not: a time-out,
a broken connection, a 5xx. Not clear means that it may have the batch, so the part stays SUBMITTING and is looked for.
"""

from __future__ import annotations

from typing import Final

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    BatchRefusedError,
    ModelError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)
from agentflow.llm.providers.batches.endpoint import Batch, BatchOrder
from agentflow.mcp.performance.batching.jobs.desk import Desk
from agentflow.mcp.performance.batching.jobs.outcomes import error_text
from agentflow.mcp.performance.batching.jobs.policy import pause
from agentflow.mcp.performance.batching.jobs.rows import PartRow, Settling
from agentflow.mcp.performance.batching.jobs.states import Event, State

__all__ = ["send"]

_NOT_NOW: Final = (AuthenticationError, PermissionDeniedError, QuotaExceededError)
_NEVER: Final = (BadRequestError, NotFoundError)


async def send(desk: Desk, part: PartRow) -> None:
    """One step of a part that is not yet SUBMITTED. Raises the ModelError that keeps anything from being sent: a wrong
    key, no money left; the part waits until it is mended."""
    order = desk.order(part)
    if part.state is State.PLANNED:
        if part.file is None and desk.endpoint.takes_file(order):
            part = await desk.move(part, Event.UPLOAD, "its file is uploaded next", intent=desk.now())
            await _upload(desk, part, order)
        else:
            await _submit(desk, part, order)
    elif part.state is State.UPLOADED:
        await _submit(desk, part, order)
    elif part.state is State.UPLOADING:
        await _look_for_file(desk, part, order)
    else:
        await _look_for_batch(desk, part, order)


# ---- the file ------------------------------------------------------------------------------------------------


async def _upload(desk: Desk, part: PartRow, order: BatchOrder) -> None:
    try:
        file = await desk.endpoint.upload(order)
    except _NOT_NOW:
        await desk.move(part, Event.ABSENT, "the provider lets nothing be uploaded")
        raise
    except _NEVER as error:
        found = await desk.endpoint.find_upload(order, since=_since(desk, part))
        if found is None:
            await _refused(desk, part, error)
        else:  # an earlier attempt has uploaded it, and there cannot be two of one name
            await desk.move(part, Event.UPLOADED, "its file was there already", file=found)
    except ModelError as error:
        _wait(desk, part, error)
    else:
        await desk.move(part, Event.UPLOADED, "its file is at the provider", file=file)


async def _look_for_file(desk: Desk, part: PartRow, order: BatchOrder) -> None:
    """A file costs nothing, so one that shows itself too late is only in the way."""
    try:
        file = await desk.endpoint.find_upload(order, since=_since(desk, part))
    except ModelError as error:
        _wait(desk, part, error)
        return
    if file is None:
        await desk.move(part, Event.ABSENT, "its file did not arrive")
    else:
        await desk.move(part, Event.UPLOADED, "its file had arrived", file=file)


# ---- the batch -----------------------------------------------------------------------------------------------


async def _submit(desk: Desk, part: PartRow, order: BatchOrder) -> None:
    hold = await desk.hold(part)
    part = await desk.move(part, Event.SUBMIT, "it is submitted next", intent=desk.now(), hold=hold)
    try:
        batch = await desk.endpoint.create(order, part.file)
    except _NOT_NOW:
        await desk.move(part, Event.ABSENT, "the provider lets nothing be submitted")
        raise
    except _NEVER as error:
        await _refused(desk, part, error)
    except RateLimitError as error:
        back = await desk.move(part, Event.ABSENT, "the provider takes no batch just now")
        _wait(desk, back, error)
    except ModelError as error:
        _wait(desk, part, error)
    else:
        await _accepted(desk, part, batch, "the provider has accepted it")


async def _look_for_batch(desk: Desk, part: PartRow, order: BatchOrder) -> None:
    try:
        await _recognise(desk, part, order)
    except ModelError as error:
        _wait(desk, part, error)


async def _recognise(desk: Desk, part: PartRow, order: BatchOrder) -> None:
    """Which of the provider's batches is this part, if any: by our name, or by its answers once there are some."""
    known = desk.store.batches() | set(part.rejected)
    found = [batch for batch in await desk.endpoint.find(order, since=_since(desk, part)) if batch.id not in known]
    ours = [batch for batch in found if batch.certain]
    for batch in found:
        if not batch.certain and batch.outcome is not None:
            if await _answers(desk, order, batch):
                ours.append(batch)
            else:
                desk.store.reject(part, batch.id)
    if ours:
        await _adopt(desk, part, ours)
    elif any(batch.outcome is None for batch in found):
        _wait(desk, part)  # one that may be ours is still running, and tells when it ends
    elif desk.now() - (part.intent or 0.0) < desk.policy.settle:
        _wait(desk, part)  # it may be on its way
    else:
        await desk.move(part, Event.ABSENT, "the provider has no batch of it", intent=None)


async def _adopt(desk: Desk, part: PartRow, ours: list[Batch]) -> None:
    """Go on with the oldest. More than one there is only where something between us and the provider repeats calls."""
    for surplus in ours[1:]:
        await desk.endpoint.cancel(surplus.id)
        desk.store.risk(desk.id, [row.seq for row in desk.store.requests(desk.id, part=part.id)])
    await _accepted(desk, part, ours[0], "the provider had it already")


async def _answers(desk: Desk, order: BatchOrder, batch: Batch) -> bool:
    """Whether the answers of a batch are to this order."""
    names = {name for name, _ in order.items}
    async for answer in desk.endpoint.answers(batch):
        return answer.custom_id in names
    return False


async def _accepted(desk: Desk, part: PartRow, batch: Batch, reason: str) -> None:
    """Its time runs from when it was intended: nobody knows better, after a crash."""
    now = desk.now()
    due = now if batch.outcome is not None else now + pause(desk.policy, 0, desk.clock.random())
    await desk.move(part, Event.ACCEPTED, reason, batch=batch.id, submitted=part.intent or now, due=due)


async def _refused(desk: Desk, part: PartRow, error: ModelError) -> None:
    """The provider will not have it, however often it is asked."""
    told = BatchRefusedError(f"the provider refuses the batch: {error}", job=desk.id, code=error.code)
    rows = desk.store.requests(desk.id, part=part.id, states=("open", "asking"))
    settled = [Settling(row.seq, "failed", "batch", error=error_text(told)) for row in rows]
    await desk.settle(part)
    desk.store.finish(part, Event.REFUSED, at=desk.now(), reason=str(error), settled=settled)
    await desk.told(part, desk.store.part(part.id), str(error))


# ---- time ----------------------------------------------------------------------------------------------------


def _since(desk: Desk, part: PartRow) -> float:
    return (part.intent or 0.0) - desk.policy.skew


def _wait(desk: Desk, part: PartRow, error: ModelError | None = None) -> None:
    """Look again in a while."""
    seconds = pause(desk.policy, part.asked, desk.clock.random())
    if error is not None and error.retry_after is not None:
        seconds = max(seconds, error.retry_after)
    desk.store.note(part, due=desk.now() + seconds, asked=part.asked + 1)
