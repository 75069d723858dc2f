"""What spans say: which there are, where they belong, and what stands on them, told event by event."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry import context as otel
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, set_span_in_context
from tests.support.otel_memory import Memory
from tests.support.telling import MODEL, Span, Telling

from agentflow import AsyncFlow, Each, Flow, Parallel, node
from agentflow.core.observability import observe
from agentflow.integrations.opentelemetry.semconv import LATEST, RELEASED, SECONDS_BUCKETS, conventions

KEY = "sk-proj-" + "4f9aB2c7D1e8" * 4
HTTP = {"method": "POST", "url": "https://api.openai.com/v1/chat", "address": "api.openai.com", "port": 443}
ANSWER = {
    "response_model": "gpt-4o-2024-08-06",
    "response_id": "chatcmpl-1",
    "request_id": "req-1",
    "input_tokens": 100,
    "output_tokens": 40,
    "cached_tokens": 60,
    "cache_write_tokens": 20,
    "reasoning_tokens": 10,
    "finish_reason": "stop",
    "cost": 0.002,
    "timing": {"limiter": 1.0, "connect": 0.1, "first_token": 0.4, "generation": 1.5, "total": 3.0, "attempts": 2},
    "breakdown": {"limiter": 1.0, "connect": 0.1, "first_token": 0.4, "generation": 1.5},
}

# What the conventions call required, or required where it is known, for each kind of span. Version 1.41.0 of
# semantic-conventions, docs/gen-ai/gen-ai-spans.md and gen-ai-agent-spans.md; HTTP: docs/http/http-spans.md.
REQUIRED = {
    "invoke_workflow article": {"gen_ai.operation.name", "gen_ai.workflow.name"},
    "chat gpt-4o": {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.request.stream", "server.port",
    },
    "execute_tool weather": {"gen_ai.operation.name", "gen_ai.tool.name"},
    "POST": {"http.request.method", "server.address", "server.port", "url.full", "http.response.status_code"},
}  # fmt: skip
RECOMMENDED = {
    "chat gpt-4o": {
        "gen_ai.request.max_tokens", "gen_ai.request.temperature", "gen_ai.request.top_p",
        "gen_ai.response.finish_reasons", "gen_ai.response.id", "gen_ai.response.model",
        "gen_ai.response.time_to_first_chunk", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.reasoning.output_tokens", "server.address",
    },
    "execute_tool weather": {"gen_ai.tool.call.id", "gen_ai.tool.type"},
}  # fmt: skip


def article(memory: Memory, **texts: Any) -> Telling:
    """A flow whose node asks a model, whose first attempt fails, and calls a tool: 10 s in all."""
    run = Telling(memory.observer)
    flow = run.begin("flow_start", "article", {"tenant": "acme"})
    run.wait(1.0)
    write = run.begin("node_start", "write", inside=flow)
    model = run.begin("model_start", "", {**MODEL, **texts}, inside=write)
    run.wait(1.0)
    run.happen("limiter_wait", model, {"guard": "openai", "seconds": 1.0})
    first = run.begin("attempt_start", "", {"model": "fast", "provider": "openai"}, inside=model)
    run.wait(1.0)
    run.end("attempt_error", first, {**HTTP, "status": 429, "error": "slow down", "error_type": "RateLimitError"})
    run.happen("retry", model, {"error_type": "RateLimitError", "delay": 0.5})
    second = run.begin("attempt_start", "", {"model": "fast", "provider": "openai"}, inside=model, attempt=2)
    run.wait(2.0)
    run.end("attempt_success", second, {**HTTP, "status": 200, "connect": 0.1, "request_id": "req-1"}, attempt=2)
    run.end("model_success", model, ANSWER)
    tool = run.begin("tool_start", "", {"tool": "weather", "call_id": "call-1"}, inside=write)
    run.wait(1.0)
    run.end("tool_success", tool, {"breakdown": {"tools": 1.0}})
    run.end("node_success", write, {"breakdown": {"limiter": 1.0, "own": 1.0}})
    run.wait(4.0)
    run.end("flow_success", flow, {"action": "default", "breakdown": {"own": 9.0, "limiter": 1.0}})
    return run


@pytest.fixture(autouse=True)
def nothing_is_current() -> Iterator[None]:
    """Each test begins, and ends, with no span around it."""
    assert not get_current_span().get_span_context().is_valid
    yield
    assert not get_current_span().get_span_context().is_valid


# ---- the tree --------------------------------------------------------------------------------------------------------


def test_a_run_is_a_tree_of_spans() -> None:
    memory = Memory()
    article(memory)
    names = [span.name for span in memory.spans]
    assert sorted(names) == [
        "POST",
        "POST",
        "chat gpt-4o",
        "execute_tool weather",
        "invoke_workflow article",
        "node write",
    ]
    assert memory.tree() == {
        "invoke_workflow article": None,
        "node write": "invoke_workflow article",
        "chat gpt-4o": "node write",
        "POST": "chat gpt-4o",
        "execute_tool weather": "node write",
    }
    assert len({span.context.trace_id for span in memory.spans}) == 1
    assert memory.observer.open_spans == 0
    assert not memory.observer.losses


@pytest.mark.parametrize("name", REQUIRED)
def test_every_span_has_what_the_conventions_ask_of_it(name: str) -> None:
    memory = Memory()
    article(memory)
    for span in [span for span in memory.spans if span.name == name]:
        assert REQUIRED[name] | RECOMMENDED.get(name, set()) <= set(span.attributes or {})


def test_models_and_attempts_are_clients_and_the_rest_is_internal() -> None:
    memory = Memory()
    article(memory)
    clients = {span.name for span in memory.spans if span.kind is SpanKind.CLIENT}
    assert clients == {"chat gpt-4o", "POST"}
    assert {span.kind for span in memory.spans} == {SpanKind.CLIENT, SpanKind.INTERNAL}


def test_a_model_call_says_what_was_asked_answered_and_paid() -> None:
    memory = Memory()
    article(memory)
    said = dict(memory.span("chat gpt-4o").attributes or {})
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 20,
        "gen_ai.usage.reasoning.output_tokens": 10,
        "server.address": "api.openai.com",
        "server.port": 443,
        "agentflow.run.id": "run-1",
        "agentflow.path": "article/write#1",
        "agentflow.model.name": "fast",
        "agentflow.provider.name": "openai",
        "agentflow.model.round": 1,
        "agentflow.model.attempts": 2,
        "agentflow.request.id": "req-1",
        "agentflow.cost.usd": 0.002,
        "agentflow.wait.limiter": 1.0,
        "agentflow.wait.connect": 0.1,
        "agentflow.wait.first_token": 0.4,
        "agentflow.wait.generation": 1.5,
    }


def test_each_attempt_is_an_http_request_of_its_own() -> None:
    memory = Memory()
    article(memory)
    first, second = [span for span in memory.spans if span.name == "POST"]
    assert first.status.status_code is StatusCode.ERROR
    assert dict(first.attributes or {}) | {"error.type": "429", "http.response.status_code": 429} == first.attributes
    assert "http.request.resend_count" not in (first.attributes or {})
    assert second.status.status_code is StatusCode.UNSET
    assert (second.attributes or {})["http.request.resend_count"] == 1
    assert (second.attributes or {})["url.full"] == "https://api.openai.com/v1/chat"


def test_what_guards_did_stands_on_the_logical_span() -> None:
    memory = Memory()
    article(memory)
    events = memory.span("chat gpt-4o").events
    assert [(event.name, dict(event.attributes or {})) for event in events] == [
        ("agentflow.limiter_wait", {"agentflow.guard": "openai", "agentflow.seconds": 1.0}),
        ("agentflow.retry", {"agentflow.error_type": "RateLimitError", "agentflow.delay": 0.5}),
    ]
    assert events[1].timestamp - events[0].timestamp == 1_000_000_000


def test_times_are_those_of_the_events() -> None:
    memory = Memory()
    article(memory)
    flow, chat = memory.span("invoke_workflow article"), memory.span("chat gpt-4o")
    assert flow.start_time == 1_700_000_000 * 10**9
    assert flow.end_time is not None
    assert chat.start_time is not None
    assert flow.end_time - flow.start_time == 10 * 10**9
    assert chat.start_time - flow.start_time == 10**9


@given(jumps=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
@settings(max_examples=20)
def test_a_clock_that_jumps_makes_no_span_end_before_it_began(jumps: list[float]) -> None:
    memory = Memory()
    run = Telling(memory.observer)
    flow = run.begin("flow_start", "article")
    run.wall += jumps[0]
    write = run.begin("node_start", "write", inside=flow)
    run.wait(1.0)
    run.wall += jumps[1]
    run.end("node_success", write)
    run.wall += jumps[2]
    run.end("flow_success", flow)
    for span in memory.spans:
        assert span.end_time - span.start_time == 10**9  # type: ignore[operator]


# ---- how it ends -----------------------------------------------------------------------------------------------------


def test_a_failure_is_an_error_with_its_class() -> None:
    memory = Memory()
    run = Telling(memory.observer)
    flow = run.begin("flow_start", "article")
    run.end("flow_error", flow, {"error": "no such key", "error_type": "NodeError"})
    span = memory.span("invoke_workflow article")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no such key")
    assert (span.attributes or {})["error.type"] == "NodeError"


@pytest.mark.parametrize("what", ["flow", "node", "model", "attempt", "tool"])
def test_what_was_cancelled_is_marked_and_is_no_error(what: str) -> None:
    memory = Memory()
    run = Telling(memory.observer)
    run.end(f"{what}_cancelled", run.begin(f"{what}_start", "x", {"tool": "x", **MODEL}))
    [span] = memory.spans
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["agentflow.cancelled"] is True
    assert "error.type" not in (span.attributes or {})


def test_a_key_in_the_text_of_an_error_does_not_come_out() -> None:
    memory = Memory()
    run = Telling(memory.observer)
    model = run.begin("model_start", "fast", MODEL)
    run.happen("retry", model, {"error": f"wrong key {KEY}", "error_type": "AuthenticationError"})
    run.end("model_error", model, {"error": f"wrong key {KEY}", "error_type": "AuthenticationError"})
    [span] = memory.spans
    assert KEY not in span.to_json()
    assert "[redacted:key]" in str(span.status.description)


def test_a_url_is_without_query_and_password() -> None:
    memory = Memory()
    run = Telling(memory.observer)
    attempt = run.begin("attempt_start", "fast")
    run.end("attempt_success", attempt, {**HTTP, "url": f"https://me:{KEY}@host/v1?key={KEY}"})
    assert (memory.span("POST").attributes or {})["url.full"] == "https://host/v1"


def test_an_attribute_of_ten_megabytes_is_cut() -> None:
    memory = Memory(content="SPAN_ONLY")
    run = Telling(memory.observer)
    long = "word " * 2_000_000
    model = run.begin("model_start", "fast", {**MODEL, "messages": [{"role": "user", "content": long}]})
    run.happen("mine", model, {"text": long, "many": {str(n): long for n in range(3)}, "number": 10**5000})
    run.end("model_error", model, {"error": long, "error_type": "ServerError"})
    [span] = memory.spans
    assert len(span.to_json()) < 100_000
    assert "10,000,000 characters" in str((span.attributes or {})["gen_ai.input.messages"])


def test_odd_facts_break_nothing() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    memory = Memory()
    run = Telling(memory.observer)
    model = run.begin("model_start", "fast", {"provider": None, "model": None, "temperature": "hot", "tenant": 3})
    run.happen("mine", model, {"none": None, "rude": Rude(), "nan": float("nan"), "list": [1, {"a": "\ud800"}]})
    run.end("model_success", model, {"timing": None, "input_tokens": None, "cost": None, "breakdown": None})
    [span] = memory.spans
    assert span.name == "chat"
    assert (span.attributes or {})["gen_ai.provider.name"] == "_OTHER"


# ---- where it belongs ------------------------------------------------------------------------------------------------


def test_a_run_is_a_child_of_the_span_that_is_current_where_it_begins() -> None:
    """That of a web framework's request, whose traceparent came in."""
    memory = Memory()
    with memory.tracers.get_tracer("web").start_as_current_span("GET /ask"):
        article(memory)
    assert memory.tree()["invoke_workflow article"] == "GET /ask"


