"""What a run waits for, as JSON beside the run, so that it can be shown without walking it.

interrupts_text((Interrupt(…),))  ──▶  '[{"id": …, "payload": …}]'  ──▶  interrupts_from
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from agentflow.core.durability.records import Interrupt
from agentflow.core.durability.values import decode, encode
from agentflow.errors import SerializationError

__all__ = ["interrupts_from", "interrupts_text", "wake_of"]

_PLAIN: Final = [field.name for field in fields(Interrupt) if field.name != "payload"]


def interrupts_text(interrupts: Sequence[Interrupt]) -> str:
    """Raises SerializationError where a payload cannot be stored."""
    return json.dumps([_facts(each) for each in interrupts], separators=(",", ":"))


def _facts(interrupt: Interrupt) -> dict[str, object]:
    facts = {name: getattr(interrupt, name) for name in _PLAIN}
    return {**facts, "payload": None if interrupt.payload is None else encode(interrupt.payload, interrupt.path)}


def interrupts_from(text: str | None) -> tuple[Interrupt, ...]:
    return tuple(_interrupt(facts) for facts in json.loads(text)) if text else ()


def _interrupt(facts: dict[str, object]) -> Interrupt:
    payload = facts.pop("payload")
    return Interrupt(**facts, payload=_shown(payload) if isinstance(payload, str) else None)  # type: ignore[arg-type]


def _shown(payload: str) -> object:
    """As JSON where this process does not know its types: it is there to be looked at, and the node has its own."""
    try:
        return decode(payload)
    except SerializationError:
        return json.loads(payload)


def wake_of(interrupts: Sequence[Interrupt]) -> float | None:
    """When the first of them is due; None where all wait for ever."""
    return min((each.due for each in interrupts if each.due is not None), default=None)
