"""How the types of the standard library are stored that states hold most often.

    (1, 2)                {"$tuple": [1, 2]}              b"\\x00"              {"$bytes": "AA=="}
    {"b", "a"}            {"$set": ["a", "b"]}            Decimal("1.50")      {"$decimal": "1.50"}
    date(2026, 11, 27)    {"$date": "2026-11-27"}         Path("notes.md")     {"$path": "notes.md"}

Each comes back equal and of the same type: a Decimal with its digits, a moment with its zone and its `fold`. A set is
stored in the order of its texts, so that equal sets of one process and another have the same text. A path is one of
the system that reads it; a zone is looked up in the time-zone data of the machine that reads it.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from agentflow.core.durability.forms import Form, Inner, Misfit, listed, text_of, whole

__all__ = ["STANDARD_FORMS", "TUPLE"]

M = TypeVar("M", datetime, time)

TUPLE = "$tuple"

_order = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def _in_order(value: object, inner: Inner) -> object:
    return sorted(map(inner, cast("frozenset[object]", value)), key=_order)


def _base64(value: object) -> str:
    return b64encode(cast("bytes", value)).decode("ascii")


def _from_base64(stored: object) -> bytes:
    return b64decode(text_of(stored), validate=True)


def _complex(value: object) -> list[float]:
    number = cast("complex", value)
    return [number.real, number.imag]


def _from_parts(stored: object) -> complex:
    real, imag = listed(stored)
    return complex(cast("float", real), cast("float", imag))


def _apart_moment(value: object, inner: Inner) -> object:
    """The text alone where that says everything; else with the zone and which of two equal times it is."""
    moment = cast("datetime", value)
    zone = moment.tzinfo
    if not moment.fold and (zone is None or zone is UTC):
        return moment.isoformat()
    return [moment.replace(tzinfo=None, fold=0).isoformat(), inner(zone), moment.fold]


def _moment(read: Callable[[str], M]) -> Callable[[object], M]:
    def together(stored: object) -> M:
        if type(stored) is str:
            return read(stored)
        text, zone, fold = listed(stored)
        return read(text_of(text)).replace(tzinfo=cast("timezone", zone), fold=cast("int", fold))

    return together


def _span(value: object) -> list[int]:
    span = cast("timedelta", value)
    return [span.days, span.seconds, span.microseconds]


def _from_span(stored: object) -> timedelta:
    days, seconds, microseconds = cast("list[int]", listed(stored))
    return timedelta(days, seconds, microseconds)


def _offset(value: object) -> list[object]:
    """Its name stands beside it only where somebody gave it one."""
    zone = cast("timezone", value)
    offset, name = zone.utcoffset(None), zone.tzname(None)
    return [offset] if name == timezone(offset).tzname(None) else [offset, name]


def _from_offset(stored: object) -> timezone:
    offset, *name = listed(stored)
    return timezone(cast("timedelta", offset), *map(text_of, name))


def _zone(value: object) -> str:
    key = cast("ZoneInfo", value).key
    if not key:
        raise Misfit("a ZoneInfo without a key cannot be looked up again")
    return key


def _from_text(make: Callable[[str], object]) -> Callable[[object], object]:
    return lambda stored: make(text_of(stored))


STANDARD_FORMS: Mapping[type, Form] = {
    tuple: Form(TUPLE, lambda value, inner: inner(list(cast("tuple[object, ...]", value))), lambda v: tuple(listed(v))),
    set: Form("$set", _in_order, lambda stored: set(listed(stored))),
    frozenset: Form("$frozenset", _in_order, lambda stored: frozenset(listed(stored))),
    bytes: Form("$bytes", whole(_base64), _from_base64),
    bytearray: Form("$bytearray", whole(_base64), lambda stored: bytearray(_from_base64(stored))),
    complex: Form("$complex", whole(_complex), _from_parts),
    Decimal: Form("$decimal", whole(str), _from_text(Decimal)),
    datetime: Form("$datetime", _apart_moment, _moment(datetime.fromisoformat)),
    date: Form("$date", whole(lambda value: cast("date", value).isoformat()), _from_text(date.fromisoformat)),
    time: Form("$time", _apart_moment, _moment(time.fromisoformat)),
    timedelta: Form("$timedelta", whole(_span), _from_span),
    timezone: Form("$timezone", whole(_offset), _from_offset),
    ZoneInfo: Form("$zone", whole(_zone), _from_text(ZoneInfo)),
    UUID: Form("$uuid", whole(str), _from_text(UUID)),
    type(Path()): Form("$path", whole(str), _from_text(Path)),
    PurePosixPath: Form("$posix_path", whole(str), _from_text(PurePosixPath)),
    PureWindowsPath: Form("$windows_path", whole(str), _from_text(PureWindowsPath)),
}
