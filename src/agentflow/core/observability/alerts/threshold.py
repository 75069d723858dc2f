"""When a value is a reason for an alert: above or below a limit, or not there at all.

    Threshold(">", 10.0).holds(12.0, firing=False)             ──▶  True
    Threshold(">", 10.0, clear=8.0).holds(9.0, firing=True)    ──▶  True: it began above 10 and is not yet down to 8
    Absent().holds(None, firing=False)                         ──▶  True

Between `clear` and the limit an alert stays what it is, so that a value that swings about the limit does not make it
come and go (hysteresis).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from agentflow.errors import ConfigurationError

__all__ = ["WORDS", "Absent", "Condition", "Threshold"]

_TESTS: Final[Mapping[str, Callable[[float, float], bool]]] = MappingProxyType(
    {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq}
)
WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {"above": ">", "at_least": ">=", "below": "<", "at_most": "<=", "equals": "=="}
)
"""What a mapping calls each operator: a bare `>` means something else in YAML."""
_WORD_OF: Final = {sign: word for word, sign in WORDS.items()}


class Condition(Protocol):
    """Decides on one value; None and NaN are no value."""

    def holds(self, value: float | None, firing: bool) -> bool | None:
        """Whether it is a reason for an alert; None where that cannot be told without a value."""
        ...

    def to_mapping(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Threshold:
    """`value sign limit`; an alert that fires goes on until it would not fire with `clear` for the limit either."""

    sign: str
    limit: float
    clear: float | None = None

    def __post_init__(self) -> None:
        if self.sign not in _TESTS:
            raise ConfigurationError(f"sign: found {self.sign!r}, allowed are {', '.join(_TESTS)}")
        if not math.isfinite(self.limit):
            raise ConfigurationError(f"{self.word}: found {self.limit}, allowed is a finite number")
        if self.clear is not None and not self._is_easier(self.clear):
            allowed = {">": "at most", "<": "at least"}.get(self.sign[0])
            only = f"a finite number, {allowed} {self.limit:g}" if allowed else "nothing: equals has one limit"
            raise ConfigurationError(f"clear: found {self.clear}, allowed is {only}")

    @property
    def word(self) -> str:
        return _WORD_OF[self.sign]

    def holds(self, value: float | None, firing: bool) -> bool | None:
        if value is None or math.isnan(value):
            return None
        return _TESTS[self.sign](value, self.clear if firing and self.clear is not None else self.limit)

    def to_mapping(self) -> dict[str, object]:
        clear: dict[str, object] = {} if self.clear is None else {"clear": self.clear}
        return {self.word: self.limit, **clear}

    def __str__(self) -> str:
        until = "" if self.clear is None else f", until {self.clear:g}"
        return f"{self.word.replace('_', ' ')} {self.limit:g}{until}"

    def _is_easier(self, clear: float) -> bool:
        if not math.isfinite(clear):
            return False
        return clear <= self.limit if self.sign[0] == ">" else clear >= self.limit if self.sign[0] == "<" else False


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no value: nothing was ever measured, or nothing within the window."""

    def holds(self, value: float | None, firing: bool) -> bool | None:
        return value is None or math.isnan(value)

    def to_mapping(self) -> dict[str, object]:
        return {"absent": True}

    def __str__(self) -> str:
        return "absent"
