"""Notices what was changed in place after it was kept, so that a run that went on would not have the change.

    state["log"] = log          kept: its text is remembered
    state["log"].append(…)      nobody is told of it
    changed(state)              ──▶  ["log"]

Values that cannot change are not looked at. What is watched is the state of the run itself, not of branches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from agentflow.core.durability.values import encode
from agentflow.core.state import SharedState
from agentflow.errors import SerializationError

__all__ = ["Mutations"]

_FIXED: Final = (str, int, float, bool, bytes, type(None))


class Mutations:
    """The values of a state as they were when they were kept."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, int]] = {}

    def keep(self, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            if isinstance(value, _FIXED):
                self._kept.pop(name, None)
            else:
                self._kept[name] = (value, _digest(value))

    def keep_apart(self, values: Mapping[str, object]) -> None:
        """The same of what a branch has written, which may be what the state holds: it gets there by a join."""
        for value in values.values():
            for name, (known, _) in self._kept.items():
                if known is value:
                    self._kept[name] = (value, _digest(value))

    def changed(self, state: SharedState) -> Iterator[str]:
        """The names whose values are the same objects as then, and not the same."""
        for name, (value, digest) in self._kept.items():
            if state.get(name) is value and _digest(value) != digest:
                yield name


def _digest(value: object) -> int:
    try:
        return hash(encode(value, ""))
    except SerializationError:
        return 0
