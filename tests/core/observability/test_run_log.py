"""Runs as log records: which events at which level, and with what."""

from __future__ import annotations

import io
import json
import logging

import pytest

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, ExecutionEvent, SharedState, emit, node, observe
from agentflow.core.observability.kinds import KINDS
from agentflow.core.observability.logs.run_log import RunLog, level_of
from agentflow.core.observability.logs.setup import configure_logging


def event(kind: str, **data: object) -> ExecutionEvent:
    return ExecutionEvent(kind, "r1", "shop/pay#1", "pay", 1, 4, 1_800_000_000.5, 2.0, data=data, span=3)


@pytest.mark.parametrize(
    ("said", "level"),
    [
        (event("flow_success"), logging.INFO),
        (event("flow_error"), logging.ERROR),
        (event("node_start"), logging.DEBUG),
        (event("node_error"), logging.WARNING),
        (event("model_success"), logging.INFO),
        (event("attempt_error"), logging.DEBUG),
        (event("breaker_state", to="open"), logging.WARNING),
        (event("breaker_state", to="closed"), logging.INFO),
        (event("alert", state="firing", severity="critical"), logging.ERROR),
        (event("alert", state="firing", severity="warning"), logging.WARNING),
        (event("alert", state="resolved", severity="critical"), logging.INFO),
        (event("order_placed"), logging.INFO),
    ],
    ids=lambda value: value.kind if isinstance(value, ExecutionEvent) else None,
)
def test_an_event_matters_so_much(said: ExecutionEvent, level: int) -> None:
    assert level_of(said) == level


def test_every_kind_has_a_level() -> None:
    assert all(level_of(event(kind)) in (10, 20, 30, 40) for kind in KINDS)


def test_a_record_bears_the_events_time_place_and_data() -> None:
    stream = io.StringIO()
    with configure_logging(json=True, stream=stream):
        RunLog().observe(event("model_success", model="gpt-4o", cost=0.25, provider="openai"))
    assert json.loads(stream.getvalue()) == {
        "time": "2027-01-15T08:00:00.500000Z",
        "level": "INFO",
        "logger": "agentflow.runs",
        "message": "model_success shop/pay#1 gpt-4o in 2.00 s cost=0.25",
        "run_id": "r1",
        "node": "pay",
        "path": "shop/pay#1",
        "span": 3,
        "event": "model_success",
        "seconds": 2.0,
        "data": {"model": "gpt-4o", "cost": 0.25, "provider": "openai"},
    }


def test_prompts_and_answers_are_left_out_also_where_somebody_else_wants_them() -> None:
    class Curious:
        content = chunks = True

        def observe(self, event: ExecutionEvent) -> None: ...

    @node
    async def ask(state: SharedState) -> None:
        for kind in ("model_success", "chunk"):
            await emit(kind, {"answer": "private"} if kind != "chunk" else {"content": "private"})

    stream = io.StringIO()
    with configure_logging(json=True, stream=stream, level="DEBUG"), observe(RunLog()) as log, observe(Curious()):
        VirtualClock().run(AsyncFlow(ask, name="shop").run({}))
        assert log.flush()
    assert '"model_success"' in stream.getvalue()
    assert '"chunk"' not in stream.getvalue()
    assert "private" not in stream.getvalue()


def test_what_nobody_wants_to_read_is_not_written() -> None:
    stream = io.StringIO()
    with configure_logging(json=True, stream=stream, level="ERROR"):
        RunLog().observe(event("flow_success"))
    assert stream.getvalue() == ""


def test_a_key_in_an_errors_text_does_not_come_out() -> None:
    stream = io.StringIO()
    with configure_logging(json=True, stream=stream):
        RunLog().observe(event("flow_error", error="bad key sk-proj-4f9aB81xQz77LmNp20rT", error_type="ValueError"))
    assert "4f9aB81xQz77" not in stream.getvalue()
    assert "bad key [redacted:" in stream.getvalue()


def test_a_real_run_is_logged_from_its_beginning_to_its_end() -> None:
    @node
    async def pay(state: SharedState) -> None: ...

    stream = io.StringIO()
    with configure_logging(json=True, stream=stream, level="DEBUG"), observe(RunLog()) as observation:
        VirtualClock().run(AsyncFlow(pay, name="shop").run({}, run_id="r1"))
        assert observation.flush()
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in told if line["logger"] == "agentflow.runs"] == [
        "flow_start",
        "node_start",
        "node_success",
        "flow_success",
    ]
