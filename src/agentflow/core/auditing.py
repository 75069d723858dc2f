"""What a run records in the audit log of this process: that it began, and how it ended.

It is loaded where there is a log, and only there.
"""

from __future__ import annotations

from dataclasses import replace

from agentflow.core.observability.audit.actions import AuditAction
from agentflow.core.observability.audit.deed import Deed
from agentflow.core.observability.audit.recording import Act, began, ended

__all__ = ["run_begun", "run_ended"]


async def run_begun(flow: str, run_id: str, tenant: str | None, around: str | None) -> Act | None:
    """A run is about to begin, within the run `around` if it is not None. Raises AuditError where that must be recorded
    and cannot be."""
    data = {} if around is None else {"parent_run": around}
    return await began(Deed(AuditAction.RUN_STARTED, resource=flow, run=run_id, tenant=tenant, data=data))


def run_ended(act: Act, error: BaseException | None) -> None:
    ended(replace(act, deed=replace(act.deed, action=AuditAction.RUN_ENDED)), error=error)
