"""A run that is parked and goes on later, in this process or another, stays in one trace."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode, get_current_span
from tests.support.otel_memory import Memory
from tests.support.telling import MODEL, Telling

from agentflow.integrations.opentelemetry import semconv as names

HOUR = 3600.0
WAITS = {"breakdown": {"own": 2.0}}


def parked(run: Telling) -> None:
    flow = run.begin("flow_start", "order")
    judge = run.begin("node_start", "judge", inside=flow)
    run.wait(2.0)
    run.happen("interrupt", judge, {"interrupt": "order/judge#1!wait:1", "due": None})
    run.end("node_interrupted", judge, WAITS)
    run.end("flow_interrupted", flow, WAITS)


def ended(run: Telling, stretch: int = 1, **facts: object) -> None:
    flow = run.begin("flow_start", "order", facts)
    run.happen("resume", flow, {"stretch": stretch, "steps": 3})
    judge = run.begin("node_start", "judge", inside=flow)
    run.wait(1.0)
    run.end("node_success", judge, {"breakdown": {"own": 1.0}})
    run.end("flow_success", flow, {"breakdown": {"own": 1.0}})


def traces(*memories: Memory) -> set[int]:
    return {span.context.trace_id for memory in memories for span in memory.spans}


def test_what_is_parked_has_ended_says_so_and_is_no_error() -> None:
    memory = Memory()
    parked(Telling(memory.observer))
    assert memory.observer.open_spans == 0
    judge = memory.span("node judge")
    assert judge.attributes[names.INTERRUPTED] is True
    assert names.INTERRUPTED in memory.span("invoke_workflow order").attributes
    assert judge.status.status_code is StatusCode.UNSET
    assert [(event.name, event.attributes["agentflow.interrupt"]) for event in judge.events] == [
        ("agentflow.interrupt", "order/judge#1!wait:1")
    ]


def test_what_is_parked_is_not_measured_as_a_run() -> None:
    memory = Memory()
    run = Telling(memory.observer)
    parked(run)
    assert memory.points("gen_ai.invoke_workflow.duration") == []
    run.go_on(HOUR)
    ended(run)
    [point] = memory.points("gen_ai.invoke_workflow.duration")
    assert (point.count, point.sum) == (1, 1.0)


def test_in_the_same_process_it_goes_on_in_the_trace_that_it_began_in() -> None:
    memory = Memory()
    run = Telling(memory.observer)
    parked(run)
    run.go_on(HOUR)
    ended(run)
    assert len(traces(memory)) == 1
    first, second = (span for span in memory.spans if span.name == "invoke_workflow order")
    assert second.parent.span_id == first.context.span_id
    assert second.attributes[names.STRETCH] == 1
    assert names.STRETCH not in first.attributes
    assert second.start_time - first.end_time == int(HOUR * 1e9)


def test_another_process_that_knows_where_it_began_goes_on_in_the_same_trace() -> None:
    here, there = Memory(), Memory()
    run = Telling(here.observer)
    flow = run.begin("flow_start", "order")
    kept = f"00-{_open_trace(here, run)}-01"
    run.end("flow_interrupted", flow, WAITS)
    run.go_on(HOUR, there.observer)
    ended(run, traceparent=kept)
    run.go_on(HOUR)
    ended(run, stretch=2, traceparent=kept)
    assert len(traces(here, there)) == 1


def _open_trace(memory: Memory, run: Telling) -> str:
    context = memory.observer._tracing.context(run.run_id, 1)
    assert context is not None
    place = get_current_span(context).get_span_context()
    return f"{place.trace_id:032x}-{place.span_id:016x}"


@pytest.mark.parametrize("kept", ["nonsense", "00-0-0-00", 7])
def test_a_place_that_is_none_makes_it_a_trace_of_its_own(kept: object) -> None:
    here, there = Memory(), Memory()
    run = Telling(here.observer)
    parked(run)
    run.go_on(HOUR, there.observer)
    ended(run, traceparent=kept)
    assert len(traces(here, there)) == 2
    runs = {span.attributes[names.RUN] for memory in (here, there) for span in memory.spans}
    assert runs == {"run-1"}  # which finds both


def test_what_it_goes_on_in_is_linked() -> None:
    memory = Memory()
    run = Telling(memory.observer)
    parked(run)
    run.go_on(HOUR)
    tracer = memory.tracers.get_tracer("web")
    with tracer.start_as_current_span("POST /answers") as request:
        ended(run)
    second = [span for span in memory.spans if span.name == "invoke_workflow order"][-1]
    assert [link.context.span_id for link in second.links] == [request.get_span_context().span_id]
    assert second.context.trace_id != request.get_span_context().trace_id


def test_what_was_not_sampled_stays_so() -> None:
    memory = Memory(sampler=ParentBased(TraceIdRatioBased(0.0)))
    run = Telling(memory.observer)
    parked(run)
    run.go_on(HOUR)
    ended(run)
    assert memory.spans == []
    assert memory.observer.open_spans == 0


def test_what_is_undone_is_a_span_around_the_calls_that_undo_it() -> None:
    memory = Memory()
    run = Telling(memory.observer)
    flow = run.begin("flow_start", "order")
    undo = run.begin("compensate_start", "book", inside=flow)
    call = run.begin("model_start", "", MODEL, inside=undo)
    run.end("model_success", call)
    run.end("compensate_error", undo, {"error": "no", "error_type": "NodeError", "breakdown": {}})
    run.end("flow_error", flow, {"error": "no", "error_type": "NodeError", "breakdown": {}})
    assert memory.tree()["chat gpt-4o"] == "compensate book"
    span = memory.span("compensate book")
    assert (span.status.status_code, span.attributes[names.NODE]) == (StatusCode.ERROR, "book")


def test_a_cancellation_from_outside_belongs_to_no_span_and_is_no_loss() -> None:
    memory = Memory()
    run = Telling(memory.observer)
    parked(run)
    run.begin("cancel", "order")
    assert not memory.observer.losses
