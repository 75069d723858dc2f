"""When a segment has its length, when it may go, and when what was written must be on the disk.

    Rotation(size=64 MiB, age=a day)      a new segment begins when one of them is reached
    Retention(age=…, size=…, at_least=…)  whole segments go, the oldest first; none is younger than `at_least`
    Fsync: "always" | seconds | "never"   before `record` returns · in the background, so often · as the system likes

Sizes are bytes, ages seconds. Each decision is a function of `now`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agentflow.errors import ConfigurationError

__all__ = ["DAY", "Fsync", "OnFailure", "Retention", "Rotation", "Span", "checked_fsync"]

DAY: Final = 86_400.0
_MIB: Final = 1024 * 1024

Fsync: TypeAlias = "Literal['always', 'never'] | float"
OnFailure: TypeAlias = Literal["closed", "open"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """None is no limit."""

    size: int | None = 64 * _MIB
    age: float | None = DAY

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 4096:
            raise ConfigurationError(f"a segment of an audit log has at least 4096 bytes, not {self.size}")
        if self.age is not None and not self.age > 0:
            raise ConfigurationError(f"a segment's age must be more than 0 seconds, not {self.age}")

    def due(self, *, size: int, coming: int, begun: float, now: float) -> str | None:
        """Why the segment ends before the `coming` bytes: "size" or "age"; None where it does not."""
        if self.size is not None and size + coming > self.size:
            return "size"
        return "age" if self.age is not None and now - begun >= self.age else None


@dataclass(frozen=True, slots=True)
class Span:
    """What retention asks of a segment that is no longer written."""

    number: int
    size: int
    last: float


@dataclass(frozen=True, slots=True)
class Retention:
    """Without `age` and `size` everything stays. `at_least` wins over both."""

    age: float | None = None
    size: int | None = None
    at_least: float = 0.0

    def __post_init__(self) -> None:
        if self.age is not None and not self.age > 0:
            raise ConfigurationError(f"an age of retention must be more than 0 seconds, not {self.age}")
        if self.size is not None and self.size < 0:
            raise ConfigurationError(f"a size of retention cannot be negative: {self.size}")

    def leaving(self, segments: Sequence[Span], now: float) -> list[tuple[Span, str]]:
        """Those that go, oldest first, with the reason. A younger one never goes before an older one."""
        total = sum(segment.size for segment in segments)
        gone: list[tuple[Span, str]] = []
        for segment in segments:
            reason = self._reason(segment, total, now)
            if reason is None:
                break
            gone.append((segment, reason))
            total -= segment.size
        return gone

    def _reason(self, segment: Span, total: int, now: float) -> str | None:
        age = now - segment.last
        if age < self.at_least:
            return None
        if self.age is not None and age >= self.age:
            return "age"
        return "size" if self.size is not None and total > self.size else None


def checked_fsync(value: Fsync) -> Fsync:
    if value in ("always", "never"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigurationError(f'fsync of an audit log is "always", "never" or seconds between, not {value!r}')
    return float(value)
