"""What leaves the process: to a collector that takes it, and to those that refuse, are slow, or are not there."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tests.support.faults.server import Exchange, FaultServer, answer_well
from tests.support.otlp_receiver import Receiver, attributes_of, receiving
from tests.support.programs import free_port
from tests.support.speakers import SPEAKERS, Answer
from tests.support.telling import MODEL, Telling

from agentflow import AgentFlow, AsyncFlow, ModelRegistry, node
from agentflow.core.observability import observe
from agentflow.integrations.opentelemetry import OpenTelemetryObserver
from agentflow.integrations.opentelemetry import from_settings as make
from agentflow.integrations.opentelemetry.delivery import SpanDelivery

KEY = "key-of-nobody-0123456789"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """OpenTelemetry's own words about a collector that is down are not ours to test."""
    theirs = logging.getLogger("opentelemetry")
    before = theirs.level
    theirs.setLevel(logging.CRITICAL)
    yield
    theirs.setLevel(before)


def from_settings(settings: Mapping[str, object]) -> OpenTelemetryObserver:
    """With patience, unless the test has none: a machine may be busy with other things for seconds."""
    return make({"timeout": 30, **settings})


def finish(observer: OpenTelemetryObserver) -> None:
    observer.flush()
    observer.close()


def runs(observer: OpenTelemetryObserver, count: int) -> None:
    for number in range(count):
        run = Telling(observer, f"run-{number}")
        run.end("model_success", run.begin("model_start", "fast", MODEL), {"input_tokens": 3})


# ---- a collector that takes it ---------------------------------------------------------------------------------------


async def test_a_real_run_arrives_with_its_tree_its_metrics_and_its_content(receiver: Receiver) -> None:
    observer = from_settings(
        {"endpoint": receiver.endpoint, "service_name": "tides", "content": "SPAN_AND_EVENT", "interval": 3600}
    )

    @node
    async def tell(state: dict[str, str]) -> None:
        await AgentFlow.model("local/extractive").prompt("The sea rises.").execute()

    with observe(observer):
        await AsyncFlow(tell, name="article").run({})
    finish(observer)

    spans = {span.name: span for span in receiver.spans}
    assert set(spans) == {"invoke_workflow article", "node tell", "chat extractive", "attempt"}
    for child, parent in (
        ("attempt", "chat extractive"),
        ("chat extractive", "node tell"),
        ("node tell", "invoke_workflow article"),
    ):
        assert spans[child].parent_span_id == spans[parent].span_id
        assert spans[parent].start_time_unix_nano <= spans[child].start_time_unix_nano
        assert spans[child].end_time_unix_nano <= spans[parent].end_time_unix_nano
    chat = attributes_of(spans["chat extractive"])
    assert chat["gen_ai.operation.name"] == "chat"
    assert chat["gen_ai.usage.output_tokens"] > 0
    assert "The sea rises." in chat["gen_ai.input.messages"]
    assert receiver.resource["service.name"] == "tides"
    named = {metric.name for metric in receiver.metrics}
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage", "gen_ai.invoke_workflow.duration"} <= named
    [record] = receiver.logs
    assert record.event_name == "gen_ai.client.inference.operation.details"
    assert record.span_id == spans["chat extractive"].span_id
    assert attributes_of(record)["gen_ai.input.messages"][0]["role"] == "user"
    assert not observer.losses


async def test_the_request_to_the_model_carries_the_span_of_its_attempt(receiver: Receiver, tmp_path: Path) -> None:
    """What a server that traces as well sees: each attempt is the parent of what it does for it."""
    speaker = SPEAKERS["chat"]
    well = answer_well(Answer("Hello."))

    def act(exchange: Exchange) -> None:
        if exchange.number == 0:
            exchange.respond({"error": {"message": "down"}}, 503)
        else:
            well(exchange)

    observer = from_settings({"endpoint": receiver.endpoint, "metrics": False})
    with FaultServer(speaker, act) as server:
        (tmp_path / "models.yml").write_text(
            f"providers: {{lab: {{kind: openai, base_url: '{server.url}', api_key_env: LAB_KEY,"
            " retry: {max_attempts: 3, base_delay: 0.01, max_delay: 0.02}}}\n"
            "models: {fast: {provider: lab, model_id: gpt-4o}}\n"
        )
        registry = ModelRegistry.load(environ={"LAB_KEY": KEY}, cwd=tmp_path, home=tmp_path)
        with observe(observer):
            reply = await AgentFlow.model("fast", registry=registry).prompt("Hi").execute()
            await registry.aclose()
        sent, port = [exchange.headers for exchange in server.requests], server.port
    finish(observer)

    assert reply == "Hello."
    posts = sorted((span for span in receiver.spans if span.name == "POST"), key=lambda span: span.start_time_unix_nano)
    [chat] = [span for span in receiver.spans if span.name == "chat gpt-4o"]
    assert [headers["traceparent"].split("-")[1:3] for headers in sent] == [
        [post.trace_id.hex(), post.span_id.hex()] for post in posts
    ]
    assert [attributes_of(post)["http.response.status_code"] for post in posts] == [503, 200]
    assert [post.parent_span_id for post in posts] == [chat.span_id, chat.span_id]
    assert attributes_of(chat)["server.port"] == port
    assert [event.name for event in chat.events] == ["agentflow.retry"]
    assert KEY not in str(receiver.spans)


