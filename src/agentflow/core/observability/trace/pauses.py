"""A run in several stretches as one: the time between them, in which nobody ran it, is a span called a pause.

    stretch 0  ├─ read ─┼─ judge ─┤ parked
    pause                         ├──── waiting for an answer ────┤
    stretch 1                                                     ├─ judge ─┼─ write ─┤

    lined_up({0: (0, 3), 1: (2, 5)})    ──▶  stretch 1 is shown 1 s later: the clock was set back meanwhile
    joined([flow, flow], until)         ──▶  [flow]: what all of them did, and the pauses between

The steps that a later stretch took from the journal stand where they happened, and so do flows and `Each`es of which it
did nothing anew. What was at work when a process died
ends where that process was last heard of, and is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from agentflow.core.observability.attribution import merged
from agentflow.core.observability.events import STRETCH
from agentflow.core.observability.trace.span import Span

__all__ = ["joined", "lined_up"]

_OF_AN_END: Final = ("error", "error_type", "action")


def lined_up(reach: Mapping[int, tuple[float, float]]) -> tuple[dict[int, float], dict[int, float]]:
    """By stretch: how much later it is shown than it says, so that none begins before the one before it has ended; and
    when it ends then. `reach` is the first and the last moment of each."""
    shifts: dict[int, float] = {}
    ends: dict[int, float] = {}
    until = 0.0
    for stretch in sorted(reach):
        since, last = reach[stretch]
        shifts[stretch] = max(0.0, until - since)
        ends[stretch] = until = last + shifts[stretch]
    return shifts, ends


def joined(roots: Sequence[Span], until: float, *, cancelled: bool) -> list[Span]:
    """The outermost spans of all stretches as one span. One that waits does so `until` then; `cancelled` says that it
    was ended from outside."""
    if not roots:
        return []
    first, last = roots[0], roots[-1]
    pauses = [pause for before, after in pairwise(roots) if (pause := _pause(before, after.start, _stretch(after)))]
    if last.status == "waiting" and (waits := _pause(last, until, _stretch(last) + 1)):
        pauses.append(replace(waits, status="waiting"))
    children = [*_done_once(roots), *pauses]
    data = {name: said for root in roots[:-1] for name, said in root.data.items() if name not in _OF_AN_END}
    whole = replace(
        first,
        end=max(span.end for span in (*roots, *pauses)),
        status="cancelled" if cancelled and last.status in ("waiting", "unknown") else last.status,
        data={**data, **last.data},
        breakdown=merged(*(root.breakdown for root in roots), *(pause.breakdown for pause in pauses)),
        marks=tuple(mark for root in roots for mark in root.marks),
        children=tuple(
            replace(span, parent=first.number) for span in sorted(children, key=lambda span: (span.start, span.number))
        ),
    )
    return [whole]


def _done_once(roots: Sequence[Span]) -> Iterator[Span]:
    """What the stretches did. A flow or an `Each` that a later one only walked through, to find everything in the
    journal, stands where it happened."""
    done: set[str] = set()
    for root in roots:
        inside = [span for child in _inside(root) if (span := _without_walks(child, done)) is not None]
        yield from inside
        done.update(span.path for child in inside for span in child.walk() if span.status == "done")


def _without_walks(span: Span, done: set[str]) -> Span | None:
    if span.children:
        inside = [inner for child in span.children if (inner := _without_walks(child, done)) is not None]
        if len(inside) < len(span.children):
            span = replace(span, children=tuple(inside))
    is_walked = span.what == "flow" or "items" in span.data
    empty = not span.children and not span.marks and span.status == "done"
    return None if is_walked and empty and span.path in done else span


def _inside(root: Span) -> Iterator[Span]:
    """What a stretch did; where its beginning was lost, its first span stands for it."""
    if root.what == "flow":
        yield from root.children
    else:
        yield root


def _pause(before: Span, until: float, stretch: int) -> Span | None:
    """From the end of a stretch until the next one, `stretch`, began: its number is the one below that one's first."""
    if until <= before.end:
        return None
    parked = before.status in ("parked", "waiting")
    return Span(
        stretch * STRETCH,
        before.number,
        "pause",
        _waited_for(before) if parked else "stopped",
        before.path,
        before.end,
        until,
        "done",
        breakdown={"waiting" if parked else "stopped": until - before.end},
    )


def _waited_for(root: Span) -> str:
    kinds = {mark.kind for span in root.walk() for mark in span.marks}
    return "waiting for a timer" if "timer" in kinds and "interrupt" not in kinds else "waiting for an answer"


def _stretch(span: Span) -> int:
    return span.number // STRETCH