def test_a_run_that_another_run_began_is_inside_it() -> None:
    memory = Memory(activate=False)
    outer = Telling(memory.observer, "outer")
    flow = outer.begin("flow_start", "outer")
    inner = Telling(memory.observer, "inner")
    inner.end("flow_success", inner.begin("flow_start", "inner", {"parent_run": "outer"}))
    outer.end("flow_success", flow)
    late = Telling(memory.observer, "late")
    late.end("flow_success", late.begin("flow_start", "late", {"parent_run": "outer"}))
    assert memory.tree() == {
        "invoke_workflow outer": None,
        "invoke_workflow inner": "invoke_workflow outer",
        "invoke_workflow late": "invoke_workflow outer",
    }
    assert (memory.span("invoke_workflow inner").attributes or {})["agentflow.run.parent_id"] == "outer"


def test_the_runs_of_a_batch_have_their_own_traces_and_link_to_what_began_them() -> None:
    memory = Memory()
    with memory.tracers.get_tracer("web").start_as_current_span("nightly") as around:
        for number in range(3):
            run = Telling(memory.observer, f"run-{number}")
            run.end("flow_success", run.begin("flow_start", "article", {"batch": "b-1"}))
    runs = [span for span in memory.spans if span.name != "nightly"]
    assert len({span.context.trace_id for span in memory.spans}) == 4
    for span in runs:
        [link] = span.links
        assert link.context.span_id == around.get_span_context().span_id
        assert (span.attributes or {})["agentflow.batch.id"] == "b-1"