def test_headers_come_from_the_environment_and_never_out_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLECTOR_HEADERS", f"x-api-key={KEY},x-team=a%20b")
    observer = from_settings({"endpoint": receiver.endpoint, "headers_env": "COLLECTOR_HEADERS", "metrics": False})
    run = Telling(observer)
    run.end("flow_error", run.begin("flow_start", "article"), {"error": f"refused {KEY}", "error_type": "X"})
    finish(observer)
    [request] = receiver.requests
    assert (request.headers["x-api-key"], request.headers["x-team"]) == (KEY, "a b")
    assert KEY not in str(receiver.spans)


def test_a_sample_of_nothing_sends_nothing_but_metrics(receiver: Receiver) -> None:
    observer = from_settings({"endpoint": receiver.endpoint, "sample": 0})
    runs(observer, 10)
    finish(observer)
    assert receiver.spans == []
    assert {metric.name for metric in receiver.metrics} >= {"gen_ai.client.operation.duration"}


# ---- collectors that do not ------------------------------------------------------------------------------------------


def test_a_collector_that_is_not_there_loses_what_it_was_to_get_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run goes on, the loss is counted and shown, and the end of the process does not wait for it."""
    observer = from_settings({"endpoint": f"http://127.0.0.1:{free_port()}", "timeout": 0.2, "metrics": False})
    runs(observer, 30)
    observer.flush()
    assert observer.losses.failed == 30
    runs(observer, 5)
    observer.close()
    assert observer.losses.failed == 35
    runs(observer, 2)
    assert observer.losses.refused == 2
    assert "the collector cannot be reached: 30 spans lost" in caplog.text
    assert "not all telemetry has arrived" in caplog.text


def test_a_collector_that_refuses_is_one_that_is_down(receiver: Receiver) -> None:
    receiver.status = 400
    observer = from_settings({"endpoint": receiver.endpoint, "metrics": False})
    runs(observer, 3)
    observer.flush()
    assert observer.losses.failed == 3
    receiver.status = 200
    runs(observer, 4)
    observer.flush()
    assert len(receiver.spans) == 4
    assert observer.losses.failed == 3
    observer.close()


def test_a_collector_that_is_slow_keeps_nobody_waiting(receiver: Receiver) -> None:
    """While it holds one batch, the queue fills; then what there is no room for is counted, and the rest arrives."""
    receiver.hold = threading.Event()
    observer = from_settings({"endpoint": receiver.endpoint, "metrics": False})
    runs(observer, 512)  # a batch, which is sent at once
    assert receiver.asked.acquire(timeout=30)
    runs(observer, 3000)
    losses = observer.losses
    assert losses.refused == 3000 - 2048
    assert losses.failed == 0
    receiver.hold.set()
    observer.flush()
    observer.close()
    assert len(receiver.spans) == 512 + 2048


def test_the_end_does_not_wait_longer_than_it_may(receiver: Receiver) -> None:
    receiver.hold = threading.Event()
    observer = from_settings({"endpoint": receiver.endpoint, "metrics": False, "timeout": 0.3})
    runs(observer, 600)
    assert receiver.asked.acquire(timeout=30)
    observer.close(timeout=0.0)
    assert observer.losses.failed == 600
    receiver.hold.set()


def test_closing_twice_is_closing_once(receiver: Receiver) -> None:
    observer = from_settings({"endpoint": receiver.endpoint})
    runs(observer, 1)
    finish(observer)
    observer.close()
    assert len(receiver.spans) == 1


class Broken(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        raise RuntimeError("broken")

    def shutdown(self) -> None: ...


def test_an_exporter_that_raises_is_one_that_fails() -> None:
    delivery = SpanDelivery(Broken(), Broken())
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(delivery)
    tracers.get_tracer("x").start_span("y").end()
    delivery.force_flush()
    assert delivery.delivery.failed == 1
    delivery.close(0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_sends_what_is_its_own(receiver: Receiver) -> None:
    observer = from_settings({"endpoint": receiver.endpoint, "metrics": False})
    run = Telling(observer, "parents")
    open_here = run.begin("model_start", "fast", MODEL)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            one = Telling(observer, "childs")
            one.end("model_success", one.begin("model_start", "child", {**MODEL, "model_id": "child"}))
            finish(observer)
            os.write(write, str((observer.open_spans, bool(observer.losses))).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read, "rb") as said:
        assert (status, said.read()) == (0, b"(0, False)")
    run.end("model_success", open_here)
    finish(observer)
    assert sorted(span.name for span in receiver.spans) == ["chat child", "chat gpt-4o"]
