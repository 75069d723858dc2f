"""The arguments of a function call that come piece by piece, as values at JSON paths.

    {"jsonPath": "$.city", "stringValue": "Os", "willContinue": true}
    {"jsonPath": "$.city", "stringValue": "lo"}                         ──PartialCall──▶   {"city":"Oslo"}

Vertex sends them so when it is asked to (`streamFunctionCallArguments`). Paths are those of RFC 9535 that name one
value: names and indexes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from agentflow.llm.content import Json

__all__ = ["PartialCall"]

_STEP: Final = re.compile(r"""\.([^.\[\]'"]+)|\[(\d{1,6})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
_DEEPEST: Final = 64


class PartialCall:
    """The arguments of one call. A text that goes on is joined once, at the end."""

    __slots__ = ("_open", "_texts", "_value")

    def __init__(self, arguments: Mapping[str, Json]) -> None:
        self._value: dict[str, Json] = dict(arguments)
        self._texts: dict[str, list[str]] = {}
        self._open = ""  # the path whose text goes on

    def add(self, piece: Mapping[str, Json]) -> bool:
        """Take the next piece; False where it names no place, or one below a text or a number."""
        path, text = piece.get("jsonPath"), piece.get("stringValue")
        if not isinstance(path, str):
            return False
        if not isinstance(text, str):
            self._texts.pop(path, None)
            self._open = ""
            return self._place(path, _scalar(piece))
        if path != self._open or path not in self._texts:
            if not self._place(path, ""):
                return False
            self._texts[path] = []
        self._texts[path].append(text)
        self._open = path if piece.get("willContinue") is True else ""
        return True

    def text(self) -> str:
        """What has come so far, as JSON."""
        for path, texts in self._texts.items():
            self._place(path, "".join(texts))
        return msgspec.json.encode(self._value).decode()

    def _place(self, path: str, value: Json) -> bool:
        steps = _steps(path)
        return steps is not None and _set(self._value, steps, value)


def _scalar(piece: Mapping[str, Json]) -> Json:
    for name in ("numberValue", "boolValue"):
        if isinstance(value := piece.get(name), int | float):
            return value
    return None


def _steps(path: str) -> list[str | int] | None:
    """The names and indexes of a JSON path; None where it is none, or too long."""
    if not path.startswith("$"):
        return None
    found: list[str | int] = []
    at = 1
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None or len(found) == _DEEPEST:
            return None
        name, index, single, double = match.groups()
        found.append(int(index) if index is not None else name or _unescaped(single if double is None else double))
        at = match.end()
    return found or None


def _unescaped(text: str | None) -> str:
    return re.sub(r"\\(.)", r"\1", text or "")


def _set(node: Json, steps: list[str | int], value: Json) -> bool:
    """Put `value` at the end of `steps` below `node`, making what is missing on the way. Lists grow at their end."""
    for at, step in enumerate(steps):
        last = at == len(steps) - 1
        below: Json = value if last else ([] if isinstance(steps[at + 1], int) else {})
        if isinstance(node, list) and isinstance(step, int) and step <= len(node):
            if step == len(node):
                node.append(below)
            elif last:
                node[step] = below
            node = node[step]
        elif isinstance(node, dict) and isinstance(step, str):
            if last:
                node[step] = below
            node = node.setdefault(step, below)
        else:
            return False
    return True