def test_without_anything_around_it_a_batch_links_to_its_first_run() -> None:
    memory = Memory()
    for number in range(3):
        run = Telling(memory.observer, f"run-{number}")
        run.end("flow_success", run.begin("flow_start", f"f{number}", {"batch": "b-1"}))
    first = memory.span("invoke_workflow f0")
    assert {span.name[-2:]: len(span.links) for span in memory.spans} == {"f0": 0, "f1": 1, "f2": 1}
    assert {span.links[0].context.span_id for span in memory.spans if span.links} == {first.context.span_id}


def test_a_request_carries_the_context_of_its_attempt() -> None:
    memory = Memory()
    token = otel.attach(baggage.set_baggage("team", "search"))
    try:
        run = Telling(memory.observer)
        model = run.begin("model_start", "fast", MODEL)
        attempt = run.begin("attempt_start", "", inside=model)
        headers = memory.observer.headers("run-1", attempt.number)
        run.end("attempt_success", attempt, HTTP)
        run.end("model_success", model)
    finally:
        otel.detach(token)
    span = memory.span("POST").context
    assert headers == {
        "traceparent": f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}",
        "baggage": "team=search",
    }


def test_what_is_not_known_and_what_is_not_to_propagate_has_no_headers() -> None:
    memory = Memory(propagate=False)
    run = Telling(memory.observer)
    model = run.begin("model_start", "fast", MODEL)
    assert memory.observer.headers("run-1", model.number) == {}
    run.end("model_success", model)
    assert Memory().observer.headers("nobody", 7) == {}


