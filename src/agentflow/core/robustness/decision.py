"""What a guard tells whoever listens: each decision, as it is taken.

    breaker = CircuitBreaker("openai/gpt-4o", listener=lambda decision: log.info("%s", decision))

A listener is called in the middle of a decision, so it must be quick and must not wait. One that raises is left alone:
it changes nothing of what the guard does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Decision", "Listener", "tell"]


@dataclass(frozen=True, slots=True)
class Decision:
    """`kind` is the event's kind (`breaker_open`, `limiter_wait`, …), `guard` the guard's name; durations in `data` are
    seconds."""

    kind: str
    guard: str
    data: Mapping[str, object] = field(default_factory=dict)


Listener: TypeAlias = Callable[[Decision], None]


def tell(listener: Listener | None, kind: str, guard: str, **data: object) -> None:
    """Hand a decision to a listener, if there is one."""
    if listener is not None:
        with suppress(Exception):
            listener(Decision(kind, guard, data))
