"""The audit log of this process: one place where the engine looks for it.

    with use_audit(log):
        await flow.run(…)            every call site of the engine records here

With no log in the seat, a call site costs one look at a variable.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a process without a log loads none of it
    from agentflow.core.observability.audit.log import AuditLog

__all__ = ["AuditSeat", "current_audit", "use_audit"]

_current: AuditLog | None = None
_seats: tuple[AuditSeat, ...] = ()
_lock = threading.Lock()


class AuditSeat:
    """The seat as long as it is taken: the last who took it has it. `close()`, or the end of the `with`, gives it back
    to the one before who is still there; the log itself stays open."""

    def __init__(self, log: AuditLog | None) -> None:
        self._log = log
        with _lock:
            _sit((*_seats, self))

    def close(self) -> None:
        with _lock:
            _sit(tuple([seat for seat in _seats if seat is not self]))

    def __enter__(self) -> AuditSeat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sit(seats: tuple[AuditSeat, ...]) -> None:
    global _current, _seats
    _seats, _current = seats, seats[-1]._log if seats else None


def use_audit(log: AuditLog | None) -> AuditSeat:
    """Let the engine record in `log` from now on; None: nowhere."""
    return AuditSeat(log)


def current_audit() -> AuditLog | None:
    """The log in the seat."""
    return _current
