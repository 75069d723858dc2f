"""What stands in DBOS's tables, as JSON: records, what a run began with, how a stretch of it ended.

    record_to(record) ──▶ {"id": "article/write#1", "kind": "step", "body": "…", "at": 1764.0}     and record_from back

What has its default is left out. Bodies are JSON texts already and stay texts. Nothing is ever pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, TypeVar

from agentflow.core.durability.records import Ending, Interrupt, Record, RunSpec
from agentflow.core.durability.values import decode, encode

__all__ = ["ending_from", "ending_to", "interrupt_from", "record_from", "record_to", "spec_from", "spec_to"]

Json = dict[str, Any]
T = TypeVar("T", Record, RunSpec, Interrupt)


def record_to(record: Record) -> Json:
    return _plain(record)


def record_from(given: Mapping[str, Any]) -> Record:
    return _made(Record, given)


def spec_to(spec: RunSpec) -> Json:
    return _plain(spec)


def spec_from(given: Mapping[str, Any]) -> RunSpec:
    return _made(RunSpec, given)


def ending_to(ending: Ending) -> Json:
    """Raises SerializationError where what a person is to be shown cannot be stored."""
    told: Json = {"status": ending.status}
    if ending.action is not None:
        told["action"] = ending.action
    if ending.error is not None:
        told["error"] = ending.error
    if ending.interrupts:
        told["interrupts"] = [_interrupt_to(interrupt) for interrupt in ending.interrupts]
    return told


def ending_from(given: Mapping[str, Any]) -> Ending:
    interrupts = tuple(interrupt_from(each) for each in given.get("interrupts", ()))
    return Ending(given["status"], given.get("action"), given.get("error"), interrupts)


def _interrupt_to(interrupt: Interrupt) -> Json:
    told = _plain(interrupt)
    if "payload" in told:
        told["payload"] = encode(told["payload"], interrupt.path)
    return told


def interrupt_from(given: Mapping[str, Any]) -> Interrupt:
    interrupt = _made(Interrupt, given)
    return replace(interrupt, payload=decode(given["payload"])) if "payload" in given else interrupt


def _plain(value: Record | RunSpec | Interrupt) -> Json:
    """Its fields, but for those that have their defaults."""
    told = {}
    for field in fields(value):
        held = getattr(value, field.name)
        if field.default is MISSING or held != field.default or type(held) is not type(field.default):
            told[field.name] = held
    return told


def _made(kind: type[T], given: Mapping[str, Any]) -> T:
    """Fields that a later version wrote, and that are not known here, are passed over."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: held for name, held in given.items() if name in known})
