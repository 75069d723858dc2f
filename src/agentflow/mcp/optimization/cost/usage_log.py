"""The log that proposals are made from: calls in the order of time, read from a neutral file or written to one.

    UsageLog.read("calls.jsonl")  ──▶  UsageLog  ──write("copy.jsonl")──▶  one JSON object a line, fields as in `Call`

Raises ConfigurationError, with the line, for what is no such file. What the run store has recorded is read by
`recorded.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Final, overload

import msgspec

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.cost.call import Call

__all__ = ["UsageLog"]

_DAY: Final = 86_400.0
_SHORTEST: Final = 3_600.0  # what is shorter says nothing about a day


class UsageLog(Sequence[Call]):
    """Calls, the oldest first. `source` says where they come from; `notes` what is missing in them, one sentence each.

    `seconds` is the time that the log covers: what was given, else from its first call to its last, and never less than
    an hour. Raises ConfigurationError where a cost is in another currency, or a number is impossible.
    """

    __slots__ = ("_calls", "notes", "seconds", "source")

    def __init__(
        self, calls: Iterable[Call], *, source: str = "", notes: Iterable[str] = (), seconds: float | None = None
    ) -> None:
        self._calls: Final = tuple(sorted(calls, key=lambda call: call.at))
        for number, call in enumerate(self._calls, 1):
            _check(call, f"call {number}")
        self.source: Final = source
        self.notes: Final = tuple(notes)
        self.seconds: Final = max(self._span if seconds is None else seconds, _SHORTEST)

    @property
    def days(self) -> float:
        return self.seconds / _DAY

    @property
    def is_short(self) -> bool:
        """Whether it covers less than the hour that it is taken for."""
        return self._span < _SHORTEST

    @property
    def _span(self) -> float:
        return self._calls[-1].at - self._calls[0].at if self._calls else 0.0

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Call, ...]: ...
    def __getitem__(self, index: int | slice) -> Call | tuple[Call, ...]:
        return self._calls[index]

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    @classmethod
    def read(cls, path: str | Path, *, since: float | None = None) -> UsageLog:
        """A file of the neutral format, or its calls since then."""
        file = Path(path).expanduser()
        try:
            calls = [call for call in _calls_in(file) if since is None or call.at >= since]
        except OSError as error:
            raise ConfigurationError(f"the log cannot be read: {error.strerror or error}", source=str(file)) from error
        return cls(calls, source=str(path))

    def write(self, path: str | Path) -> None:
        """The same calls as a file of the neutral format."""
        encoder = msgspec.json.Encoder()
        Path(path).write_bytes(b"".join(encoder.encode(call) + b"\n" for call in self._calls))


def _calls_in(file: Path) -> Iterator[Call]:
    decoder = msgspec.json.Decoder(Call)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                call = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"no call of a log: {error}; docs/cost_optimizer.md says which fields there are",
                    source=f"{file}:{number}",
                ) from error
            _check(call, f"{file}:{number}")
            yield call


def _check(call: Call, where: str) -> None:
    wrong = _wrong(call)
    if wrong:
        raise ConfigurationError(wrong, source=where)


def _wrong(call: Call) -> str | None:
    if call.currency != "USD":
        return f"its cost is in {call.currency!r}: costs are US dollars here, so convert it, or leave it out"
    if not isfinite(call.at):
        return "`at` is no time"
    for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "prefix_tokens"):
        if getattr(call, name) < 0:
            return f"`{name}` is less than 0"
    if call.cost is not None and not 0.0 <= call.cost < float("inf"):
        return "`cost` is no amount of dollars"
    for name in ("score", "propensity"):
        value = getattr(call, name)
        if value is not None and not 0.0 <= value <= 1.0:
            return f"`{name}` is not between 0 and 1"
    return None
