"""Values as people read them: a text as it stands, a few fields below each other, anything else as JSON.

    {"title": "Tides", "draft": "The moon …"}   ──▶   title  Tides
                                                      draft  The moon …

What a model has written may hold signs that move the cursor of a terminal: they are blanked.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Final

from agentflow.cli.outcome import as_json
from agentflow.errors import AgentFlowError

__all__ = ["as_plain", "clean", "in_one_line", "readable"]

_MOST: Final = 40  # lines
_FIELD: Final = 24  # signs of a field's name


def clean(words: str) -> str:
    """On one line, and without signs that do something."""
    return "".join(sign if sign.isprintable() else " " for sign in words)


def as_plain(value: object, name: str = "value") -> object:
    """As JSON has it. The name of a stored type goes, where that is all that stands around a value."""
    try:
        return _untagged(json.loads(as_json(value, name).text))
    except AgentFlowError as error:
        return str(error)


def _untagged(value: object) -> object:
    if isinstance(value, list):
        return [_untagged(each) for each in value]
    if not isinstance(value, dict):
        return value
    [(key, inner), *others] = value.items() if value else [("", value)]
    if key.startswith("$") and not others:
        return _untagged(inner)
    return {name: _untagged(each) for name, each in value.items()}


def in_one_line(value: object) -> str:
    plain = as_plain(value)
    return clean(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))


def readable(value: object, width: int, *, most: int | None = _MOST) -> list[str]:
    """Lines no longer than `width`; not more than `most` of them."""
    lines = _lines(as_plain(value), width)
    if most is None or len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"… ({len(lines) - most + 1} more lines)"]


def _lines(plain: object, width: int) -> list[str]:
    if isinstance(plain, str):
        return _wrapped(plain, width)
    if isinstance(plain, dict) and plain and all(_is_short(each) for each in plain.values()):
        return list(_fields(plain, width))
    return [part for line in json.dumps(plain, indent=2, ensure_ascii=False).split("\n") for part in _cut(line, width)]


def _is_short(value: object) -> bool:
    return not isinstance(value, dict | list)


def _fields(plain: Mapping[str, object], width: int) -> Iterable[str]:
    room = min(_FIELD, max(len(name) for name in plain), max(1, width // 3))
    for name, value in plain.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        first, *others = _wrapped(text, max(10, width - room - 2)) or [""]
        yield f"{clean(name)[:room]:<{room}}  {first}"
        yield from (f"{'':<{room}}  {other}" for other in others)


def _wrapped(text: str, width: int) -> list[str]:
    return [part for line in text.expandtabs(4).splitlines() for part in _folded(clean(line), width)]


def _folded(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, drop_whitespace=True, break_on_hyphens=False) or [""]


def _cut(line: str, width: int) -> list[str]:
    cleaned = clean(line)
    return [cleaned[at : at + width] for at in range(0, len(cleaned), width)] or [""]