def test_feedback_after_a_run_stands_inside_it() -> None:
    memory = Memory()
    run = article(memory)
    judged = Span(0, None, "article", "article", run.now, {})
    run.happen("feedback", judged, {"score": 0.9, "label": "good", "comment": f"like {KEY}", "source": "user"})
    span = memory.span("gen_ai.evaluation.result")
    said = span.attributes or {}
    assert memory.tree()["gen_ai.evaluation.result"] == "invoke_workflow article"
    assert (said["gen_ai.evaluation.score.value"], said["gen_ai.evaluation.score.label"]) == (0.9, "good")
    assert KEY not in str(said)


def test_what_comes_late_stays_in_the_trace_and_is_not_what_feedback_is_about() -> None:
    memory = Memory()
    run = article(memory)
    late = run.begin("tool_start", "", {"tool": "late"}, inside=Span(2, 1, "article/write#1", "write", 0.0, {}))
    run.end("tool_success", late)
    run.happen("feedback", Span(0, None, "article", "article", run.now, {}), {"score": 1})
    tree = memory.tree()
    assert tree["execute_tool late"] == tree["gen_ai.evaluation.result"] == "invoke_workflow article"


def test_what_belongs_to_nothing_is_counted() -> None:
    memory = Memory()
    run = Telling(memory.observer, "unknown")
    nowhere = Span(7, None, "x", "x", 0.0, {})
    run.happen("retry", nowhere)
    run.happen("feedback", nowhere, {"score": 1.0})
    run.happen("alert", nowhere, {"rule": "cost"})  # rules look at everything, and belong nowhere
    run.end("flow_success", nowhere)
    assert memory.observer.losses.unplaced == 2
    assert {point.attributes["reason"]: point.value for point in memory.points("agentflow.telemetry.lost")}[
        "unplaced"
    ] == 2


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_runs_that_never_end_do_not_fill_the_memory() -> None:
    """The oldest spans are put out, marked and counted; what they would have said is measured all the same."""
    memory = Memory(max_open_spans=10)
    runs = [Telling(memory.observer, f"run-{number}") for number in range(100)]
    spans = [run.begin("model_start", "fast", MODEL) for run in runs]
    assert memory.observer.open_spans == 10
    assert memory.observer.losses.evicted == 90
    assert all((span.attributes or {})["agentflow.evicted"] for span in memory.spans)
    for run, span in zip(runs, spans, strict=True):
        run.wait(1.0)
        run.end("model_success", span, ANSWER)
    assert memory.observer.open_spans == 0
    assert len(memory.spans) == 100
    assert sum(point.count for point in memory.points("gen_ai.client.operation.duration")) == 100


