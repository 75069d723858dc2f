"""What a part of a batch job is in the middle of, and what may come next: one table, which also draws the docs.

    PLANNED ──upload──▶ UPLOADING ──uploaded──▶ UPLOADED ──submit──▶ SUBMITTING ──accepted──▶ SUBMITTED
                                                                                      ended ──▶ ENDED ──collected──▶ …

A state is written down before what it names is done. So whoever finds a part UPLOADING or SUBMITTING after a crash
knows that the provider may have it, and asks before doing anything again; in every other state nothing is in doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

__all__ = ["FINAL", "IN_DOUBT", "TRANSITIONS", "Event", "State", "after", "mermaid"]


class State(StrEnum):
    """Of one part: what is, or is to become, one batch at the provider."""

    PLANNED = "planned"  # what is to be asked is stored; nobody was told
    UPLOADING = "uploading"  # a file may be at the provider
    UPLOADED = "uploaded"
    SUBMITTING = "submitting"  # a batch may be at the provider, and may cost money
    SUBMITTED = "submitted"
    CANCELLING = "cancelling"  # its early end was asked for; what is done is kept
    ENDED = "ended"  # the answers are ready, and are being fetched
    COLLECTED = "collected"
    EXPIRED = "expired"  # collected, but the provider's time was up before all was done
    CANCELLED = "cancelled"  # collected, or never sent
    FAILED = "failed"  # refused as a whole, or gone


class Event(StrEnum):
    """What happens to a part. Those of the first group are intents of ours, written down before they are acted on."""

    UPLOAD = "upload"
    SUBMIT = "submit"
    CANCEL = "cancel"
    DROP = "drop"  # given up before anything was begun

    UPLOADED = "uploaded"
    ACCEPTED = "accepted"
    ABSENT = "absent"  # the provider was asked, and has none
    REFUSED = "refused"
    ENDED = "ended"
    COLLECTED = "collected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.PLANNED: {
        Event.UPLOAD: State.UPLOADING,
        Event.SUBMIT: State.SUBMITTING,  # an API that takes no file
        Event.DROP: State.CANCELLED,
    },
    State.UPLOADING: {
        Event.UPLOADED: State.UPLOADED,
        Event.ABSENT: State.PLANNED,
        Event.REFUSED: State.FAILED,
        Event.DROP: State.CANCELLED,  # a file costs nothing
    },
    State.UPLOADED: {Event.SUBMIT: State.SUBMITTING, Event.DROP: State.CANCELLED},
    State.SUBMITTING: {
        Event.ACCEPTED: State.SUBMITTED,
        Event.ABSENT: State.PLANNED,
        Event.REFUSED: State.FAILED,
    },
    State.SUBMITTED: {Event.CANCEL: State.CANCELLING, Event.ENDED: State.ENDED},
    State.CANCELLING: {Event.ENDED: State.ENDED},
    State.ENDED: {
        Event.COLLECTED: State.COLLECTED,
        Event.EXPIRED: State.EXPIRED,
        Event.CANCELLED: State.CANCELLED,
        Event.FAILED: State.FAILED,
    },
    State.COLLECTED: {},
    State.EXPIRED: {},
    State.CANCELLED: {},
    State.FAILED: {},
}

FINAL: Final = frozenset(state for state, further in TRANSITIONS.items() if not further)
IN_DOUBT: Final = frozenset({State.UPLOADING, State.SUBMITTING})


def after(state: State, event: Event) -> State:
    """Raises ValueError where the event cannot happen in that state: then whoever sends it is wrong."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        possible = ", ".join(TRANSITIONS[state]) or "nothing more"
        raise ValueError(f"a part that is {state} cannot see {event!r}; what can come is {possible}") from None


def mermaid() -> str:
    """The table as a Mermaid chart."""
    edges = [
        f"    {state} --> {to}: {event}" for state, further in TRANSITIONS.items() for event, to in further.items()
    ]
    ends = [f"    {state} --> [*]" for state in TRANSITIONS if state in FINAL]
    return "\n".join(["stateDiagram-v2", "    [*] --> planned", *edges, *ends])
