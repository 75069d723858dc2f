"""Notices what was changed in place after it was kept, so that a run that went on would not have the change.

    state["log"] = log          kept: it is remembered in which record
    state["log"].append(…)      nobody is told of it
    changed(state, stored)      ──▶  ["log"]: it is not what the record says any more

Values that cannot change are not looked at. What is watched is the state of the run itself, not of branches. Nothing is
compared before the end, so a step pays next to nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from agentflow.core.durability.values import encode
from agentflow.core.state import SharedState
from agentflow.errors import SerializationError

__all__ = ["Mutations", "Stored"]

_FIXED: Final = (str, int, float, bool, bytes, type(None))

Stored: TypeAlias = Callable[[str], Mapping[str, object]]
"""What the record of that id has assigned; nothing where it could not be kept."""


class _Kept(NamedTuple):
    """A value, and where it was kept: the record, and the name it has there."""

    value: object
    record: str
    name: str


class Mutations:
    """The values of a state, and where each was kept last."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def keep(self, values: Mapping[str, object], record: str) -> None:
        for name, value in values.items():
            if isinstance(value, _FIXED):
                self._kept.pop(name, None)
            else:
                self._kept[name] = _Kept(value, record, name)

    def keep_apart(self, values: Mapping[str, object], record: str) -> None:
        """The same of what a branch has written, which may be what the state holds: it gets there by a join."""
        for own, value in values.items():
            for name, known in self._kept.items():
                if known.value is value:
                    self._kept[name] = _Kept(value, record, own)

    def changed(self, state: SharedState, stored: Stored) -> Iterator[str]:
        """The names whose values are the same objects as then, and not the same."""
        for name, kept in self._kept.items():
            if state.get(name) is not kept.value:
                continue
            were = stored(kept.record)
            if kept.name in were and not _same(kept.value, were[kept.name]):
                yield name


def _same(value: object, stored: object) -> bool:
    try:
        return encode(value, "") == encode(stored, "")
    except SerializationError:
        return False  # it could be stored when it was kept