def test_children_of_what_was_put_out_stay_in_the_trace() -> None:
    memory = Memory(max_open_spans=1)
    run = Telling(memory.observer)
    flow = run.begin("flow_start", "article")
    write = run.begin("node_start", "write", inside=flow)
    model = run.begin("model_start", "", MODEL, inside=write)
    for kind, span in (("model_success", model), ("node_success", write), ("flow_success", flow)):
        run.end(kind, span)
    assert len({span.context.trace_id for span in memory.spans}) == 1
    assert memory.observer.open_spans == 0


def test_many_threads_may_tell_at_once() -> None:
    memory = Memory(max_open_spans=50)

    def tell(number: int) -> None:
        for turn in range(20):
            run = Telling(memory.observer, f"run-{number}-{turn}")
            flow = run.begin("flow_start", "article")
            write = run.begin("node_start", "write", inside=flow)
            run.end("node_success", write)
            run.end("flow_success", flow)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memory.spans) == 2 * 8 * 20
    assert (memory.observer.open_spans, memory.observer.losses.evicted) == (0, 0)


# ---- sampling --------------------------------------------------------------------------------------------------------


class Counting(Sampler):
    """Asks the one inside, and counts."""

    def __init__(self, inside: Sampler) -> None:
        self.inside = inside
        self.asked = 0

    def should_sample(self, *args: Any, **more: Any) -> Any:
        self.asked += 1
        return self.inside.should_sample(*args, **more)

    def get_description(self) -> str:
        return self.inside.get_description()


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), TraceIdRatioBased(0.0)])
def test_what_is_not_sampled_is_asked_about_once_and_says_nothing(sampler: Sampler) -> None:
    counting = Counting(sampler)
    memory = Memory(sampler=counting, content="SPAN_ONLY")
    article(memory, messages=[{"role": "user", "content": "Hello"}])
    assert memory.spans == []
    assert counting.asked == 1
    assert memory.observer.open_spans == 0


def test_a_sampler_that_looks_at_each_span_is_asked_for_each() -> None:
    class Choosy(Counting):
        def get_description(self) -> str:
            return "Choosy"

    choosy = Choosy(ALWAYS_OFF)
    article(Memory(sampler=choosy))
    assert choosy.asked == 6


def test_what_is_not_sampled_says_so_to_whom_it_asks_and_is_measured_all_the_same() -> None:
    memory = Memory(sampler=ParentBased(ALWAYS_OFF))
    run = Telling(memory.observer)
    model = run.begin("model_start", "fast", MODEL)
    attempt = run.begin("attempt_start", "", inside=model)
    flags = memory.observer.headers("run-1", attempt.number)["traceparent"].rpartition("-")[2]
    assert int(flags, 16) & 1 == 0
    run.wait(2.0)
    run.end("attempt_success", attempt, HTTP)
    run.end("model_success", model, ANSWER)
    [point] = memory.points("gen_ai.client.operation.duration")
    assert point.sum == 2.0


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF)])
def test_inside_a_run_that_is_not_sampled_nothing_is_kept_but_calls_of_models_and_all_is_measured(
    sampler: Sampler,
) -> None:
    memory = Memory(sampler=sampler)
    run = Telling(memory.observer)
    flow = run.begin("flow_start", "article")
    write = run.begin("node_start", "write", inside=flow)
    model = run.begin("model_start", "", MODEL, inside=write)
    attempt = run.begin("attempt_start", "", inside=model)
    tool = run.begin("tool_start", "", {"tool": "weather"}, inside=write)
    assert memory.observer.open_spans == 2
    flags = {memory.observer.headers("run-1", span.number)["traceparent"][-2:] for span in (write, model, attempt)}
    assert all(int(each, 16) & 1 == 0 for each in flags)
    run.happen("retry", write)
    run.wait(2.0)
    run.end("attempt_success", attempt, HTTP)
    run.end("model_success", model, ANSWER)
    for kind, span in (("tool_success", tool), ("node_success", write), ("flow_success", flow)):
        run.end(kind, span)
    [point] = memory.points("gen_ai.client.operation.duration")
    assert point.attributes["server.address"] == "api.openai.com"
    assert [point.sum for point in memory.points("gen_ai.execute_tool.duration")] == [2.0]
    assert [point.sum for point in memory.points("gen_ai.invoke_workflow.duration")] == [2.0]
    assert (memory.spans, memory.observer.open_spans, memory.observer.losses.unplaced) == ([], 0, 0)


