"""The spans that have begun and not ended, within bounds, and where the runs stood that are over.

    table.put(key, span)  ──▶  what had to go for it: the oldest, where there are too many
    table.remove(key)     ──▶  the span, once

A run that never ends must not fill the memory: its spans are put out, and counted, when there are more than `room`.
Serves several threads; a lock is held for a look at a dictionary, and never while others' code runs.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, TypeAlias

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, get_current_span, set_span_in_context

from agentflow.integrations.opentelemetry.facts import Attributes

__all__ = ["Key", "OpenRun", "OpenSpan", "OpenSpans"]

Key: TypeAlias = tuple[str, int]
"""The run's id and the number of the event that began the span."""

_REMEMBERED: Final = 1_000  # runs that are over, and batches


@dataclass(slots=True, eq=False)
class OpenSpan:
    """`server` is what its last attempt spoke to, `chunk_at` when the last piece came."""

    what: str
    span: Span
    context: Context
    start: int
    recording: bool
    data: Mapping[str, object]
    server: Attributes | None = None
    chunk_at: float | None = None

    def again(self, what: str, data: Mapping[str, object]) -> OpenSpan:
        """The same span for something inside it, where neither is recorded."""
        return OpenSpan(what, self.span, self.context, self.start, False, data)


@dataclass(slots=True, eq=False)
class OpenRun:
    """`began` is the wall time of its beginning in nanoseconds: all its times are that and monotonic offsets.

    `root` is its outermost span, `open` the number of its spans that are open. `silent` is the first span, where it is
    certain that neither it nor anything inside is recorded: it then stands for all that is inside.
    """

    began: int
    root: Context | None = None
    open: int = 0
    silent: OpenSpan | None = None


class OpenSpans:
    """At most `room` of them; `evicted` counts those that were put out."""

    def __init__(self, room: int) -> None:
        self._room = room
        self.evicted = 0
        self._renew()

    def _renew(self) -> None:
        """After a fork the spans are the parent's, and its lock may be held for ever."""
        self._lock = threading.RLock()  # the collector may end an abandoned span within any line here
        self._spans: dict[Key, OpenSpan] = {}
        self._runs: dict[str, OpenRun] = {}
        self._over: OrderedDict[str, SpanContext] = OrderedDict()
        self._batches: OrderedDict[str, SpanContext] = OrderedDict()
        self._process = os.getpid()

    def _alone(self) -> AbstractContextManager[object]:
        if self._process != os.getpid():
            self._renew()
        return self._lock

    def __len__(self) -> int:
        return len(self._spans)

    def get(self, key: Key) -> OpenSpan | None:
        return self._spans.get(key)

    def run(self, run_id: str) -> OpenRun | None:
        """The run, if a span of it is open."""
        return self._runs.get(run_id)

    def put(self, key: Key, entry: OpenSpan, run: OpenRun) -> OpenSpan | None:
        """The oldest one, if there was no room."""
        with self._alone():
            self._runs[key[0]] = run
            self._spans[key] = entry
            run.open += 1
            if run.root is None:
                over = self._over.get(key[0])
                run.root = entry.context if over is None else _at(over)  # what comes late changes nothing
            if len(self._spans) <= self._room:
                return None
            self.evicted += 1
            return self.remove(next(iter(self._spans)))

    def remove(self, key: Key) -> OpenSpan | None:
        with self._alone():
            entry = self._spans.pop(key, None)
            run = self._runs.get(key[0])
            if entry is not None and run is not None:
                run.open -= 1
                if run.open <= 0:
                    del self._runs[key[0]]
                    _remember(self._over, key[0], run.root)
            return entry

    def root(self, run_id: str) -> Context | None:
        """Where the run stands, or stood, as long as that is remembered."""
        with self._alone():
            run = self._runs.get(run_id)
            if run is not None:
                return run.root
            over = self._over.get(run_id)
            return None if over is None else _at(over)

    def batch(self, batch: str) -> SpanContext | None:
        """Where the batch's first run stands."""
        return self._batches.get(batch)

    def note_batch(self, batch: str, context: Context) -> None:
        """A run of the batch stands there; the first one counts."""
        with self._alone():
            if batch not in self._batches:
                _remember(self._batches, batch, context)


def _at(place: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(place), Context())


def _remember(those: OrderedDict[str, SpanContext], name: str, context: Context | None) -> None:
    """The place of the span that is current there, and not the span with all it knows."""
    if context is None:
        return
    those[name] = get_current_span(context).get_span_context()
    those.move_to_end(name)
    if len(those) > _REMEMBERED:
        those.popitem(last=False)
