"""A trace as the lines of a table: a span each, and one line for many of a kind.

    summarise                              the Each
    ├─ summarise[4]                        the slowest items, and those that failed
    ├─ summarise[9]
    └─ 9,998 more × summarise              all others: a Group

A run of ten thousand items is read as one of ten. What is on the critical path comes before what is only slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from agentflow.core.observability.trace.critical_path import critical_spans
from agentflow.core.observability.trace.totals import Totals, totals
from agentflow.core.observability.trace.tree import Span, Trace

__all__ = ["Group", "Row", "label", "rows_of"]


_NEARLY_ALL: Final = 0.9


@dataclass(frozen=True, slots=True)
class Group:
    """Several spans of a kind, shown as one."""

    name: str
    what: str
    spans: tuple[Span, ...]

    @property
    def start(self) -> float:
        return min(span.start for span in self.spans)

    @property
    def end(self) -> float:
        return max(span.end for span in self.spans)

    @property
    def usual(self) -> float:
        """The median duration."""
        return median(span.duration for span in self.spans)

    @property
    def longest(self) -> float:
        return max(span.duration for span in self.spans)

    @property
    def failed(self) -> int:
        return sum(span.status == "failed" for span in self.spans)

    def totals(self) -> Totals:
        return totals(inner for span in self.spans for inner in span.walk())


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `depth` counts from 0; `lasts` says for each level down to this one whether it is the last there.

    `call` is the model call that is all that an item's work consists of: one line tells of both.
    """

    thing: Span | Group
    lasts: tuple[bool, ...] = ()
    critical: bool = False
    call: Span | None = None

    @property
    def depth(self) -> int:
        return len(self.lasts)

    @property
    def guides(self) -> str:
        """The branches of the tree in front of it."""
        if not self.lasts:
            return ""
        above = "".join("  " if last else "│ " for last in self.lasts[:-1])
        return above + ("└ " if self.lasts[-1] else "├ ")

    @property
    def label(self) -> str:
        return f"{label(self.thing)} › {label(self.call)}" if self.call is not None else label(self.thing)

    @property
    def spans(self) -> tuple[Span, ...]:
        """What it tells of in particular."""
        return tuple(each for each in (self.thing, self.call) if isinstance(each, Span))


def label(thing: Span | Group) -> str:
    """What a line is called: `judge #2`, `summarise[4]`, `gpt-4o`, `97 more × summarise`."""
    if isinstance(thing, Group):
        return f"{len(thing.spans):,} more × {thing.name}"
    if thing.item is not None:
        return f"{thing.name}[{thing.item}]"
    if thing.what == "compensate":
        return f"undo {thing.name}"
    return f"{thing.name} #{thing.visit}" if thing.what in ("node", "flow") and thing.visit > 1 else thing.name


def rows_of(trace: Trace, *, most: int | None = 8) -> list[Row]:
    """The lines, from the outside in. Of more than `most` things of a kind in one place, the most telling are shown
    and the others grouped; None shows all."""
    root = trace.root
    return [] if root is None else list(_below(root, critical_spans(root), most))


def _below(root: Span, critical: frozenset[int], most: int | None) -> Iterator[Row]:
    waiting: list[Row] = [Row(root, (), True)]
    while waiting:
        row = waiting.pop()
        yield row
        if isinstance(row.thing, Group):
            continue
        things = _thinned(_worth_showing(row.call or row.thing), critical, most)
        inner = []
        for at, thing in enumerate(things, start=1):
            decides = isinstance(thing, Span) and thing.number in critical
            inner.append(Row(thing, (*row.lasts, at == len(things)), row.critical and decides, _only_call(thing)))
        waiting += reversed(inner)


def _worth_showing(span: Span) -> list[Span]:
    """What happened inside. A single attempt says nothing that its call does not say."""
    attempts = sum(child.what == "attempt" for child in span.children)
    return [child for child in span.children if attempts > 1 or child.what != "attempt"]


def _only_call(thing: Span | Group) -> Span | None:
    if isinstance(thing, Group) or thing.item is None or len(thing.children) != 1:
        return None
    [inner] = thing.children
    return inner if inner.what == "model" and inner.duration >= _NEARLY_ALL * thing.duration else None


def _thinned(spans: Sequence[Span], critical: frozenset[int], most: int | None) -> list[Span | Group]:
    kinds: dict[tuple[str, str, bool], list[Span]] = {}
    for span in spans:
        kinds.setdefault((span.what, span.name, span.item is not None), []).append(span)
    if most is None or all(len(kind) <= most for kind in kinds.values()):
        return list(spans)
    found: list[Span | Group] = []
    groups: list[Group] = []
    for (what, name, _), kind in kinds.items():
        if len(kind) <= most:
            found += kind
            continue
        telling = set(_telling(kind, critical, most))
        found += [span for span in kind if span.number in telling]
        groups.append(Group(name, what, tuple(span for span in kind if span.number not in telling)))
    order = {span.number: at for at, span in enumerate(spans)}
    shown = sorted((span for span in found if isinstance(span, Span)), key=lambda span: order[span.number])
    return [*shown, *groups]


def _telling(kind: Iterable[Span], critical: frozenset[int], most: int) -> list[int]:
    """The first that failed, those that run, and the slowest of those that decided, then of the others."""
    ranked = sorted(
        kind,
        key=lambda span: (
            span.status != "failed",
            span.status not in ("running", "waiting"),
            span.number not in critical,
            -span.duration,
        ),
    )
    return [span.number for span in ranked[:most]]