async def test_inside_a_run_that_is_not_sampled_its_trace_is_current_all_the_same() -> None:
    memory = Memory(sampler=ParentBased(ALWAYS_OFF))
    seen = []

    @node
    async def look(state: Any) -> None:
        seen.append(get_current_span().get_span_context())

    left, right = look.named("left"), look.named("right")
    with observe(memory.observer):
        await AsyncFlow(look >> Parallel(left, right), name="article").run()
    assert [(each.is_valid, each.trace_flags.sampled) for each in seen] == [(True, False)] * 3
    assert len({each.trace_id for each in seen}) == 1


def test_when_the_first_span_of_a_run_that_is_not_sampled_is_put_out_its_trace_goes_on() -> None:
    memory = Memory(sampler=ParentBased(ALWAYS_OFF), max_open_spans=1)
    run = Telling(memory.observer)
    flow = run.begin("flow_start", "article")
    other = Telling(memory.observer, "run-2").begin("model_start", "fast", MODEL)  # puts the flow out
    write = run.begin("node_start", "write", inside=flow)
    assert memory.observer.headers("run-1", write.number)["traceparent"][-2:] in ("00", "02")
    for kind, span in (("node_success", write), ("flow_success", flow)):
        run.end(kind, span)
    assert other.number == 1
    assert memory.spans == []
    assert memory.observer.open_spans == 0


def test_a_caller_that_decided_is_followed() -> None:
    memory = Memory(sampler=ParentBased(ALWAYS_ON))
    tracer = Memory(sampler=ALWAYS_OFF).tracers.get_tracer("caller")
    token = otel.attach(set_span_in_context(tracer.start_span("unsampled")))
    try:
        article(memory)
    finally:
        otel.detach(token)
    assert memory.spans == []


# ---- content ---------------------------------------------------------------------------------------------------------

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"My key is {KEY}."}]


def talk(memory: Memory) -> None:
    run = Telling(memory.observer)
    model = run.begin("model_start", "fast", {**MODEL, "messages": ASKED})
    call = {"id": "call-1", "name": "weather", "arguments": {"city": "Oslo"}}
    run.end("model_success", model, {**ANSWER, "answer": "Hello.", "tool_calls": [call], "finish_reason": "tool_calls"})
    tool = run.begin("tool_start", "x", {"tool": "weather", "arguments": {"city": "Oslo", "password": "hunter22"}})
    run.end("tool_success", tool)


def test_nothing_is_written_of_prompts_and_answers_unless_it_is_asked_for() -> None:
    memory = Memory()
    assert memory.observer.content is False
    talk(memory)
    everything = "".join(span.to_json() for span in memory.spans)
    assert "Be brief" not in everything
    assert "Oslo" not in everything
    assert memory.records == []


def test_content_on_spans_is_json_in_the_shape_of_the_conventions_and_redacted() -> None:
    memory = Memory(content="span_only")
    assert memory.observer.content is True
    talk(memory)
    said = memory.span("chat gpt-4o").attributes or {}
    assert json.loads(str(said["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "My key is [redacted:key]."}]},
    ]
    assert json.loads(str(said["gen_ai.output.messages"])) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "Hello."},
                {"type": "tool_call", "id": "call-1", "name": "weather", "arguments": {"city": "Oslo"}},
            ],
            "finish_reason": "tool_call",
        }
    ]
    tool = memory.span("execute_tool weather").attributes or {}
    assert json.loads(str(tool["gen_ai.tool.call.arguments"])) == {"city": "Oslo", "password": "[redacted:field]"}
    assert memory.records == []


