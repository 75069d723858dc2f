"""Real traffic, replayed: when requests came, how long their prompts and answers were.

    Trace.read("AzureLLMInferenceTrace_conv.csv")     TIMESTAMP, ContextTokens, GeneratedTokens
    Trace.read("mooncake.jsonl")                      {"timestamp": ms, "input_length": …, "output_length": …}

    trace.at_rate(5.0)                the same bursts, stretched so that five come in a second on average
    trace.moments(60.0, dice)         what of it falls into a minute; nothing is drawn, so the dice are not thrown
    trace.lengths                     [(374, 44), …], to make prompts of (see `synthetic`)

The CSV is the format of Azure's public data set; the lines of JSON are Mooncake's.
"""

from __future__ import annotations

import csv
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Final

from agentflow.errors import ConfigurationError, DocumentError
from agentflow.mcp.optimization.benchmark.arrivals import MOST_ARRIVALS, positive

__all__ = ["Arrival", "Trace"]

_COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_FIELDS: Final = ("timestamp", "input_length", "output_length")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace: `at` in seconds from the first one, and its lengths in tokens."""

    at: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals in ascending order, the first at 0. There are at least two, at different moments."""

    arrivals: tuple[Arrival, ...]
    name: str = "trace"

    def __post_init__(self) -> None:
        moments = [each.at for each in self.arrivals]
        if len(moments) < 2 or moments[0] != 0.0 or moments[-1] <= 0.0 or moments != sorted(moments):
            raise ConfigurationError(
                f"{self.name}: a trace is two arrivals at least, in ascending order, the first of them at 0"
            )

    @classmethod
    def read(cls, path: str | Path) -> Trace:
        """A file of either format. Lines need not be in order. Raises DocumentError with the line that is wrong."""
        path = Path(path)
        try:
            with path.open(encoding="utf-8-sig", newline="") as lines:
                rows = list(_rows(lines, path))
        except (OSError, UnicodeDecodeError) as error:
            raise DocumentError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        if len(rows) < 2:
            raise DocumentError(f"{path}: holds {len(rows)} arrivals; a trace needs two at least")
        rows.sort(key=lambda row: row.at)
        first = rows[0].at
        shifted = tuple([Arrival(row.at - first, row.prompt_tokens, row.output_tokens) for row in rows])
        if shifted[-1].at <= 0.0:
            raise DocumentError(f"{path}: all arrivals are at the same moment, so there is no rate to replay")
        return cls(shifted, path.name)

    @property
    def duration(self) -> float:
        """Seconds from the first arrival to the last."""
        return self.arrivals[-1].at

    @property
    def rate(self) -> float:
        """Arrivals a second: one fewer than there are, over the time between the first and the last."""
        return (len(self.arrivals) - 1) / self.duration

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Tokens of prompt and answer, in the order of arrival."""
        return [(each.prompt_tokens, each.output_tokens) for each in self.arrivals]

    def at_rate(self, rate: float) -> Trace:
        """The same trace, its time stretched or pressed evenly: every gap keeps its share of the whole."""
        factor = self.rate / positive("rate", rate)
        scaled = tuple([Arrival(each.at * factor, each.prompt_tokens, each.output_tokens) for each in self.arrivals])
        return Trace(scaled, self.name)

    def moments(self, duration: float, dice: Random) -> list[float]:
        """Those below `duration`; fewer where the trace is shorter: it is not repeated."""
        moments = [each.at for each in self.arrivals]
        return moments[: min(bisect_left(moments, duration), MOST_ARRIVALS)]


def _rows(lines: Iterable[str], path: Path) -> Iterator[Arrival]:
    numbered = iter(lines)
    head = next(numbered, "")
    if head.lstrip().startswith("{"):
        yield from _from_json([head, *numbered], path)
        return
    reader = csv.DictReader([head, *numbered])
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DocumentError(
            f"{path}: no column {', '.join(missing)}; a trace is CSV with the columns {', '.join(_COLUMNS)}, "
            f"or lines of JSON with {', '.join(_FIELDS)}"
        )
    for row in reader:
        try:
            at = datetime.fromisoformat(row[_COLUMNS[0]]).timestamp()
            yield _arrival(at, int(row[_COLUMNS[1]]), int(row[_COLUMNS[2]]))
        except (TypeError, ValueError) as error:
            raise DocumentError(f"{path}:{reader.line_num}: {error}") from None


def _from_json(lines: Iterable[str], path: Path) -> Iterator[Arrival]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield _arrival(float(row[_FIELDS[0]]) / 1000.0, int(row[_FIELDS[1]]), int(row[_FIELDS[2]]))
        except KeyError as error:
            raise DocumentError(f"{path}:{number}: there is no {error.args[0]}") from None
        except (TypeError, ValueError) as error:
            raise DocumentError(f"{path}:{number}: {error}") from None


def _arrival(at: float, prompt_tokens: int, output_tokens: int) -> Arrival:
    if prompt_tokens < 0 or output_tokens < 0:
        raise ValueError("a number of tokens is below 0")
    return Arrival(at, prompt_tokens, output_tokens)
