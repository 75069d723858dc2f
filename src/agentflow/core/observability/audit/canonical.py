"""Canonical JSON: one value, one text, so that a digest of it means something.

    canonical({"b": 1.0, "a": "é"})   ──▶   b'{"a":"é","b":1}'

The JSON Canonicalization Scheme (RFC 8785): keys in the order of their UTF-16 units, no blanks, numbers as ECMAScript
writes them, texts escaped no further than they must be. Of its values these raise ValueError: NaN, the infinities, and
halves of surrogate pairs. Integers are written with all their digits, and never rounded; a writer that wants every
reader to give them back makes texts of those beyond 2⁵³, as `Redactor.redact_json` does.
"""

from __future__ import annotations

import math
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Final

from agentflow.core.observability.plain import Plain

__all__ = ["canonical", "quoted"]

quoted: Final = encode_basestring
"""A text as JSON writes it, quotes included."""


def canonical(value: Plain) -> bytes:
    """The one text of `value`, as UTF-8. Raises ValueError for what has none, RecursionError for what is too deep."""
    return _text(value).encode("utf-8")


def _text(value: Plain) -> str:
    if isinstance(value, str):
        return quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        return f"{{{','.join([f'{quoted(key)}:{_text(value[key])}' for key in _ordered(value)])}}}"
    return f"[{','.join([_text(item) for item in value])}]"


def _ordered(value: dict[str, Plain]) -> list[str]:
    if "".join(value).isascii():
        return sorted(value)
    return sorted(value, key=lambda key: key.encode("utf-16-be"))


def _number(value: float) -> str:
    """As ECMAScript's Number::toString, which Python's repr shares the digits with but not the form."""
    if not math.isfinite(value):
        raise ValueError("JSON has no number that is not finite")
    if 1e-4 <= abs(value) < 1e16 and not value.is_integer():
        return float.__repr__(value)
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