def test_content_in_events_belongs_to_its_span_and_is_not_on_it() -> None:
    memory = Memory(content="EVENT_ONLY")
    talk(memory)
    [record] = memory.records
    span = memory.span("chat gpt-4o")
    assert record.event_name == "gen_ai.client.inference.operation.details"
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert record.attributes["gen_ai.input.messages"][0]["parts"][0]["content"] == "Be brief."
    assert record.attributes["gen_ai.usage.input_tokens"] == 100
    assert KEY not in str(record.attributes)
    assert "gen_ai.input.messages" not in (span.attributes or {})


def test_both_is_both_and_the_environment_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_AND_EVENT")
    memory = Memory()
    talk(memory)
    assert len(memory.records) == 1
    assert "gen_ai.input.messages" in (memory.span("chat gpt-4o").attributes or {})


def test_a_word_in_the_environment_that_means_nothing_captures_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "yes please")
    assert Memory().observer.content is False
    assert "no content is captured" in caplog.text


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, RELEASED),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": ""}, RELEASED),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": "http"}, RELEASED),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental"}, LATEST),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup, gen_ai_latest_experimental"}, LATEST),
    ],
)
def test_the_environment_chooses_the_names(environ: Mapping[str, str], expected: object) -> None:
    assert conventions(environ) is expected


def test_the_latest_names_differ_where_the_conventions_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    memory = Memory(content="SPAN_ONLY")
    talk(memory)
    said = memory.span("chat gpt-4o").attributes or {}
    assert said["gen_ai.usage.cache_write.input_tokens"] == 20
    assert "gen_ai.usage.cache_creation.input_tokens" not in said
    assert "finish_reason" not in json.loads(str(said["gen_ai.output.messages"]))[0]
    assert memory.span("chat gpt-4o").instrumentation_scope.schema_url in (None, "")


def test_the_names_are_those_of_opentelemetry_itself() -> None:
    """Where the package with the conventions' constants has one of the same meaning."""
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
    from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes

    from agentflow.integrations.opentelemetry import semconv

    theirs = {
        value
        for module in (
            gen_ai_attributes,
            gen_ai_metrics,
            error_attributes,
            http_attributes,
            server_attributes,
            url_attributes,
        )
        for value in vars(module).values()
        if isinstance(value, str)
    }
    ours = {
        value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str) and "." in value
    }
    ours |= {value for value in vars_of(RELEASED) if "." in value and "/" not in value and value != RELEASED.version}
    since = {"gen_ai.invoke_workflow.duration", "gen_ai.execute_tool.duration"}
    events = {"gen_ai.client.inference.operation.details", "gen_ai.evaluation.result"}
    assert {name for name in ours - since - events if not name.startswith("agentflow.")} <= theirs


def vars_of(table: object) -> list[str]:
    return [value for name in type(table).__slots__ if isinstance(value := getattr(table, name), str)]


def test_the_scope_names_the_version_of_the_conventions() -> None:
    memory = Memory()
    article(memory)
    scope = memory.span("chat gpt-4o").instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("agentflow", "https://opentelemetry.io/schemas/1.41.0")


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_durations_and_tokens_are_measured() -> None:
    memory = Memory()
    article(memory)
    [operation] = memory.points("gen_ai.client.operation.duration")
    assert operation.sum == 4.0
    assert dict(operation.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "server.address": "api.openai.com",
        "server.port": 443,
    }
    assert tuple(operation.explicit_bounds) == SECONDS_BUCKETS
    assert SECONDS_BUCKETS[-1] == 655.36
    assert memory.sums("gen_ai.client.token.usage", "gen_ai.token.type") == {"input": 100, "output": 40}
    assert memory.sums("gen_ai.client.operation.time_to_first_chunk", "gen_ai.request.model") == {"gpt-4o": 0.5}
    assert memory.sums("gen_ai.invoke_workflow.duration", "gen_ai.workflow.name") == {"article": 10.0}
    assert memory.sums("gen_ai.execute_tool.duration", "gen_ai.tool.name") == {"weather": 1.0}


