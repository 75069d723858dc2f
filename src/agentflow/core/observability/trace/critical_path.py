"""What a run was waiting for at each moment: the chain of spans that decided when it ended, cut into stretches.

    flow    ├──────────────────────────────────┤
    read    ├──┤
    ask A      ├─ limiter ─┼─ generation ─┤
    ask B      ├─ generation ─┤                       it ran beside A, so nothing waited for it
    write                                 ├──┤

    stretches(flow)  ──▶  own, limiter of A, generation of A, own

From the end backwards: what ended last decided, then what had ended last when that began. It is the rule by which the
breakdowns are added up (`attribution.py`), followed in a finished run, where each stretch also has its place in time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from agentflow.core.observability.attribution import ORDER
from agentflow.core.observability.trace.span import Mark, Span

__all__ = ["Stretch", "critical_spans", "stretches"]

_WAITS: Final[Mapping[str, str]] = {"shedder_wait": "queue", "limiter_wait": "limiter", "pool_wait": "pool"}
_LEAVES: Final = frozenset({"model"})
_EDGE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of time and what it was spent on (one of `attribution.ORDER`), in the span whose time it was."""

    start: float
    end: float
    category: str
    span: Span

    @property
    def duration(self) -> float:
        return self.end - self.start


def stretches(span: Span) -> tuple[Stretch, ...]:
    """Where the time of a span went, in order, without gaps or overlaps from its start to its end."""
    return tuple(_attempted(span) if span.what == "attempt" else _filled(span, span.start, span.end))


def critical_spans(span: Span) -> frozenset[int]:
    """The numbers of the spans that decided how long it took, itself included."""
    found = {span.number}
    waiting = [span]
    while waiting:
        inner = [child for child, _, _ in _deciding(waiting.pop())]
        found.update(child.number for child in inner)
        waiting += inner
    return frozenset(found)


def _filled(span: Span, start: float, end: float) -> Iterator[Stretch]:
    """The stretches of a span between two moments."""
    if span.what in _LEAVES:
        yield from _clipped(_leaf(span), start, end)
        return
    own = _own(span)
    at = start
    for child, begins, ends in _deciding(span):
        begins, ends = max(begins, at), min(ends, end)
        if ends <= begins:
            continue
        if begins > at:
            yield from _waits(span, at, begins, own)
        yield from _filled(child, begins, ends)
        at = ends
    if end > at:
        yield from _waits(span, at, end, own)


def _own(span: Span) -> str:
    """What its time is called that nothing inside accounts for."""
    if span.what == "pause":
        return next(iter(span.breakdown), "stopped")
    return "tools" if span.what == "tool" else "own"


def _deciding(span: Span) -> list[tuple[Span, float, float]]:
    """The children on the critical path, in order, each with the time for which it was.

    Between an end and the beginning that followed, what had begun before and still ran is what was waited for.
    """
    children = sorted((child for child in span.children if child.what != "attempt"), key=lambda each: each.start)
    reach = list(accumulate((child.end for child in children), max))
    found: list[tuple[Span, float, float]] = []
    until = span.end
    for child in sorted(children, key=lambda each: (each.end, each.start), reverse=True):
        if child.end > until:
            continue
        if found:
            found += _covering(children, reach, child.end, until)
        found.append((child, child.start, child.end))
        until = child.start
    if found:
        found += _covering(children, reach, span.start, until)
    found.reverse()
    return found


def _covering(
    children: Sequence[Span], reach: Sequence[float], since: float, until: float
) -> list[tuple[Span, float, float]]:
    """What ran from before until after `until`, where nothing on the path did; `reach` is how far those before go."""
    first = bisect_right(reach, until)
    if until <= since or first == len(children) or children[first].start >= until:
        return []
    return [(children[first], max(since, children[first].start), until)]


def _waits(span: Span, start: float, end: float, own: str) -> Iterator[Stretch]:
    """A span's own time, of which its guards may have taken some: that of a node that has a limiter or is repeated."""
    at = start
    for begins, ends, category in _marked(span.marks):
        begins, ends = max(begins, at), min(ends, end)
        if ends - begins <= _EDGE:
            continue
        if begins > at:
            yield Stretch(at, begins, own, span)
        yield Stretch(begins, ends, category, span)
        at = ends
    if end > at:
        yield Stretch(at, end, own, span)


def _marked(marks: tuple[Mark, ...]) -> list[tuple[float, float, str]]:
    """Waits that were told when they were over, and pauses that were told when they began."""
    found = []
    for mark in marks:
        waited, delay = _seconds(mark, "seconds"), _seconds(mark, "delay")
        if mark.kind in _WAITS and waited:
            found.append((mark.at - waited, mark.at, _WAITS[mark.kind]))
        elif mark.kind == "retry" and delay:
            found.append((mark.at, mark.at + delay, "backoff"))
    return sorted(found)


def _seconds(mark: Mark, name: str) -> float:
    said = mark.data.get(name)
    return float(said) if isinstance(said, int | float) and said > 0.0 else 0.0


# ---- a model call --------------------------------------------------------------------------------------------


def _leaf(span: Span) -> list[Stretch]:
    """A call's time: what has a known place there, and around that the rest of its breakdown in its usual order."""
    left = {name: span.breakdown.get(name, 0.0) for name in _usual(span)}
    placed: list[Stretch] = []
    at = span.start
    for begins, ends, category in sorted([*_marked(span.marks), *_failed(span)]):
        begins, ends = max(begins, at), min(ends, span.end, max(begins, at) + left.get(category, 0.0))
        if ends - begins <= _EDGE:
            continue
        placed.append(Stretch(begins, ends, category, span))
        left[category] -= ends - begins
        at = ends
    return list(_around(span, placed, left))


def _attempted(span: Span) -> Iterator[Stretch]:
    """One attempt: getting a connection, then what came of it."""
    at = span.start
    for category in ("pool", "connect"):
        said = span.data.get(category)
        until = min(span.end, at + said) if isinstance(said, int | float) and said > 0.0 else at
        if until > at:
            yield Stretch(at, until, category, span)
            at = until
    if span.end > at:
        yield Stretch(at, span.end, "failed" if span.status in ("failed", "cancelled") else "generation", span)


def _failed(span: Span) -> Iterator[tuple[float, float, str]]:
    for child in span.children:
        if child.what == "attempt" and child.status == "failed":
            yield child.start, child.end, "failed"


def _usual(span: Span) -> list[str]:
    return [*ORDER, *(name for name in span.breakdown if name not in ORDER)]


def _around(span: Span, placed: list[Stretch], left: dict[str, float]) -> Iterator[Stretch]:
    """Fill the gaps with what is left, in order; what nothing accounts for is unattributed."""
    at = span.start
    for fixed in [*placed, None]:
        until = span.end if fixed is None else fixed.start
        for name, seconds in left.items():
            taken = min(seconds, until - at)
            if taken > _EDGE:
                yield Stretch(at, at + taken, name, span)
                left[name] -= taken
                at += taken
        if until - at > _EDGE:
            yield Stretch(at, until, "unattributed", span)
        if fixed is not None:
            yield fixed
            at = fixed.end


def _clipped(found: list[Stretch], start: float, end: float) -> Iterator[Stretch]:
    for each in found:
        begins, ends = max(each.start, start), min(each.end, end)
        if ends - begins > _EDGE:
            yield Stretch(begins, ends, each.category, each.span)
