"""A run that nobody is running is ended for good: an event of kind `cancel` for all who watch.

    told_cancelled("order", run_id)  ──▶  run store: waiting ─▶ cancelled; metrics: one run more that was cancelled

A run that is under way tells its own end. One that is parked, or whose process died, cannot: whoever cancels it says so
in its place. The event belongs to the run by its id alone, as feedback does, and is numbered 0.
"""

from __future__ import annotations

import time

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.observers import observations

__all__ = ["told_cancelled"]


def told_cancelled(flow: str, run_id: str, *, reason: str | None = None, at: float | None = None) -> None:
    """Tell everybody who watches this process, if anybody does. `at` is wall time, else now."""
    watching = observations()
    if not watching:
        return
    data = {} if reason is None else {"reason": reason}
    event = ExecutionEvent("cancel", run_id, flow, flow, 1, 0, time.time() if at is None else at, data=data)
    for each in watching:
        each.see(event)