def test_a_failure_is_measured_with_its_class_and_what_was_cancelled_is_not() -> None:
    memory = Memory()
    for kind, data in (("model_error", {"error": "x", "error_type": "ServerError"}), ("model_cancelled", {})):
        run = Telling(memory.observer)
        model = run.begin("model_start", "fast", MODEL)
        run.wait(3.0)
        run.end(kind, model, data)
    assert memory.sums("gen_ai.client.operation.duration", "error.type") == {"ServerError": 3.0}


def test_the_time_between_chunks_is_measured_where_it_is_asked_for() -> None:
    memory = Memory(chunks=True)
    assert memory.observer.chunks is True
    run = Telling(memory.observer)
    model = run.begin("model_start", "fast", MODEL)
    for data in ({}, {}, {}, {"restart": True}, {}):
        run.wait(0.25)
        run.happen("chunk", model, {"content": "word", **data})
    run.end("model_success", model, ANSWER)
    [point] = memory.points("gen_ai.client.operation.time_per_output_chunk")
    assert (point.count, point.sum) == (3, 0.75)
    assert not memory.span("chat gpt-4o").events


def test_a_sampled_measurement_leads_to_its_trace() -> None:
    memory = Memory()
    article(memory)
    [point] = memory.points("gen_ai.client.operation.duration")
    [exemplar] = point.exemplars
    assert exemplar.trace_id == memory.span("chat gpt-4o").context.trace_id


# ---- real runs -------------------------------------------------------------------------------------------------------


async def test_what_nodes_do_with_other_libraries_is_inside_their_spans() -> None:
    memory = Memory()
    tracer = memory.tracers.get_tracer("database")

    @node
    async def look(state: Any) -> None:
        with tracer.start_as_current_span(f"SELECT {state['n']}"):
            await asyncio.sleep(0)

    left, right = look.named("left"), look.named("right")
    with observe(memory.observer):
        await AsyncFlow(look >> Parallel(left, right), name="article").run({"n": 1})
    parents = {span.context.span_id: span.name for span in memory.spans}
    inside = [parents[span.parent.span_id] for span in memory.spans if span.parent and span.name.startswith("SELECT")]
    assert sorted(inside) == ["node left", "node look", "node right"]


async def test_a_flow_run_inside_a_node_is_inside_its_span_and_so_is_a_sync_one() -> None:
    memory = Memory()

    @node
    async def deepest(state: Any) -> None: ...

    @node
    async def outer(state: Any) -> None:
        await AsyncFlow(deepest, name="inner").run({})

    @node
    def outer_sync(state: Any) -> None:
        Flow(deepest, name="inner_sync").run({})

    with observe(memory.observer):
        await AsyncFlow(outer >> outer_sync, name="article").run({})
    tree = memory.tree()
    assert tree["invoke_workflow inner"] == "node outer"
    assert tree["invoke_workflow inner_sync"] == "node outer_sync"
    assert len({span.context.trace_id for span in memory.spans}) == 1


async def test_a_batch_links_to_what_it_was_begun_in() -> None:
    memory = Memory()

    @node
    async def step(state: Any) -> None: ...

    with observe(memory.observer), memory.tracers.get_tracer("web").start_as_current_span("nightly") as around:
        await AsyncFlow(step, name="article").run_batch([{}, {}])
    flows = [span for span in memory.spans if span.name == "invoke_workflow article"]
    assert [span.links[0].context.span_id for span in flows] == [around.get_span_context().span_id] * 2
    assert len({(span.attributes or {})["agentflow.batch.id"] for span in flows}) == 1


async def test_a_failed_and_a_cancelled_run_leave_nothing_open_and_nothing_current() -> None:
    memory = Memory()

    @node
    async def fail(state: Any) -> None:
        raise ValueError(f"the key {KEY} is wrong")

    async def hang(item: int) -> int:
        await asyncio.Event().wait()
        return item

    with observe(memory.observer):
        with pytest.raises(Exception, match="fail"):
            await AsyncFlow(fail, name="failing").run({})
        task = asyncio.create_task(
            AsyncFlow(Each(hang, over="items", into="out"), name="hanging").run({"items": [1, 2]})
        )
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert memory.observer.open_spans == 0
    assert memory.span("invoke_workflow failing").status.status_code is StatusCode.ERROR
    assert (memory.span("invoke_workflow hanging").attributes or {})["agentflow.cancelled"] is True
    assert KEY not in "".join(span.to_json() for span in memory.spans)
    assert not get_current_span().get_span_context().is_valid
