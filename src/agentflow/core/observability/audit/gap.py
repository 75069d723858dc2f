"""What could not be written down: counted while it lasts, and recorded once writing works again.

gap.add("model.call", error, now)   …   gap.facts()   ──▶   {"lost": 3, "actions": {"model.call": 3}, …}
"""

from __future__ import annotations

from collections import Counter

from agentflow.core.observability.audit.record import time_text
from agentflow.core.observability.plain import Plain

__all__ = ["Gap", "reason_of"]


class Gap:
    """`lost` were done and not recorded; `refused` were not done, because they could not be recorded."""

    __slots__ = ("_actions", "_error", "_first", "_last", "lost", "refused")

    def __init__(self) -> None:
        self.lost = self.refused = 0
        self._actions: Counter[str] = Counter()
        self._first = self._last = 0.0
        self._error = ""

    def __bool__(self) -> bool:
        return bool(self.lost or self.refused)

    def add(self, action: str, error: Exception, now: float, *, refused: bool) -> None:
        self._first = self._first if self else now
        self._last = now
        if refused:
            self.refused += 1
        else:
            self.lost += 1
        self._actions[action] += 1
        self._error = reason_of(error)

    def facts(self) -> dict[str, Plain]:
        return {
            "actions": dict(self._actions),
            "error": self._error,
            "lost": self.lost,
            "refused": self.refused,
            "since": time_text(self._first),
            "until": time_text(self._last),
        }


def reason_of(error: Exception) -> str:
    """The system's word for it; no path, no text of the user's."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
