"""What call sites of the engine call. Each does nothing where no log is in the seat.

    act = await began(AuditAction.MODEL_CALL, resource="openai/gpt-4o", run=run_id)     AuditError: then do not do it
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
from dataclasses import dataclass
from itertools import count
from typing import Final

from agentflow.core.observability.audit.actions import AuditAction, Outcome
from agentflow.core.observability.audit.log import AuditLog
from agentflow.core.observability.audit.seat import current_audit
from agentflow.errors import LimitExceededError, RejectedError

__all__ = ["Act", "began", "began_blocking", "ended", "key_used", "noted"]

_numbers: Final = count(1)


@dataclass(frozen=True, slots=True)
class Act:
    """Something that was recorded as begun, and will be as ended."""

    log: AuditLog
    action: str
    resource: str | None
    actor: str | None
    tenant: str | None
    run: str | None
    trace: str | None
    key: str | None
    subject: str | None
    number: int


async def began(
    action: str,
    *,
    resource: str | None = None,
    actor: str | None = None,
    tenant: str | None = None,
    run: str | None = None,
    trace: str | None = None,
    key: str | None = None,
    subject: str | None = None,
    content: object = None,
    data: Mapping[str, object] = {},
) -> Act | None:
    """Record that something is about to be done. Raises AuditError where that must be recorded and cannot be."""
    log = current_audit()
    if log is None:
        return None
    act = Act(log, action, resource, actor, tenant, run, trace, key, subject, next(_numbers))
    await log.arecord(
        action, outcome=Outcome.STARTED, actor=actor, resource=resource, tenant=tenant, run=run, trace=trace, key=key,
        subject=subject, content=content, data={**data, "act": act.number},
    )  # fmt: skip
    return act


def began_blocking(
    action: str,
    *,
    resource: str | None = None,
    actor: str | None = None,
    tenant: str | None = None,
    run: str | None = None,
    trace: str | None = None,
    key: str | None = None,
    subject: str | None = None,
    content: object = None,
    data: Mapping[str, object] = {},
) -> Act | None:
    """`began` where nothing can be awaited."""
    log = current_audit()
    if log is None:
        return None
    act = Act(log, action, resource, actor, tenant, run, trace, key, subject, next(_numbers))
    log.record(
        action, outcome=Outcome.STARTED, actor=actor, resource=resource, tenant=tenant, run=run, trace=trace, key=key,
        subject=subject, content=content, data={**data, "act": act.number},
    )  # fmt: skip
    return act


def ended(
    act: Act | None,
    *,
    error: BaseException | None = None,
    outcome: str | None = None,
    content: object = None,
    data: Mapping[str, object] = {},
) -> None:
    """Record how it ended; what an error means is told from its type, unless `outcome` says it. Never raises."""
    if act is None:
        return
    facts = {**data, "act": act.number}
    if error is not None:
        facts["error"] = type(error).__name__
    act.log.record(
        act.action, outcome=outcome or _outcome_of(error), actor=act.actor, resource=act.resource, tenant=act.tenant,
        run=act.run, trace=act.trace, key=act.key, subject=act.subject, content=content, data=facts, after=True,
    )  # fmt: skip


async def noted(
    action: str,
    *,
    resource: str | None = None,
    outcome: str = Outcome.OK,
    actor: str | None = None,
    tenant: str | None = None,
    run: str | None = None,
    trace: str | None = None,
    key: str | None = None,
    subject: str | None = None,
    content: object = None,
    data: Mapping[str, object] = {},
) -> None:
    """Record something that has no length: a route, a cache hit. Raises AuditError as `began` does."""
    log = current_audit()
    if log is not None:
        await log.arecord(
            action, outcome=outcome, actor=actor, resource=resource, tenant=tenant, run=run, trace=trace, key=key,
            subject=subject, content=content, data=data,
        )  # fmt: skip


def key_used(provider: str, key: str, *, tenant: str | None = None, run: str | None = None) -> str | None:
    """The key's fingerprint, for the records of what is done with it; None where no log is in the seat.

    The first use of a key by this process is a record of its own. Raises AuditError as `began` does.
    """
    log = current_audit()
    if log is None:
        return None
    fingerprint = log.fingerprint(key)
    if log.first_use(provider, fingerprint):
        log.record(AuditAction.KEY_USED, resource=provider, key=fingerprint, tenant=tenant, run=run)
    return fingerprint


def _outcome_of(error: BaseException | None) -> Outcome:
    match error:
        case None:
            return Outcome.OK
        case asyncio.CancelledError() | GeneratorExit() | KeyboardInterrupt():
            return Outcome.CANCELLED
        case RejectedError() | LimitExceededError():
            return Outcome.REFUSED
    return Outcome.ERROR
