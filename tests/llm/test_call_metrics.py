"""What real calls of models leave behind in a collector: guards, attempts, streams, failures, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.bench import Bench, Slow

from agentflow.core import AsyncFlow, SharedState, node
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.core.observability.observers import observe
from agentflow.errors import AgentFlowError, ServerError
from agentflow.llm.messages import Usage
from agentflow.llm.providers.scripted import ScriptedProvider

TOY = {"provider": "toy", "model": "toy/m"}


def counted(bench: Bench, work: Coroutine[Any, Any, object]) -> MetricsSnapshot:
    metrics = MetricsCollector(clock=bench.clock)

    async def main() -> None:
        with observe(metrics):
            with suppress(AgentFlowError, TimeoutError):
                await work

    bench.run(main())
    return metrics.snapshot()


def nothing_is_in_flight(snapshot: MetricsSnapshot) -> bool:
    names = ("flows_in_flight", "nodes_in_flight", "model_calls_in_flight")
    return all((snapshot.value(name) or 0.0) == 0.0 for name in names)


def test_a_call_in_a_flow_counts_for_model_node_and_flow(tmp_path: Path) -> None:
    """Its price is not known here: it is unpriced, and costs nothing that anybody knows of."""
    bench = Bench(tmp_path, {"toy": Slow(2.0, usage=Usage(12, 3))})

    @node
    async def write(state: SharedState) -> None:
        await bench.ask().execute()

    snapshot = counted(bench, AsyncFlow(write, name="article", clock=bench.clock).run({}))
    assert snapshot.value("model_calls", labels={**TOY, "status": "ok"}) == 1.0
    assert snapshot.value("model_attempts", labels={**TOY, "status": "ok"}) == 1.0
    assert snapshot.value("model_duration_seconds", "max", labels=TOY) == pytest.approx(2.0)
    assert snapshot.value("node_tokens", labels={"node": "write", "direction": "input"}) == 12.0
    assert snapshot.value("flow_tokens", labels={"flow": "article", "direction": "output"}) == 3.0
    assert snapshot.value("model_unpriced_calls", labels=TOY) == 1.0
    assert snapshot.value("model_cost_dollars") is None
    assert nothing_is_in_flight(snapshot)


def test_the_first_piece_of_a_stream_is_timed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(3.0, gap=0.5)})

    async def stream() -> None:
        await bench.ask().execute_streaming().collect()

    snapshot = counted(bench, stream())
    assert snapshot.value("model_first_token_seconds", "max", labels=TOY) == pytest.approx(3.0)
    assert snapshot.value("model_duration_seconds", "max", labels=TOY) == pytest.approx(4.0)
    assert nothing_is_in_flight(snapshot)


def test_a_failed_call_counts_its_attempts_retries_and_errors(tmp_path: Path) -> None:
    def fail(request: object) -> str:
        raise ServerError("no luck")

    bench = Bench(tmp_path, {"toy": ScriptedProvider(fail, name="toy")})
    snapshot = counted(bench, bench.ask().execute())
    assert snapshot.value("model_calls", labels={**TOY, "status": "error"}) == 1.0
    assert snapshot.value("model_attempts", labels={**TOY, "status": "error"}) == 3.0
    assert snapshot.value("model_retries", labels={**TOY, "error_type": "ServerError"}) == 2.0
    assert snapshot.value("errors", labels={"scope": "model", "error_type": "ServerError"}) == 1.0
    assert nothing_is_in_flight(snapshot)


def test_a_cancelled_call_is_neither_an_error_nor_in_flight_any_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(60.0)})
    snapshot = counted(bench, asyncio.wait_for(bench.ask().execute(), 5.0))
    assert snapshot.value("model_calls", labels={**TOY, "status": "cancelled"}) == 1.0
    assert snapshot.value("model_attempts", labels={**TOY, "status": "cancelled"}) == 1.0
    assert snapshot.value("errors") is None
    assert nothing_is_in_flight(snapshot)


def test_a_wait_for_the_limiter_is_a_wait_of_its_guard_and_of_the_call(tmp_path: Path) -> None:
    limit = "rate_limit: {requests_per_minute: 1, burst: 1}"
    yml = f"providers:\n  toy: {{kind: toy, {limit}}}\n"
    bench = Bench(tmp_path, {"toy": Slow(0.0)}, yml)

    async def two() -> None:
        await bench.ask().execute()
        await bench.ask().execute()

    snapshot = counted(bench, two())
    [waits] = snapshot.select("limiter_wait_seconds")
    assert waits.value("max") == pytest.approx(60.0, abs=1.0)
    assert snapshot.value("wait_seconds", labels={"scope": "model", "phase": "limiter"}) == pytest.approx(60.0, abs=1.0)
