"""The states of an alert, and every way from one to another: a table, of which the picture is drawn.

TRANSITIONS[AlertState.PENDING, AlertEvent.HELD]  →  AlertState.FIRING
diagram()                                         →  the same as a Mermaid state diagram
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = ["OPEN", "TRANSITIONS", "AlertEvent", "AlertState", "diagram"]


class AlertState(StrEnum):
    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"
    NO_DATA = "no_data"


class AlertEvent(StrEnum):
    BREACHED = "breached"  # the condition holds, but not yet for as long as `for` asks
    HELD = "held"  # it has held for that long
    CLEARED = "cleared"  # it holds no more, and `keep_firing_for` has passed
    LOST = "lost"  # there has been no value for as long as `for` asks, and the rule wants to know
    FORGOTTEN = "forgotten"  # it was resolved long ago


TRANSITIONS: Final[Mapping[tuple[AlertState, AlertEvent], AlertState]] = MappingProxyType(
    {
        (AlertState.INACTIVE, AlertEvent.BREACHED): AlertState.PENDING,
        (AlertState.INACTIVE, AlertEvent.HELD): AlertState.FIRING,
        (AlertState.INACTIVE, AlertEvent.LOST): AlertState.NO_DATA,
        (AlertState.PENDING, AlertEvent.HELD): AlertState.FIRING,
        (AlertState.PENDING, AlertEvent.CLEARED): AlertState.INACTIVE,
        (AlertState.PENDING, AlertEvent.LOST): AlertState.NO_DATA,
        (AlertState.FIRING, AlertEvent.CLEARED): AlertState.RESOLVED,
        (AlertState.FIRING, AlertEvent.LOST): AlertState.NO_DATA,
        (AlertState.RESOLVED, AlertEvent.BREACHED): AlertState.PENDING,
        (AlertState.RESOLVED, AlertEvent.HELD): AlertState.FIRING,
        (AlertState.RESOLVED, AlertEvent.LOST): AlertState.NO_DATA,
        (AlertState.RESOLVED, AlertEvent.FORGOTTEN): AlertState.INACTIVE,
        (AlertState.NO_DATA, AlertEvent.HELD): AlertState.FIRING,
        (AlertState.NO_DATA, AlertEvent.CLEARED): AlertState.RESOLVED,
    }
)
"""Every change of state. An event that is not here for a state has no effect in it."""

OPEN: Final = frozenset({AlertState.FIRING, AlertState.NO_DATA})
"""The states that somebody has to be told of."""


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = [f"    {old} --> {new}: {event}" for (old, event), new in TRANSITIONS.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {AlertState.INACTIVE}", *lines, ""])
