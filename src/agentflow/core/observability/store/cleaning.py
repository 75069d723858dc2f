"""What of an event may be written down: no prompt or answer that nobody asked for, no key, nothing without end.

    {"error": "… sk-4f9a…", "answer": "…", "blob": "x" * 10_000_000}
        ──▶  {"error": "… [redacted:key]", "blob": "xxx… (10,000,000 characters)"}

What JSON knows comes out as it was. A tuple becomes a list, a number that JSON has no word for a text (`"nan"`), dates
and the like their usual spelling, and anything else `<its type>`: what an object holds is nobody's business here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date
from datetime import time as clock_time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, TypeAlias
from uuid import UUID

from agentflow.core.observability.attribution import ORDER
from agentflow.core.observability.events import ExecutionEvent, execution_event
from agentflow.core.observability.kinds import CONTENT, FACTS, KINDS
from agentflow.core.observability.redaction.redactor import Redactor

__all__ = ["Cleaner", "Redact", "to_json"]

Redact: TypeAlias = "Redactor | Callable[[str], str]"

_OURS: Final = frozenset(FACTS) | frozenset(ORDER)
"""Names that events are documented to use: what stands under them is redacted, they themselves need not be."""

_AS_IT_IS: Final = frozenset({"parent_run"})  # an id that must lead to its run
_MARGIN: Final = 4_096  # characters: a key that is cut in two is not known for one, so what is cut is cut after it
_DEEPEST: Final = 16
_WIDEST: Final = 10_000  # items of one list or mapping
_MOST: Final = 20_000  # values of one event
_ALL: Final = 4  # times the longest text: all texts of one event together
_NAME: Final = 400  # characters of a path or a name
_REMEMBERED: Final = 4_096  # names of entries, and whether they stand for secrets
_CARD: Final = 10**11  # a number from here on may be that of a card
_LARGEST: Final = 2**63
_FAR: Final = float("inf")
_FIELD: Final = "[redacted:field]"


class Cleaner:
    """Makes events fit to be kept. `content` keeps prompts and answers; no text is longer than `longest`.

    Serves one thread. It never raises for what stands in `data`; a field of the event itself that is of the wrong type
    is a TypeError or a ValueError.
    """

    def __init__(self, redact: Redact, *, content: bool, longest: int) -> None:
        self._redactor = redact if isinstance(redact, Redactor) else None
        self._redact: Callable[[str], str] = redact.redact if isinstance(redact, Redactor) else redact
        self._content = content
        self._longest = longest
        self._fields: dict[str, bool] = {}
        self.unredacted = 0
        """Texts that were left out because the redactor raised."""
        self._left = self._characters = 0

    def clean(self, event: ExecutionEvent) -> ExecutionEvent:
        """A copy that holds nothing but numbers, texts, lists and dictionaries."""
        self._left, self._characters = _MOST, _ALL * self._longest
        numbers = (event.visit, event.sequence, event.attempt, event.span, event.parent or 0)
        if not -_LARGEST < min(numbers) <= max(numbers) < _LARGEST:
            raise ValueError("a number of the event is larger than 64 bits")
        if not (math.isfinite(event.time) and math.isfinite(event.at)):
            raise ValueError("a time of the event is no number")
        return execution_event(
            event.kind if event.kind in KINDS else _whole(self._cleaned(event.kind, _NAME)),
            _whole(event.run_id[:_NAME]),
            _whole(self._cleaned(event.path, _NAME)),
            _whole(self._cleaned(event.node, _NAME)) if event.node else "",
            event.visit,
            event.sequence,
            float(event.time),
            None if event.duration is None else float(event.duration),
            event.attempt,
            self._data(event.data) if event.data else {},
            event.span,
            event.parent,
            float(event.at),
        )

    # ---- data ------------------------------------------------------------------------------------------------

    def _data(self, data: Mapping[str, object]) -> dict[str, object]:
        try:
            return self._mapping(data, 0)
        except Exception as error:  # noqa: BLE001 - a mapping of the user's own
            return {"…": f"<{type(data).__name__}: {type(error).__name__} when read>"}

    def _keep(self, kept: dict[str, object], key: object, value: object, depth: int) -> None:
        if type(key) is str and key in _OURS and key not in kept:
            self._left -= 1
            kept[key] = self._copy(value, depth)
            return
        name = self._cleaned(key if type(key) is str else str(self._copy(key, _DEEPEST)), _NAME)
        if name in kept:  # two that have become one are still two
            name = f"{name}#{len(kept)}"
        self._left -= 1
        self._characters -= len(name)
        secret = type(value) is str and value != "" and self._is_secret(name)
        kept[name] = _FIELD if secret else self._copy(value, depth)

    def _copy(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind is str:
            return self._text(value)  # type: ignore[arg-type]
        if value is None or kind is bool or (kind is float and -_FAR < value < _FAR):  # type: ignore[operator]
            return value
        try:
            return self._number(value) if isinstance(value, int | float) else self._composed(value, depth)
        except Exception as error:  # noqa: BLE001 - any type of the user's may raise when it is looked at
            return f"<{kind.__name__}: {type(error).__name__} when read>"

    def _number(self, value: int | float) -> object:
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, Enum):
            return self._copy(value.value, _DEEPEST)
        if not -_LARGEST < value < _LARGEST:
            return f"<integer of {value.bit_length()} bits>"
        if -_CARD < value < _CARD:
            return int(value)
        digits = str(int(value))
        text = self._text(digits)
        return int(value) if text == digits else text

    def _composed(self, value: object, depth: int) -> object:
        match value:
            case str():
                return self._text(str.__str__(value))
            case bytes() | bytearray() | memoryview():
                return f"<{len(value)} bytes>"
            case Mapping() | list() | tuple() | AbstractSet() if value and (depth >= _DEEPEST or self._left <= 0):
                return f"… ({len(value):,} more)"
            case Mapping():
                return self._mapping(value, depth)
            case list() | tuple() | AbstractSet():
                return self._list(list(value), depth)
            case Enum():
                return self._copy(value.value, depth + 1)
            case date() | clock_time():
                return value.isoformat()
            case UUID() | PurePath() | Decimal():
                return self._text(str(value))
        return f"<{type(value).__name__}>"

    def _mapping(self, value: Mapping[Any, object], depth: int) -> dict[str, object]:
        kept: dict[str, object] = {}
        entries = list(value.items())  # at one moment, where it is a dict: whoever told of it may be changing it
        for number, (key, item) in enumerate(entries):
            if number >= _WIDEST or self._left <= 0 or (depth > 0 and self._characters <= 0):
                kept["…"] = f"{len(entries) - number:,} more"
                break
            if depth > 0 or not self._is_apart(kept, key, item):
                self._keep(kept, key, item, depth + 1)
        return kept

    def _is_apart(self, kept: dict[str, object], key: object, item: object) -> bool:
        """Entries of the event itself that are left out, or left alone."""
        if not self._content and key in CONTENT:
            return True
        if key in _AS_IT_IS and isinstance(item, str):
            kept[str(key)] = _whole(item[:_NAME])
            return True
        return False

    def _list(self, items: list[object], depth: int) -> list[object]:
        kept: list[object] = []
        for number, item in enumerate(items):
            if number >= _WIDEST or self._left <= 0 or self._characters <= 0:
                kept.append(f"… ({len(items) - number:,} more)")
                break
            self._left -= 1
            kept.append(self._copy(item, depth + 1))
        return kept

    # ---- texts -----------------------------------------------------------------------------------------------

    def _text(self, text: str) -> str:
        cleaned = self._cleaned(text, min(self._longest, max(0, self._characters)))
        self._characters -= len(cleaned)
        return cleaned

    def _cleaned(self, text: str, longest: int) -> str:
        long = len(text) > longest + _MARGIN
        try:
            cleaned = self._redact(text[: longest + _MARGIN] if long else text)
        except Exception as error:  # noqa: BLE001 - what cannot be redacted is not kept
            self.unredacted += 1
            return f"<not kept: {type(error).__name__} in the redactor>"
        if long:
            cleaned = cleaned[: max(0, len(cleaned) - _MARGIN)]
        if long or len(cleaned) > longest:
            return f"{cleaned[:longest]}… ({len(text):,} characters)"
        return cleaned

    def _is_secret(self, name: str) -> bool:
        """Whether the redactor takes a text for a secret because of the name it stands under."""
        known = self._fields.get(name)
        if known is None:
            if len(self._fields) > _REMEMBERED:
                self._fields.clear()
            known = self._redactor is not None and _FIELD in str(self._redactor.redact_json({name: "-"}))
            self._fields[name] = known
        return known


def to_json(value: object) -> str:
    """Compact; characters as they are, where UTF-8 has them all."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isascii() or _is_whole(text):
        return text
    return json.dumps(value, separators=(",", ":"))  # half a character is spelt out, and comes back as it was


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(text: str) -> str:
    """Without halves of characters, which no file can hold."""
    return text if text.isascii() or _is_whole(text) else text.encode("utf-8", "replace").decode()
