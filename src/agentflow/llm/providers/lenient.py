"""Fields of a wire that may hold anything, read as what they should be: what does not fit counts as not there.

text(3) == ""        count("7") == 7        number(True) is None        mapping([]) == {}        mappings("x") == []
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = ["count", "mapping", "mappings", "moment", "number", "text"]

_LARGEST = 10**15  # no count of tokens is larger; a longer number is a mistake, and slow


def text(value: object) -> str:
    """A text, or an empty one."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int:
    """A number of things, 0 or more; also where it comes as a float or as digits."""
    found = number(value)
    return 0 if found is None or found < 0 else int(found)


def number(value: object) -> float | None:
    """A finite number, also where it comes as text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, int):
        return float(value) if abs(value) <= _LARGEST else None
    try:
        found = float(value) if len(str(value)) <= 40 else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) and abs(found) <= _LARGEST else None


def moment(value: object) -> float | None:
    """Seconds since 1970 of a time that is written by ISO 8601; None where it is none."""
    try:
        return datetime.fromisoformat(text(value)).timestamp()
    except (ValueError, OverflowError):
        return None


def mapping(value: object) -> Mapping[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The objects of a list; what else stands in it is passed over."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
