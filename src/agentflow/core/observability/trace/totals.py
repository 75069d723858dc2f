"""What was used and spent in a run, added up: for all of it, by model, by node.

    totals(trace.walk())            ──▶  Totals(calls=12, input_tokens=4,200, cost=0.013, unpriced=2, …)
    totals_by(trace, by_model)      ──▶  {"gpt-4o": Totals(…), "fast": Totals(…)}

Costs are in US dollars. A call whose price nobody knows is no free call: `unpriced` counts them, and `cost` is what is
known of the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, TypeAlias

from agentflow.core.observability.trace.tree import Span, Trace

__all__ = ["Totals", "by_model", "by_node", "place_of", "totals", "totals_by"]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over model calls. `seconds` adds calls up that ran side by side; `lost` counts requests sent in vain."""

    calls: int = 0
    failed: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    priced: int = 0
    unpriced: int = 0
    lost: int = 0
    seconds: float = 0.0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def known_cost(self) -> float | None:
        """The cost as far as it is known; None where nothing of it is."""
        return None if self.unpriced and not (self.priced or self.cost) else self.cost


_NAMES: Final = tuple(field.name for field in fields(Totals))
_Row: TypeAlias = tuple[float, ...]


def totals(spans: Iterable[Span]) -> Totals:
    """The sum over the model calls among them."""
    return _sum([_of(span) for span in spans if span.what == "model"])


def totals_by(trace: Trace, key: Callable[[Span], str]) -> dict[str, Totals]:
    """The sums over the run's model calls by what `key` makes of each, the dearest first."""
    found: dict[str, list[_Row]] = {}
    for span in trace.walk():
        if span.what == "model":
            found.setdefault(key(span), []).append(_of(span))
    sums = {name: _sum(rows) for name, rows in found.items()}
    return dict(sorted(sums.items(), key=lambda entry: (-entry[1].cost, -entry[1].seconds, entry[0])))


def by_model(span: Span) -> str:
    """The model's configured name."""
    return str(span.data.get("model") or span.name)


def by_node(span: Span) -> str:
    """The place in the flow, whatever the visit."""
    return place_of(span.path)


def place_of(path: str) -> str:
    """A path without visits and items: `digest/summarise#1/7` → `digest/summarise`."""
    kept = [re.sub(r"#\d+\Z", "", part) for part in path.split("/") if not (part.isascii() and part.isdigit())]
    return "/".join(kept)


def _of(span: Span) -> _Row:
    """One call's amounts, in the order of the fields of Totals."""
    data = span.data
    cost = data.get("cost")
    priced = isinstance(cost, int | float)
    return (
        1,
        span.status == "failed",
        sum(child.what == "attempt" for child in span.children) or _attempts(data),
        _count(data.get("input_tokens")),
        _count(data.get("output_tokens")),
        _count(data.get("cached_tokens")),
        _count(data.get("reasoning_tokens")),
        _amount(cost) + _amount(data.get("lost_cost")),
        priced,
        not priced and (span.status == "done" or "cost" in data),
        _count(data.get("lost_requests")),
        span.duration,
    )


def _sum(rows: Sequence[_Row]) -> Totals:
    """Column by column: a run may have a hundred thousand calls."""
    if not rows:
        return Totals()
    calls, failed, attempts, read, written, cached, thought, cost, priced, unpriced, lost, seconds = map(
        sum, zip(*rows, strict=True)
    )
    return Totals(
        int(calls), int(failed), int(attempts), int(read), int(written), int(cached), int(thought),
        float(cost), int(priced), int(unpriced), int(lost), float(seconds),
    )  # fmt: skip


def _attempts(data: Mapping[str, object]) -> int:
    timing = data.get("timing")
    return _count(timing.get("attempts")) if isinstance(timing, Mapping) else 0


def _amount(said: object) -> float:
    return float(said) if isinstance(said, int | float) else 0.0


def _count(said: object) -> int:
    return int(said) if isinstance(said, int | float) and said > 0 else 0
