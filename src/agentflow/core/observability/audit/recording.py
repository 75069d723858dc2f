"""What call sites of the engine call. Each does nothing where no log is in the seat.

    act = await began(Deed(AuditAction.MODEL_CALL, resource="openai/gpt-4o", run=run_id))    AuditError: do not do it
    try:
        answer = await call()
    except BaseException as error:
        ended(act, error=error)
        raise
    ended(act, data={"input_tokens": 12})

An act has two records with the same `act` in their data: `started` before it, which must succeed where the log is
closed to failure, and its outcome after it, which never raises and is not waited for, so that it may be written while a
task is being cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from agentflow.core.observability.audit.actions import REQUIRED, AuditAction, Outcome
from agentflow.core.observability.audit.deed import Deed
from agentflow.core.observability.audit.log import AuditLog
from agentflow.core.observability.audit.seat import current_audit
from agentflow.errors import AuditError, LimitExceededError, RejectedError

__all__ = ["Act", "began", "began_blocking", "ended", "key_used", "noted"]

_numbers: Final = count(1)


@dataclass(frozen=True, slots=True)
class Act:
    """Something that was recorded as begun, and will be as ended."""

    log: AuditLog
    deed: Deed
    number: int


async def began(deed: Deed) -> Act | None:
    """Record that something is about to be done. Raises AuditError where that must be recorded and cannot be."""
    log = current_audit()
    if log is None:
        return None
    act = Act(log, deed, next(_numbers))
    try:
        await log.write_async(_started(act))
    except asyncio.CancelledError as error:  # it is written, and was not yet on the disk
        ended(act, error=error)
        raise
    return act


def began_blocking(deed: Deed) -> Act | None:
    """`began` where nothing can be awaited."""
    log = current_audit()
    if log is None:
        return None
    act = Act(log, deed, next(_numbers))
    log.write(_started(act))
    return act


def ended(
    act: Act | None,
    *,
    error: BaseException | None = None,
    outcome: str | None = None,
    content: object = None,
    data: Mapping[str, object] | None = None,
) -> None:
    """Record how it ended; what an error means is told from its type, unless `outcome` says it.

    Nothing is raised for what cannot be recorded, as the act is over, nor is anything waited for: it may be called
    while a task is being cancelled.
    """
    if act is None:
        return
    facts = {**(data or {}), "act": act.number}
    if error is not None:
        facts["error"] = type(error).__name__
    deed = replace(act.deed, outcome=outcome or _outcome_of(error), content=content, data=_of_act(act, facts))
    try:
        act.log.write(deed, after=True)
    except AuditError:  # it was closed meanwhile, and has said that it ended
        return


async def noted(deed: Deed) -> None:
    """Record something that has no length: a route, a cache hit. Raises AuditError as `began` does."""
    log = current_audit()
    if log is not None:
        await log.write_async(deed)


def key_used(provider: str, key: str, *, tenant: str | None = None, run: str | None = None) -> str | None:
    """The key's fingerprint, for the records of what is done with it; None where no log is in the seat.

    The first use of a key by this process is a record of its own. Raises AuditError as `began` does.
    """
    log = current_audit()
    if log is None:
        return None
    fingerprint = log.fingerprint(key)
    if log.first_use(provider, fingerprint):
        log.write(Deed(AuditAction.KEY_USED, resource=provider, key=fingerprint, tenant=tenant, run=run))
    return fingerprint


def _started(act: Act) -> Deed:
    return replace(act.deed, outcome=Outcome.STARTED, data={**(act.deed.data or {}), "act": act.number})


def _of_act(act: Act, facts: dict[str, object]) -> dict[str, object]:
    """What its action requires stands in both records."""
    required = [name.partition(".")[2] for name in REQUIRED.get(act.deed.action, ()) if name.startswith("data.")]
    return {**{name: (act.deed.data or {})[name] for name in required}, **facts}


def _outcome_of(error: BaseException | None) -> Outcome:
    match error:
        case None:
            return Outcome.OK
        case asyncio.CancelledError() | GeneratorExit() | KeyboardInterrupt():
            return Outcome.CANCELLED
        case RejectedError() | LimitExceededError():
            return Outcome.REFUSED
    return Outcome.ERROR
