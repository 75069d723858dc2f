"""Whether events are what docs/events.schema.json promises, held against the strict form of it.

assert misfits(events) == []
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from jsonschema import Draft202012Validator

from agentflow.core import ExecutionEvent
from agentflow.core.observability.kinds import event_schema

__all__ = ["exported", "misfits"]


def exported(event: ExecutionEvent) -> dict[str, object]:
    """The event as it comes back from a file: data that JSON cannot hold fails here."""
    plain = {name: getattr(event, name) for name in ExecutionEvent.__slots__}
    read: dict[str, object] = json.loads(json.dumps(plain, default=_mapping, allow_nan=False))
    return read


def _mapping(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"an event holds a {type(value).__name__}, which is no JSON")


def misfits(events: Iterable[ExecutionEvent]) -> list[str]:
    """A sentence for everything in these events that the schema does not allow."""
    return [sentence for event in events for sentence in _misfits(event)]


def _misfits(event: ExecutionEvent) -> Iterator[str]:
    for error in _validator().iter_errors(exported(event)):
        where = ".".join(map(str, error.absolute_path))
        yield f"{event.kind} {event.sequence} at {event.path}: {where}: {error.message}"


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(event_schema(strict=True))
