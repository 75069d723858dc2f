"""What a finished run hands out: its output as text, and everything as JSON.

The output of a run is

1. the value of `output` in the state;
2. else the value of the one key that the flow's last node declares to write (`writes=`);
3. else nothing.

Text is handed out as it is, anything else as JSON. What JSON has no word for stands there as its repr.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Final
from uuid import UUID

from agentflow.cli.failures import keyless
from agentflow.core import FlowResult
from agentflow.core.durability.answers import describe_schema
from agentflow.core.durability.records import Interrupt
from agentflow.core.graph import Graph, Vertex
from agentflow.errors import SerializationError, describe

__all__ = ["OUTPUT", "Foreign", "as_json", "as_text", "output_key", "result_json"]

OUTPUT: Final = "output"

_SEQUENCES: Final = (list, tuple, deque, Set)
_DEEPEST: Final = 200


@dataclass(frozen=True, slots=True)
class Foreign:
    """JSON text, and the names of the types in it that only their repr stands for."""

    text: str
    types: tuple[str, ...]


def output_key(graph: Graph, result: FlowResult, last_path: str) -> str | None:
    """The key that holds the output; `last_path` is the path of the node that finished last."""
    if OUTPUT in result.state:
        return OUTPUT
    written = _writes(graph, last_path)
    return written[0] if len(written) == 1 and written[0] in result.state else None


def _writes(graph: Graph, path: str) -> Sequence[str]:
    """The keys that the node at `path` declares to write. None where it ran beside others or in a state of its own."""
    vertex: Vertex | None = None
    inside: Graph | None = graph
    for segment in path.split("/")[1:]:
        name = re.sub(r"#\d+\Z", "", segment)
        found = None if inside is None else next((v for v in inside.vertices() if v.name == name), None)
        if inside is None or found is None or inside.home[found].section is not None:
            return ()
        vertex, inside = found, found.inner_graph()
        if vertex.keys_written():
            return vertex.keys_written()
    return ()


def as_text(value: object) -> str:
    """A value as stdout and `--output` show it. Raises SerializationError for one that contains itself."""
    return value if isinstance(value, str) else as_json(value, "output").text


def as_json(value: object, name: str) -> Foreign:
    """JSON with two spaces of indent. Raises SerializationError, naming the place below `name`, for a value that
    contains itself."""
    reading = _Plain()
    plain = reading.of(value, name)
    return Foreign(json.dumps(plain, indent=2, ensure_ascii=False), tuple(reading.foreign))


class _Plain:
    """Turns any value into what JSON has words for, and notes the types for which it has none."""

    def __init__(self) -> None:
        self.foreign: dict[str, None] = {}
        self._above: set[int] = set()

    def of(self, value: object, path: str) -> object:
        if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        inside = _inside(value)
        if inside is None:
            return self._leaf(value)
        if id(value) in self._above or len(self._above) > _DEEPEST:
            raise SerializationError(path, "the value contains itself, or is nested too deeply for JSON")
        self._above.add(id(value))
        found = {name: self.of(part, f"{path}.{name}") for name, part in inside.items()}
        self._above.discard(id(value))
        return list(found.values()) if isinstance(value, _SEQUENCES) else found

    def _leaf(self, value: object) -> object:
        if isinstance(value, Enum):
            return self.of(value.value, "")
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, PurePath | Decimal | UUID):
            return str(value)
        self.foreign[type(value).__name__] = None
        return describe(value) if isinstance(value, BaseException) else repr(value)


def _inside(value: object) -> dict[str, object] | None:
    """The parts of a value that has parts, by name or by number; None for a leaf."""
    if isinstance(value, Mapping):
        return {str(name): part for name, part in value.items()}
    if isinstance(value, Set):
        return {str(number): part for number, part in enumerate(sorted(value, key=repr))}  # the same text each time
    if isinstance(value, _SEQUENCES):
        return {str(number): part for number, part in enumerate(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    names = getattr(type(value), "__struct_fields__", None) or getattr(type(value), "model_fields", None)
    if names:  # msgspec's and pydantic's objects, as typed answers are
        return {name: getattr(value, name) for name in names}
    return None


def _waits_for(interrupt: Interrupt) -> dict[str, object]:
    known = {field.name: getattr(interrupt, field.name) for field in fields(interrupt)}
    return {**known, "wanted": describe_schema(interrupt.schema)}


def result_json(result: FlowResult, key: str | None) -> Foreign:
    """The whole FlowResult: how it ended, its output, what it waits for and its state. Durations are in seconds."""
    error = result.error
    return as_json(
        {
            "status": result.status,
            "action": result.action,
            "run_id": result.run_id,
            "duration": round(result.duration, 6),
            "error": None if error is None else {"type": type(error).__name__, "message": keyless(str(error))},
            "output": None if key is None else result.state[key],
            "interrupts": [_waits_for(each) for each in result.interrupts],
            "state": result.state.snapshot(),
        },
        "state",
    )
