"""What a run records in the audit log of this process: that it began, went on, was parked or answered, how it ended.

    act = await run_begun(…)              started ─▶ run_ended(act, error)     run.started … run.ended
    act = await run_resumed(…)                    ─▶ run_parked(act, …)        run.resumed … run.parked
    await run_answered(…), run_forked(…), run_cancelled(…)                     one record each, before it is done

Without a log in the seat nothing happens. All that are awaited raise AuditError where the log is closed to failure and
cannot be written: then what they tell of must not be done. It is loaded where there is a log, and only there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentflow.core.observability.audit.actions import AuditAction
from agentflow.core.observability.audit.deed import Deed
from agentflow.core.observability.audit.recording import Act, began, ended, noted

__all__ = ["run_answered", "run_begun", "run_cancelled", "run_ended", "run_forked", "run_parked", "run_resumed"]


# ---- a stretch of a run has a beginning and an end -----------------------------------------------------------


async def run_begun(flow: str, run_id: str, tenant: str | None, around: str | None) -> Act | None:
    """A run is about to begin, within the run `around` if it is not None. Raises AuditError where that must be recorded
    and cannot be."""
    data = {} if around is None else {"parent_run": around}
    return await began(Deed(AuditAction.RUN_STARTED, resource=flow, run=run_id, tenant=tenant, data=data))


async def run_resumed(flow: str, run_id: str, tenant: str | None, stretch: int) -> Act | None:
    """A run that was parked, or whose process died, is about to go on for the `stretch`-th time. Raises AuditError."""
    deed = Deed(AuditAction.RUN_RESUMED, resource=flow, run=run_id, tenant=tenant, data={"stretch": stretch})
    return await began(deed)


def run_parked(act: Act | None, waits_for: Sequence[str]) -> None:
    """It waits for what has these ids, and nobody runs it any more. It never raises, as `run_ended` does not."""
    _over(act, AuditAction.RUN_PARKED, data={"waits_for": list(waits_for)})


def run_ended(act: Act | None, error: BaseException | None) -> None:
    _over(act, AuditAction.RUN_ENDED, error)


def _over(
    act: Act | None, action: str, error: BaseException | None = None, data: Mapping[str, object] | None = None
) -> None:
    if act is not None:
        ended(replace(act, deed=replace(act.deed, action=action)), error=error, data=data)


# ---- what is done to a run, from outside ---------------------------------------------------------------------


async def run_answered(
    flow: str, run_id: str, tenant: str | None, answers: Mapping[str, object], *, by: str | None = None
) -> None:
    """These answers, by the id of the interrupt, are about to be kept. What they say is content, and is kept as the log
    keeps contents: not at all, as a digest, or encrypted. `by` is who gave them, else whoever acts. Raises AuditError.
    """
    for interrupt, answer in answers.items():
        await noted(
            Deed(
                AuditAction.RUN_ANSWERED,
                actor=by,
                resource=flow,
                run=run_id,
                tenant=tenant,
                content=answer,
                data={"interrupt": interrupt},
            )
        )


async def run_forked(flow: str, run_id: str, tenant: str | None, *, source: str, at: str | None) -> None:
    """The run `run_id` is about to be made of what the run `source` had done before its step `at`. Raises
    AuditError."""
    data = {"from": source, **({} if at is None else {"at": at})}
    await noted(Deed(AuditAction.RUN_FORKED, resource=flow, run=run_id, tenant=tenant, data=data))


async def run_cancelled(flow: str, run_id: str, tenant: str | None, *, by: str | None = None) -> None:
    """Somebody, `by` or whoever acts, is about to end it for good. Raises AuditError."""
    await noted(Deed(AuditAction.RUN_CANCELLED, actor=by, resource=flow, run=run_id, tenant=tenant))
