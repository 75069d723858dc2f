"""The states of a circuit breaker, and every way from one to another: a table, of which the picture is drawn.

TRANSITIONS[BreakerState.CLOSED, BreakerEvent.TRIPPED]  →  BreakerState.OPEN
diagram()                                               →  the same as a Mermaid state diagram
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = ["TRANSITIONS", "BreakerEvent", "BreakerState", "diagram"]


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class BreakerEvent(StrEnum):
    TRIPPED = "tripped"  # too many of the last calls failed or were slow
    WAITED = "waited"  # the time for which it opened has passed
    PROBES_PASSED = "probes_passed"
    PROBES_FAILED = "probes_failed"
    PROBE_LATE = "probe_late"
    HELD = "held"  # another process says that it is open
    FORCED = "forced"
    DISABLED = "disabled"
    RESET = "reset"


TRANSITIONS: Final[Mapping[tuple[BreakerState, BreakerEvent], BreakerState]] = MappingProxyType(
    {
        (BreakerState.CLOSED, BreakerEvent.TRIPPED): BreakerState.OPEN,
        (BreakerState.CLOSED, BreakerEvent.HELD): BreakerState.OPEN,
        (BreakerState.CLOSED, BreakerEvent.FORCED): BreakerState.FORCED_OPEN,
        (BreakerState.CLOSED, BreakerEvent.DISABLED): BreakerState.DISABLED,
        (BreakerState.CLOSED, BreakerEvent.RESET): BreakerState.CLOSED,
        (BreakerState.OPEN, BreakerEvent.WAITED): BreakerState.HALF_OPEN,
        (BreakerState.OPEN, BreakerEvent.FORCED): BreakerState.FORCED_OPEN,
        (BreakerState.OPEN, BreakerEvent.DISABLED): BreakerState.DISABLED,
        (BreakerState.OPEN, BreakerEvent.RESET): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.PROBES_PASSED): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.PROBES_FAILED): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.PROBE_LATE): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.HELD): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.FORCED): BreakerState.FORCED_OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.DISABLED): BreakerState.DISABLED,
        (BreakerState.HALF_OPEN, BreakerEvent.RESET): BreakerState.CLOSED,
        (BreakerState.FORCED_OPEN, BreakerEvent.DISABLED): BreakerState.DISABLED,
        (BreakerState.FORCED_OPEN, BreakerEvent.RESET): BreakerState.CLOSED,
        (BreakerState.DISABLED, BreakerEvent.FORCED): BreakerState.FORCED_OPEN,
        (BreakerState.DISABLED, BreakerEvent.RESET): BreakerState.CLOSED,
    }
)
"""Every change of state. An event that is not here for a state has no effect in it."""


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = [f"    {old} --> {new}: {event.replace('_', ' ')}" for (old, event), new in TRANSITIONS.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {BreakerState.CLOSED}", *lines, ""])
