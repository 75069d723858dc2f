"""A run's events put together again: a tree of what began and ended in it.

    flow_start, node_start, model_start, retry, model_success, node_success, flow_success
        └──▶  Span flow digest
                └─ Span node write
                     └─ Span model gpt-4o · Mark retry

    found = trace_of(events)
    found.root.duration, found.root.breakdown, found.root.children

It takes what there is. Of a run that still goes on, spans are "running"; an end that was lost leaves a span "unknown",
a beginning that was lost is worked out from the end, and a span whose parent was lost hangs below the root. Events may
come in any order and more than once. Gaps in their numbers say nothing: the pieces of streams are numbered as well.

A run that was parked, or whose process died, and went on later is one tree: what its stretches did stands in one root,
with a pause between each two (`pauses.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from agentflow.core.observability.attribution import Account, Entry, Parts
from agentflow.core.observability.events import STRETCH, ExecutionEvent, stretch_of
from agentflow.core.observability.trace.pauses import joined, lined_up
from agentflow.core.observability.trace.span import Mark, Span, Status

__all__ = ["Mark", "Span", "Status", "Trace", "trace_of"]

_ENDS: Final[Mapping[str, Status]] = {
    "success": "done",
    "error": "failed",
    "cancelled": "cancelled",
    "refused": "refused",
    "interrupted": "waiting",
}
_ACCOUNTED: Final = frozenset({"flow", "node", "model", "tool", "compensate"})
_KNOWN: Final = _ACCOUNTED | {"attempt"}
_OWN: Final = {"model": "unattributed", "tool": "tools"}
"""What the time is called that nothing inside accounts for; elsewhere it is one's own."""
_NO_DATA: Final[Mapping[str, object]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Trace:
    """One run. `started` is wall time.

    `roots` has one span, unless nothing is known yet, beginnings were lost, or it is a question to a model outside of
    any flow: each request that it takes stands at the top then. `root` is around all of them.
    """

    run_id: str
    roots: tuple[Span, ...]
    started: float
    marks: tuple[Mark, ...] = ()
    """What happened in no span: feedback, alerts."""
    events: int = 0

    @property
    def root(self) -> Span | None:
        return self.roots[0] if len(self.roots) == 1 else _around(self.roots)

    @property
    def name(self) -> str:
        return self.roots[0].name if self.roots else ""

    @property
    def status(self) -> Status:
        return _together(self.roots) if self.roots else "unknown"

    @property
    def start(self) -> float:
        return min((root.start for root in self.roots), default=0.0)

    @property
    def end(self) -> float:
        return max((root.end for root in self.roots), default=0.0)

    @property
    def duration(self) -> float:
        return self.end - self.start

    @property
    def graph(self) -> Mapping[str, object] | None:
        """The outline of the flow, where the first event brought it."""
        found = self.roots[0].data.get("graph") if self.roots else None
        return found if isinstance(found, Mapping) else None

    @property
    def parked(self) -> float:
        """Seconds in which nobody ran it, as it waited for an answer or a timer, or for somebody to go on with it."""
        return sum(span.duration for root in self.roots for span in root.children if span.what == "pause")

    def walk(self) -> Iterator[Span]:
        for root in self.roots:
            yield from root.walk()


def trace_of(events: Iterable[ExecutionEvent], *, now: float | None = None, over: bool = False) -> Trace:
    """Put a run together. `now`, in seconds since it began, is how far an unfinished run has come, also one that waits
    (else as far as its last event); `over` says that it will not go on, whatever is missing.

    Events of several runs do not belong together: only those of the first one's run are taken.
    """
    building = _Building()
    for event in events:
        building.take(event)
    return building.trace(now, over)


class _Draft:
    """A span that is still being put together."""

    __slots__ = ("children", "ended", "first", "last", "marks", "number", "what")

    def __init__(self, number: int, what: str) -> None:
        self.number = number
        self.what = what
        self.first: ExecutionEvent | None = None
        self.last: ExecutionEvent | None = None
        self.ended: Status | None = None
        self.marks: list[Mark] = []
        self.children: list[Span] = []

    @property
    def event(self) -> ExecutionEvent:
        found = self.first or self.last
        assert found is not None
        return found

    @property
    def stretch(self) -> int:
        return self.number // STRETCH

    @property
    def start(self) -> float:
        if self.first is not None:
            return self.first.at
        return max(0.0, self.event.at - (self.event.duration or 0.0))

    def move(self, seconds: float) -> None:
        """Its stretch is shown so much later."""
        if seconds:
            self.first, self.last = (each and replace(each, at=each.at + seconds) for each in (self.first, self.last))
            self.marks = [replace(mark, at=mark.at + seconds) for mark in self.marks]

    @property
    def data(self) -> dict[str, object]:
        return {**(self.first.data if self.first else _NO_DATA), **(self.last.data if self.last else _NO_DATA)}


class _Building:
    """Takes events in any order, then hangs spans into each other from the inside out."""

    def __init__(self) -> None:
        self._run: str | None = None
        self._seen: set[int] = set()
        self._events = 0
        self._started: dict[int, float] = {}  # by stretch: the wall time of the run's beginning
        self._reach: dict[int, tuple[float, float]] = {}  # by stretch: its first and its last moment
        self._ended_outside = False
        self._drafts: dict[int, _Draft] = {}
        self._loose: list[tuple[int, int | None, Mark]] = []

    def take(self, event: ExecutionEvent) -> None:
        if self._run is None:
            self._run = event.run_id
        if event.run_id != self._run or event.sequence in self._seen:
            return
        self._events += 1
        if event.sequence <= 0:  # said after the run, when nobody counted any more
            self._loose.append((0, None, _mark(event)))
            self._ended_outside = self._ended_outside or event.kind == "cancel"
            return
        self._seen.add(event.sequence)
        stretch, at = stretch_of(event), event.at
        since, until = self._reach.get(stretch, (at, at))
        self._reach[stretch] = min(since, at), max(until, at)
        self._started[stretch] = min(self._started.get(stretch, float("inf")), event.time - at)
        self._place(event)

    def _place(self, event: ExecutionEvent) -> None:
        what, _, rest = event.kind.rpartition("_")
        if rest == "start" and event.span == event.sequence:
            self._draft(event.span, what).first = event
        elif rest in _ENDS and event.duration is not None and self._ends(event, what):
            draft = self._draft(event.span, what)
            draft.last, draft.ended = event, _ENDS[rest]
        elif event.kind != "chunk":
            self._loose.append((event.span, event.parent, _mark(event)))

    def _ends(self, event: ExecutionEvent, what: str) -> bool:
        """Whether it ends its span, and not only happened in it."""
        if event.span == event.sequence:
            return False
        known = self._drafts.get(event.span)
        return what in _KNOWN if known is None else known.what == what

    def _draft(self, number: int, what: str) -> _Draft:
        found = self._drafts.get(number)
        if found is None:
            found = self._drafts[number] = _Draft(number, what)
        return found

    # ---- the tree

    def trace(self, now: float | None, over: bool) -> Trace:
        shifts, ends = lined_up(self._reach)
        newest = max(self._reach, default=0)
        parents = self._parents()
        top = [draft for draft in self._drafts.values() if parents[draft.number] is None and draft.stretch == newest]
        over = over or self._ended_outside or (bool(top) and all(draft.ended is not None for draft in top))
        reached = ends.get(newest, 0.0)
        until = reached if over or now is None else max(reached, now)
        marks = self._hang_marks()
        roots: list[Span] = []
        for number in sorted(self._drafts, reverse=True):  # what is inside began later
            parent, draft = parents[number], self._drafts[number]
            draft.move(shifts.get(draft.stretch, 0.0))
            if draft.stretch < newest:
                span = _span(draft, parent, ends[draft.stretch], "lost", "parked")
            else:
                span = _span(draft, parent, until, "unknown" if over else "running", "waiting")
            (roots if parent is None else self._drafts[parent].children).append(span)
        roots.reverse()
        if newest or any(root.status == "waiting" for root in roots):
            waits = max(reached, now) if now is not None and not self._ended_outside else reached
            roots = joined(roots, waits, cancelled=self._ended_outside)
        started = self._started[min(self._started)] if self._started else 0.0
        return Trace(self._run or "", tuple(roots), started, marks, self._events)

    def _parents(self) -> dict[int, int | None]:
        """What each span hangs in: its parent, or the first span of its stretch where that was lost."""
        firsts: dict[int, int] = {}
        for number in sorted(self._drafts):
            firsts.setdefault(self._drafts[number].stretch, number)
        found: dict[int, int | None] = {}
        for number, draft in self._drafts.items():
            first = firsts[draft.stretch]
            parent = draft.event.parent
            if parent is not None and (parent not in self._drafts or parent >= number):
                parent = first
            found[number] = None if parent is None or number == first else parent
        return found

    def _hang_marks(self) -> tuple[Mark, ...]:
        rest = []
        for span, parent, mark in sorted(self._loose, key=lambda loose: loose[2].number):
            draft = self._drafts.get(span) or self._drafts.get(parent or 0)
            if draft is None:
                rest.append(mark)
            else:
                draft.marks.append(mark)
        return tuple(rest)


def _around(roots: tuple[Span, ...]) -> Span | None:
    """A span that nobody told of, around several."""
    if not roots:
        return None
    first, start, end = roots[0], min(root.start for root in roots), max(root.end for root in roots)
    return Span(
        0,
        None,
        "question",
        first.name,
        first.path,
        start,
        end,
        _together(roots),
        data={name: first.data[name] for name in ("tenant", "parent_run") if name in first.data},
        breakdown=_account("node", start, end, roots),
        children=roots,
    )


def _together(roots: tuple[Span, ...]) -> Status:
    """How several stand: what still runs says so, else what came last."""
    running = any(root.status == "running" for root in roots)
    return "running" if running else max(roots, key=lambda root: root.end).status


def _mark(event: ExecutionEvent) -> Mark:
    return Mark(event.kind, event.at, event.sequence, event.attempt, event.data)


def _span(draft: _Draft, parent: int | None, until: float, no_end: Status, parked: Status) -> Span:
    """`no_end` is how it stands where its end is not known, `parked` where it was interrupted."""
    event, data, start = draft.event, draft.data, draft.start
    status = parked if draft.ended == "waiting" else draft.ended or no_end
    end = max(start, draft.last.at if draft.last else until)
    children = tuple(reversed(draft.children))
    item = _item(event.path) if draft.what == "node" else None
    given = _parts(data.pop("breakdown", None))
    return Span(
        draft.number,
        parent,
        draft.what,
        _name(draft.what, event, data),
        event.path,
        start,
        end,
        status,
        draft.last.attempt if draft.last else event.attempt,
        event.visit,
        item,
        MappingProxyType(data),
        _account(draft.what, start, end, children) if given is None else given,
        tuple(draft.marks),
        children,
    )


def _name(what: str, event: ExecutionEvent, data: Mapping[str, object]) -> str:
    if what == "attempt":
        return f"attempt {event.attempt}"
    said = data.get(what) if what in ("model", "tool") else None
    return str(said) if said else event.node or event.path.split("/", 1)[0]


def _item(path: str) -> int | None:
    """The index of the item whose whole work stands at `path`: `digest/summarise#1/7` → 7."""
    last = path.rpartition("/")[2]
    return int(last) if last.isascii() and last.isdigit() else None


def _parts(said: object) -> Parts | None:
    if not isinstance(said, Mapping):
        return None
    return {str(name): float(value) for name, value in said.items() if isinstance(value, int | float) and value > 0.0}


def _account(what: str, start: float, end: float, children: Iterable[Span]) -> Parts:
    """Where the time went, for what did not say so itself: worked out from what ran inside."""
    if what not in _ACCOUNTED:
        return {}
    account = Account(start, _OWN.get(what, "own"))
    steps: list[tuple[float, int, int, Span]] = []
    for child in children:
        if child.what in _ACCOUNTED:
            steps.append((child.start, 1, child.number, child))
            steps.append((child.end, 0 if child.duration else 2, child.number, child))
    entries: dict[int, Entry] = {}
    for at, order, number, child in sorted(steps, key=lambda step: step[:3]):
        if order == 1:
            entries[number] = Entry()
            account.begin(entries[number], at)
        else:
            account.end(entries[number], at, child.breakdown)
    return account.total(end)
