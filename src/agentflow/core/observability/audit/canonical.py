"""Canonical JSON: one value, one text, so that a digest of it means something.

    canonical({"b": 1.0, "a": "é"})   ──▶   b'{"a":"é","b":1}'

The JSON Canonicalization Scheme (RFC 8785): keys in the order of their UTF-16 units, no blanks, numbers as ECMAScript
writes them, texts escaped no further than they must be. Of its values these are left out: NaN and the infinities, and
halves of surrogate pairs, which raise ValueError. Integers are written with all their digits, and never rounded; beyond
2⁵³ other readers might, so `exact` makes texts of those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Final

from agentflow.core.observability.plain import Plain

__all__ = ["canonical", "exact", "quoted"]

_LARGEST: Final = 2**53 - 1
_encode: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode

quoted: Final = encode_basestring
"""A text as JSON writes it, quotes included."""


def canonical(value: Plain) -> bytes:
    """The one text of `value`, as UTF-8. Raises ValueError for what has none."""
    return (_encode(value) if _is_simple(value) else "".join(_pieces(value))).encode("utf-8")


def exact(value: Plain) -> Plain:
    """The same, with a text for each number that another reader of JSON would not give back as it is."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case int() if not -_LARGEST <= value <= _LARGEST:
            return str(value)
        case str():
            return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
        case list():
            return [exact(item) for item in value]
        case dict():
            return {str(exact(key)): exact(item) for key, item in value.items()}
    return value


def _is_simple(value: Plain) -> bool:
    """Whether Python's own encoder writes it as the scheme wants it."""
    if isinstance(value, dict):
        return all(key.isascii() and _is_simple(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_simple(item) for item in value)
    return not isinstance(value, float) or (1e-4 <= abs(value) < 1e16 and not value.is_integer())


def _pieces(value: Plain) -> Iterator[str]:
    match value:
        case dict():
            yield "{"
            for number, key in enumerate(sorted(value, key=lambda key: key.encode("utf-16-be"))):
                yield f"{',' if number else ''}{quoted(key)}:"
                yield from _pieces(value[key])
            yield "}"
        case list():
            yield "["
            for number, item in enumerate(value):
                yield "," if number else ""
                yield from _pieces(item)
            yield "]"
        case float():
            yield _number(value)
        case _:
            yield _encode(value)


def _number(value: float) -> str:
    """As ECMAScript's Number::toString, which Python's repr shares the digits with but not the form."""
    if not math.isfinite(value):
        raise ValueError("JSON has no number that is not finite")
    sign, places, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, places)).rstrip("0")
    if not digits:
        return "0"
    point = len(places) + exponent
    minus = "-" if sign else ""
    if len(digits) <= point <= 21:
        return f"{minus}{digits.ljust(point, '0')}"
    if 0 < point <= 21:
        return f"{minus}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{minus}{digits[0]}{fraction}e{point - 1:+d}"
