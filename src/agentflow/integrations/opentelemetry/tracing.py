"""Events become spans: each is begun, told of what happens in it, and ended, at the times that the events say.

    flow_start ─ node_start ─ model_start ─ attempt_start      ──▶   invoke_workflow article
    rejected, retry, fallback, …   events of the span                └─ node write
    *_success, *_error, *_cancelled, …                                  └─ chat gpt-4o
                                                                           └─ POST

Times are the wall clock's at the beginning of the run, and monotonic from there on: a clock that is set in between
makes no span end before it began. While a flow, a node or a tool runs, its span is the current one there, so that the
spans of other libraries become its children.
"""

from __future__ import annotations

from typing import Final

from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer, set_span_in_context

from agentflow.core.observability.events import ExecutionEvent
from agentflow.integrations.opentelemetry import semconv as names
from agentflow.integrations.opentelemetry.facts import beginning, server
from agentflow.integrations.opentelemetry.open_spans import Key, OpenRun, OpenSpan, OpenSpans
from agentflow.integrations.opentelemetry.recording import Recorder
from agentflow.integrations.opentelemetry.sampling import children_follow
from agentflow.integrations.opentelemetry.surroundings import surroundings

__all__ = ["Tracing"]

_SECOND: Final = 1_000_000_000  # nanoseconds
_BEFORE: Final = otel.create_key("agentflow-before")
_AROUND: Final = ("flow", "node", "compensate", "tool")  # users' code runs in them, and they end where they began

_BESIDE: Final = ("alert", "cancel")  # a rule looks at everything; a run that nobody was running has no span


class Tracing:
    """Spans of `tracer`, at most `room` of them open. `unplaced` counts events of no span that is known."""

    def __init__(self, tracer: Tracer, recorder: Recorder, *, room: int, activate: bool) -> None:
        self._tracer = tracer
        self._recorder = recorder
        self._activate = activate
        self.spans = OpenSpans(room)
        self.unplaced = 0
        self._sampler: object = None  # of which it is known whether children follow
        self._children_follow = False

    def begin(self, what: str, event: ExecutionEvent) -> None:
        run = self.spans.run(event.run_id) or OpenRun(_began(event))
        inside = event.parent is not None
        if inside and run.silent is not None:
            if what == "model":  # what it asked, and whom, is measured all the same
                self._put(event, run.silent.again(what, event.data), run)
            return
        parent = None if event.parent is None else self.spans.get((event.run_id, event.parent))
        entry = self._unrecorded(what, event, parent) or self._started(what, event, run, parent)
        if not inside and self._settles_all(entry):
            run.silent = entry
        self._put(event, entry, run)
        if self._activate and what in _AROUND:
            _make_current(entry.context, (event.run_id, event.sequence))

    def end(self, what: str, event: ExecutionEvent) -> OpenSpan | None:
        """The span that is over; None where it was put out before."""
        run = self.spans.run(event.run_id)
        if what == "attempt":
            self._note_server(event)
        if run is not None and run.silent is not None and event.parent is not None and what != "model":
            return run.silent
        if self._activate and what in _AROUND:
            _make_current_no_more((event.run_id, event.span))
        entry = self.spans.remove((event.run_id, event.span))
        if entry is not None and entry.recording:
            self._recorder.ended(entry.span, what, event, entry.server)
            entry.span.end(max(entry.start, _when(event, run)))
        return entry

    def happened(self, event: ExecutionEvent) -> None:
        """Something of no duration, in the span that it happened in."""
        entry = self.spans.get((event.run_id, event.span))
        if entry is not None and not entry.recording:
            return
        run = self.spans.run(event.run_id)
        if entry is not None:
            self._recorder.happened(entry.span, event, _when(event, run))
        elif run is None or run.silent is None:
            self.unplaced += event.kind not in _BESIDE

    def judged(self, event: ExecutionEvent) -> None:
        """Feedback, which mostly comes when the run is over: a span of no length inside the run's first."""
        root = self.spans.root(event.run_id)
        if root is None:
            self.unplaced += 1
            return
        when = _nanoseconds(event.time)
        span = self._tracer.start_span(names.EVALUATION_EVENT, root, start_time=when)
        if span.is_recording():
            self._recorder.judged(span, event)
        span.end(when)

    def context(self, run_id: str, span: int) -> Context | None:
        """Where something that happens in that span belongs."""
        entry = self.spans.get((run_id, span))
        return self.spans.root(run_id) if entry is None else entry.context

    def _started(self, what: str, event: ExecutionEvent, run: OpenRun, parent: OpenSpan | None) -> OpenSpan:
        name, client, attributes = beginning(what, event)
        context, links = surroundings(event, self.spans) if parent is None else (parent.context, [])
        start = run.began + _nanoseconds(event.at)
        kind = SpanKind.CLIENT if client else SpanKind.INTERNAL
        span = self._tracer.start_span(name, context, kind, attributes, links, start)
        inside = set_span_in_context(span, context)
        recording = span.is_recording()
        if recording:
            self._recorder.begun(span, what, event)
        batch = event.data.get("batch")
        if parent is None and isinstance(batch, str):
            self.spans.note_batch(batch, inside)
        return OpenSpan(what, span, inside, start, recording, event.data)

    def _put(self, event: ExecutionEvent, entry: OpenSpan, run: OpenRun) -> None:
        oldest = self.spans.put((event.run_id, event.sequence), entry, run)
        if oldest is not None and oldest.recording:
            oldest.span.set_attribute(names.EVICTED, True)
            oldest.span.end(max(oldest.start, _nanoseconds(event.time)))

    def _unrecorded(self, what: str, event: ExecutionEvent, parent: OpenSpan | None) -> OpenSpan | None:
        """The span around it once more, where neither is wanted: what is not sampled costs as little as it can."""
        return parent.again(what, event.data) if parent is not None and self._settles_all(parent) else None

    def _settles_all(self, entry: OpenSpan) -> bool:
        """Whether it is not recorded, and it is certain that nothing inside is."""
        if entry.recording or not entry.span.get_span_context().is_valid:
            return False
        sampler = getattr(self._tracer, "sampler", None)
        if sampler is not self._sampler:
            self._sampler, self._children_follow = sampler, children_follow(sampler)
        return self._children_follow

    def _note_server(self, event: ExecutionEvent) -> None:
        """A model call's server is that of its last attempt."""
        around = None if event.parent is None else self.spans.get((event.run_id, event.parent))
        if around is not None:
            around.server = server(event.data) or around.server


def _make_current(context: Context, key: Key) -> None:
    """Here, and in what is begun here. The context itself says what was current before: a token of OpenTelemetry's
    cannot be given back where a span ends in another task, and the table forgets spans that are put out."""
    otel.attach(otel.set_value(_BEFORE, (key, otel.get_current()), context))


def _make_current_no_more(key: Key) -> None:
    marked = otel.get_value(_BEFORE)
    if isinstance(marked, tuple) and marked[0] == key:
        otel.attach(marked[1])


def _nanoseconds(seconds: float) -> int:
    return int(seconds * _SECOND)


def _began(event: ExecutionEvent) -> int:
    """When its run began, by the wall clock as it is now."""
    return _nanoseconds(event.time - event.at)


def _when(event: ExecutionEvent, run: OpenRun | None) -> int:
    return (_began(event) if run is None else run.began) + _nanoseconds(event.at)
