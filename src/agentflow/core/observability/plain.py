"""Any value as something that JSON can hold, within bounds, and without ever failing.

    {"when": datetime(…), 3: {1.5, nan}, "self": <itself>}  ──▶  {"when": "2026-11-30T…", "3": [1.5, "nan"], "self": …}

For what is written down beside the program: a log, a trace, an export. It does not come back as it was. Values of
unknown types become their `repr`, one that raises a note saying so. What is too long, too deep or too many is cut, and
says by how much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, time
from enum import Enum
from itertools import islice
from typing import Final, TypeAlias

__all__ = ["Plain", "cut", "plain"]

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

_LONGEST: Final = 32_768  # characters of a text
_WIDEST: Final = 1_000  # items of a list, entries of a mapping
_DEEPEST: Final = 12
_MOST: Final = 20_000  # values in all: what is both wide and deep
_ALL: Final = 8  # times the longest text: all texts together
_LARGEST: Final = 2**63  # more is a text: readers would round it, and Python refuses to write 4,300 digits


def plain(value: object, *, longest: int = _LONGEST) -> Plain:
    """`value` as JSON. No text in it is longer than `longest` characters, but for the note that it was cut."""
    return _Copy(longest).of(value, 0)


def cut(text: str, longest: int = _LONGEST) -> str:
    """The beginning of `text`, and how long it was; the whole where that is no longer."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


class _Copy:
    """One copy being made, and how much may still go into it."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._left = _MOST
        self._characters = _ALL * longest

    def of(self, value: object, depth: int) -> Plain:
        self._left -= 1
        try:
            return self._copy(value, depth)
        except Exception as error:  # noqa: BLE001 - a property, a repr, an iterator of any type of the user's
            return f"<{type(value).__name__}: {type(error).__name__} when read>"

    def _copy(self, value: object, depth: int) -> Plain:
        match value:
            case None | bool():
                return value
            case str():
                return self._text(str.__str__(value))
            case Enum():
                return self.of(value.value, depth + 1)
            case int():
                return int(value) if -_LARGEST < value < _LARGEST else f"<integer of {value.bit_length()} bits>"
            case float():
                return float(value) if math.isfinite(value) else str(float(value))
            case bytes() | bytearray() | memoryview():
                return f"<{len(value)} bytes>"
            case date() | time():
                return value.isoformat()
            case _ if depth >= _DEEPEST or self._left <= 0:
                return "…"
            case Mapping():
                return self._mapping(value, depth)
            case list() | tuple() | AbstractSet():
                return self._list(value, len(value), depth)
        return self._text(repr(value))

    def _mapping(self, value: Mapping[object, object], depth: int) -> Plain:
        copied = {self._name(key): self.of(item, depth + 1) for key, item in islice(value.items(), self._room())}
        if len(copied) < len(value):
            copied["…"] = f"{len(value) - len(copied)} more"
        return copied

    def _list(self, value: Iterable[object], length: int, depth: int) -> Plain:
        copied = [self.of(item, depth + 1) for item in islice(value, self._room())]
        return [*copied, f"… {length - len(copied)} more"] if len(copied) < length else copied

    def _room(self) -> int:
        return max(1, min(_WIDEST, self._left))

    def _name(self, key: object) -> str:
        return cut(str(self.of(key, _DEEPEST)), 200)

    def _text(self, text: str) -> str:
        """Cut, and without halves of characters, which no UTF-8 holds."""
        text = cut(text, min(self._longest, self._characters))
        self._characters = max(0, self._characters - len(text))
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
