"""What the collector makes of events: which numbers a run leaves behind, and what is in flight comes back to zero."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.run_events import RunEvents

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, Each, Key, RetryPolicy, SharedState, node
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.names import METRICS
from agentflow.core.observability.metrics.open_spans import OpenSpans
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.errors import AgentFlowError

GPT = {"provider": "openai", "model": "gpt"}
USED = {"input_tokens": 900, "output_tokens": 120, "cached_tokens": 400, "reasoning_tokens": 0, "cost": 0.02}

Tell = Callable[[RunEvents, int], None]


def told(*tell: Tell) -> MetricsSnapshot:
    """The metrics of a run whose node `write` does what the functions say."""
    run = RunEvents("r1")
    flow = run.begin("flow", "article")
    visit = run.begin("node", "article/write#1", flow)
    for each in tell:
        each(run, visit)
    run.at += 2.0
    run.end(visit, breakdown={"limiter": 0.5, "own": 1.5})
    run.end(flow, breakdown={"own": 2.0})
    return collected(run)


def collected(*runs: RunEvents) -> MetricsSnapshot:
    metrics = MetricsCollector(clock=VirtualClock())
    for run in runs:
        for event in run.events:
            metrics.observe(event)
    return metrics.snapshot()


def call(run: RunEvents, visit: int, how: str = "success", **data: object) -> None:
    """One call of a model, half a second long."""
    span = run.begin("model", "article/write#1", visit, **GPT)
    run.at += 0.5
    run.end(span, how, **GPT, **data)


def in_flight(snapshot: MetricsSnapshot) -> dict[str, float | None]:
    return {name: snapshot.value(name) for name in METRICS if name.endswith("_in_flight")}


# ---- what a run leaves behind --------------------------------------------------------------------------------


def test_a_visit_of_a_node_is_counted_timed_and_accounted_for() -> None:
    snapshot = told()
    where = {"flow": "article", "node": "write"}
    assert snapshot.value("node_visits", labels={**where, "status": "done"}) == 1.0
    assert snapshot.value("node_duration_seconds", "p99", labels=where) == 2.0
    assert snapshot.value("wait_seconds", labels={"scope": "node", "name": "write", "phase": "limiter"}) == 0.5
    assert snapshot.value("flow_runs", labels={"flow": "article", "status": "done"}) == 1.0
    assert snapshot.value("flow_duration_seconds", "max") == 2.0
    assert snapshot.value("wait_seconds", labels={"scope": "flow"}) == 2.0


def test_a_call_of_a_model_counts_for_the_model_its_node_and_its_flow() -> None:
    def tell(run: RunEvents, visit: int) -> None:
        call(run, visit, **USED, timing={"first_token": 0.2}, breakdown={"first_token": 0.2, "generation": 0.3})

    snapshot = told(tell, tell)
    assert snapshot.value("model_calls", labels={**GPT, "status": "ok"}) == 2.0
    assert snapshot.value("model_duration_seconds", "p50", labels=GPT) == 0.5
    assert snapshot.value("model_first_token_seconds", "p50", labels=GPT) == 0.2
    assert snapshot.value("wait_seconds", labels={"scope": "model", "name": "gpt"}) == pytest.approx(1.0)
    flow = {"flow": "article"}
    for whose, labels in (("model", GPT), ("node", {**flow, "node": "write"}), ("flow", flow)):
        assert snapshot.value(f"{whose}_tokens", labels={**labels, "direction": "input"}) == 1800.0
        assert snapshot.value(f"{whose}_tokens", labels={**labels, "direction": "cached"}) == 800.0
        assert snapshot.value(f"{whose}_cost_dollars", labels=labels) == pytest.approx(0.04)
    assert snapshot.value("model_unpriced_calls") is None


def test_a_call_whose_price_nobody_knows_is_unpriced_and_not_free() -> None:
    """Without a cost, with None, and with one of nothing: the last is free."""
    snapshot = told(
        lambda run, visit: call(run, visit, input_tokens=10),
        lambda run, visit: call(run, visit, input_tokens=10, cost=None),
        lambda run, visit: call(run, visit, input_tokens=10, cost=0.0),
    )
    assert snapshot.value("model_unpriced_calls", labels=GPT) == 2.0
    assert snapshot.value("model_cost_dollars") == 0.0
    assert snapshot.value("node_tokens", labels={"direction": "input"}) == 30.0
    assert snapshot.value("node_tokens", labels={"direction": "output"}) is None


def test_a_failed_call_costs_what_it_says_and_nothing_unknown() -> None:
    """An answer that does not fit is paid for; a request that never got through has no price to miss."""
    snapshot = told(
        lambda run, visit: call(run, visit, "error", error_type="OutputError", **USED),
        lambda run, visit: call(run, visit, "error", error_type="ServerError"),
        lambda run, visit: call(run, visit, "cancelled"),
    )
    assert snapshot.value("model_cost_dollars") == 0.02
    assert snapshot.value("model_unpriced_calls") is None
    assert snapshot.value("errors", labels={"scope": "model"}) == 2.0
    assert snapshot.value("errors", labels={"scope": "model", "error_type": "OutputError"}) == 1.0
    assert snapshot.value("model_calls", labels={"status": "error"}) == 2.0
    assert snapshot.value("model_calls", labels={"status": "cancelled"}) == 1.0


def test_requests_that_a_hedge_lost_are_paid_for() -> None:
    """Where their price is known it comes to the cost, elsewhere they are unpriced."""
    snapshot = told(
        lambda run, visit: call(run, visit, **USED, lost_requests=1, lost_cost=0.01),
        lambda run, visit: call(run, visit, **USED, lost_requests=2, lost_cost=None),
    )
    assert snapshot.value("model_lost_requests") == 3.0
    assert snapshot.value("model_unpriced_calls") == 2.0
    assert snapshot.value("flow_cost_dollars") == pytest.approx(0.05)


def test_a_call_outside_of_any_flow_is_one_of_its_model_alone() -> None:
    run = RunEvents()
    span = run.begin("model", "gpt", **GPT)
    run.events[-1] = outside(run.events[-1])
    run.end(span, **GPT, **USED)
    run.events[-1] = outside(run.events[-1])
    snapshot = collected(run)
    assert snapshot.value("model_cost_dollars", labels=GPT) == 0.02
    assert {each.name.partition("_")[0] for each in snapshot.series} == {"model"}


def outside(event: ExecutionEvent) -> ExecutionEvent:
    return replace(event, node="", visit=1, parent=None)


def test_what_an_item_of_an_each_spends_is_spent_by_the_each() -> None:
    """Its visits are those of `look[]`, its tokens those of `look`."""
    run = RunEvents()
    flow = run.begin("flow", "article")
    each = run.begin("node", "article/look#1", flow)
    item = run.begin("node", "article/look#1/0", each)
    span = run.begin("model", "article/look#1/0", item, **GPT)
    run.end(span, **GPT, **USED)
    snapshot = collected(run)
    assert snapshot.value("nodes_in_flight", labels={"node": "look[]"}) == 1.0
    assert snapshot.value("node_cost_dollars", labels={"node": "look"}) == 0.02
    assert snapshot.value("node_cost_dollars", labels={"node": "look[]"}) is None


def test_a_flow_within_a_flow_is_a_visit_of_a_node() -> None:
    """`flow_runs` counts runs; what happens inside belongs to the outermost flow."""
    run = RunEvents()
    flow = run.begin("flow", "article")
    inner = run.begin("flow", "article/inner#2", flow)
    visit = run.begin("node", "article/inner#2/judge#1", inner)
    run.end(visit)
    run.end(inner, "error", error_type="NodeError")
    run.end(flow, "error", error_type="NodeError")
    snapshot = collected(run)
    assert snapshot.value("flow_runs", labels={"flow": "article", "status": "failed"}) == 1.0
    assert snapshot.value("flow_runs") == 1.0
    assert snapshot.value("node_visits", labels={"flow": "article", "node": "inner", "status": "failed"}) == 1.0
    assert snapshot.value("node_visits", labels={"flow": "article", "node": "judge", "status": "done"}) == 1.0
    assert snapshot.value("errors", labels={"scope": "flow", "error_type": "NodeError"}) == 1.0


@pytest.mark.parametrize(
    ("kind", "data", "name", "labels"),
    [
        ("retry", {"error_type": "ValueError"}, "node_retries", {"flow": "article", "node": "write"}),
        ("retry", {**GPT, "error_type": "ServerError"}, "model_retries", {**GPT, "error_type": "ServerError"}),
        ("limiter_wait", {"guard": "g", "seconds": 0.5}, "limiter_wait_seconds", {"guard": "g"}),
        ("shedder_wait", {"guard": "g", "seconds": 0.5}, "shedder_wait_seconds", {"guard": "g"}),
        ("pool_wait", {"guard": "g", "seconds": 0.5}, "pool_wait_seconds", {"guard": "g"}),
        ("rejected", {"guard": "g", "error_type": "E"}, "rejections", {"guard": "g", "error_type": "E"}),
        ("hedge", {"guard": "g", "number": 1}, "hedges", {"guard": "g"}),
        ("fallback", {"from": "a", "to": "b"}, "fallbacks", {"from": "a", "to": "b"}),
        ("breaker_state", {"guard": "g", "to": "open"}, "breaker_open", {"guard": "g"}),
        ("breaker_state", {"guard": "g", "to": "closed"}, "breaker_transitions", {"guard": "g", "to": "closed"}),
        ("cache_hit", {"model": "m"}, "cache_lookups", {"model": "m", "outcome": "hit"}),
        ("cache_hit", {"model": "m", "saved": 1.0}, "cache_saved_dollars", {"model": "m"}),
        ("cache_miss", {"model": "m"}, "cache_lookups", {"model": "m", "outcome": "miss"}),
        ("route", {"from": "auto", "to": "m"}, "routes", {"from": "auto", "to": "m"}),
        (
            "budget",
            {"account": "tenant:acme", "decision": "refused"},
            "budget_decisions",
            {"account": "tenant", "decision": "refused"},
        ),
        ("batch", {"model": "m", "size": 3, "reason": "full"}, "batches", {"model": "m", "reason": "full"}),
        ("batch", {"model": "m", "size": 1, "reason": "full"}, "batched_requests", {"model": "m"}),
        ("alert", {"rule": "slow", "state": "firing"}, "alert_transitions", {"rule": "slow", "state": "firing"}),
        ("feedback", {"score": 0.5, "source": "user"}, "feedback_score", {"flow": "article"}),
        ("feedback", {"label": "good", "source": "user"}, "feedback", {"label": "good"}),
        ("tool_refused", {"tool": "search", "reason": "no"}, "tool_calls", {"tool": "search", "status": "refused"}),
    ],
)
def test_a_decision_is_counted(kind: str, data: dict[str, object], name: str, labels: dict[str, str]) -> None:
    """Each with the labels that stand in docs/metrics.md, and no others."""
    snapshot = told(lambda run, visit: run.point(kind, visit, **data))
    [series] = snapshot.select(name)
    assert (series.labels, series.value()) == (labels, 1.0)


@pytest.mark.parametrize(
    ("state", "openness"),
    [("closed", 0.0), ("half_open", 0.5), ("open", 1.0), ("forced_open", 1.0), ("disabled", 0.0)],
)
def test_an_open_breaker_reads_one(state: str, openness: float) -> None:
    snapshot = told(lambda run, visit: run.point("breaker_state", visit, guard="g", **{"from": "?", "to": state}))
    assert snapshot.value("breaker_open") == openness


@pytest.mark.parametrize(("how", "status"), [("success", "ok"), ("error", "error"), ("cancelled", "cancelled")])
def test_attempts_and_tools_are_counted_and_timed(how: str, status: str) -> None:
    def tell(run: RunEvents, visit: int) -> None:
        attempt = run.begin("attempt", "article/write#1", visit, **GPT)
        run.at += 0.25
        run.end(attempt, how, **GPT, error_type="E")
        tool = run.begin("tool", "article/write#1", visit, tool="search")
        run.at += 0.75
        run.end(tool, how, tool="search", error_type="E")

    snapshot = told(tell)
    assert snapshot.value("model_attempts", labels={**GPT, "status": status}) == 1.0
    assert snapshot.value("attempt_duration_seconds", "p50", labels=GPT) == 0.25
    assert snapshot.value("tool_calls", labels={"tool": "search", "status": status}) == 1.0
    assert snapshot.value("tool_duration_seconds", "p50") == pytest.approx(0.75)
    errors = 1.0 if how == "error" else None
    assert snapshot.value("errors", labels={"scope": "attempt", "error_type": "E"}) == errors
    assert snapshot.value("errors", labels={"scope": "tool", "error_type": "E"}) == errors


def test_every_metric_that_is_counted_is_named() -> None:
    """`METRICS` knows all that a run with everything in it leaves behind, and each is of the kind it says."""
    from tests.support.every_metric import let_everything_happen

    metrics = MetricsCollector(clock=VirtualClock(), max_series=1000)
    let_everything_happen(metrics)
    found = {series.name: series.kind for series in metrics.snapshot().series}
    assert found.items() <= {**METRICS, "rows": "histogram"}.items()
    assert set(METRICS) - set(found) == {"samples_refused", "series_overflow"}


def test_the_last_run_of_each_size_stands_beside_a_histogram() -> None:
    """One exemplar for each power of two, the last one that came."""
    runs = []
    for number, seconds in enumerate((0.3, 5.0, 0.26, 40.0)):
        run = RunEvents(f"r{number}", started=1000.0 + number)
        flow = run.begin("flow", "article")
        run.at += seconds
        run.end(flow)
        runs.append(run)
    [series] = collected(*runs).select("flow_duration_seconds")
    assert [(each.value, each.run_id) for each in series.exemplars] == [(0.26, "r2"), (5.0, "r1"), (40.0, "r3")]
    assert series.exemplars[0].time == 1002.26


# ---- what is in flight ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["success", "error", "cancelled"])
def test_what_is_in_flight_is_counted_and_comes_back_to_zero(how: str) -> None:
    run = RunEvents()
    metrics = MetricsCollector(clock=VirtualClock())
    flow = run.begin("flow", "article")
    visits = [run.begin("node", f"article/write#1/{item}", flow) for item in range(3)]
    asked = run.begin("model", "article/write#1/0", visits[0], **GPT)
    for event in run.events:
        metrics.observe(event)
    assert in_flight(metrics.snapshot()) == {"flows_in_flight": 1, "nodes_in_flight": 3, "model_calls_in_flight": 1}
    for span, data in ((asked, GPT), *((visit, {}) for visit in visits), (flow, {})):
        run.end(span, how, **data)
        metrics.observe(run.events[-1])
    assert set(in_flight(metrics.snapshot()).values()) == {0.0}


@given(st.data())
def test_what_is_in_flight_is_never_negative_and_zero_at_the_end(data: st.DataObject) -> None:
    """Whatever events are lost, doubled or late, once the outermost flows have ended."""
    runs = [RunEvents(f"r{number}") for number in range(3)]
    for run in runs:
        flow = run.begin("flow", "article")
        visit = run.begin("node", "article/write#1", flow)
        call(run, visit, data.draw(st.sampled_from(["success", "error", "cancelled"])))
        run.end(visit, data.draw(st.sampled_from(["success", "error", "cancelled"])))
    events = [event for run in runs for event in run.events]
    kept = data.draw(st.lists(st.sampled_from(events), max_size=30))
    metrics = MetricsCollector(clock=VirtualClock())
    for event in kept:
        metrics.observe(event)
        assert all((value or 0.0) >= 0.0 for value in in_flight(metrics.snapshot()).values())
    for run in runs:
        run.end(1)
        metrics.observe(run.events[-1])
    assert {value or 0.0 for value in in_flight(metrics.snapshot()).values()} == {0.0}


def test_an_end_whose_beginning_was_not_seen_is_counted_and_changes_no_gauge() -> None:
    run = RunEvents()
    flow = run.begin("flow", "article")
    run.end(run.begin("node", "article/write#1", flow))
    metrics = MetricsCollector(clock=VirtualClock())
    metrics.observe(run.events[-1])
    assert metrics.snapshot().value("node_visits") == 1.0
    assert metrics.snapshot().value("nodes_in_flight") == 0.0


def test_a_run_whose_end_never_comes_is_forgotten_for_newer_ones() -> None:
    """Its event loop was closed: memory stays bounded, and so do the gauges."""
    spans = OpenSpans(most=2)
    for number in range(10):
        spans.begin(f"r{number}", {})
    assert list(spans) == ["r8", "r9"]


# ---- real runs -----------------------------------------------------------------------------------------------

ITEMS, FOUND = Key[list[int]]("items"), Key[list[int]]("found")


@node
async def read(state: SharedState) -> None:
    state[ITEMS] = [1, 2, 3, 4]


async def look(item: int) -> int:
    await asyncio.sleep(item)
    return item


@node(retry=RetryPolicy(max_attempts=3, base_delay=2.0, jitter="none"))
async def shaky(state: SharedState) -> None:
    raise ValueError("no luck")


def run_of(start: Any, *, cancel_after: float | None = None) -> MetricsSnapshot:
    """The metrics of one run of a flow on a virtual clock, however it ends."""
    clock = VirtualClock()
    metrics = MetricsCollector(clock=clock)
    flow = AsyncFlow(start, name="article", clock=clock)

    async def main() -> None:
        try:
            async with asyncio.timeout(cancel_after):
                await flow.run({}, observers=[metrics])
        except (AgentFlowError, TimeoutError):
            pass

    clock.run(main())
    return metrics.snapshot()


def test_a_real_run_with_items_at_the_same_time() -> None:
    """The items are timed by themselves; the node, and the run, took as long as the longest of them."""
    snapshot = run_of(read >> Each(look, over=ITEMS, into=FOUND, concurrency=4).named("look"))
    assert snapshot.value("node_visits", labels={"node": "look"}) == 1.0
    assert snapshot.value("node_visits", labels={"node": "look[]"}) == 4.0
    assert snapshot.value("node_duration_seconds", "min", labels={"node": "look[]"}) == 1.0
    assert snapshot.value("node_duration_seconds", "min", labels={"node": "look"}) == 4.0
    assert snapshot.value("flow_duration_seconds", "max") == 4.0
    assert {value or 0.0 for value in in_flight(snapshot).values()} == {0.0}


def test_a_real_run_that_fails() -> None:
    snapshot = run_of(shaky)
    assert snapshot.value("node_visits", labels={"status": "failed"}) == 1.0
    assert snapshot.value("node_retries", labels={"flow": "article", "node": "shaky"}) == 2.0
    assert snapshot.value("errors", labels={"scope": "node"}) == 1.0
    assert snapshot.value("flow_runs", labels={"status": "failed"}) == 1.0
    assert {value or 0.0 for value in in_flight(snapshot).values()} == {0.0}


def test_a_real_run_that_is_cancelled() -> None:
    """Two items are done, two are cancelled with the node and the flow."""
    snapshot = run_of(read >> Each(look, over=ITEMS, into=FOUND, concurrency=4).named("look"), cancel_after=2.5)
    assert snapshot.value("node_visits", labels={"node": "look[]", "status": "done"}) == 2.0
    assert snapshot.value("node_visits", labels={"node": "look[]", "status": "cancelled"}) == 2.0
    assert snapshot.value("node_visits", labels={"node": "look", "status": "cancelled"}) == 1.0
    assert snapshot.value("flow_runs", labels={"status": "cancelled"}) == 1.0
    assert snapshot.value("errors") is None
    assert {value or 0.0 for value in in_flight(snapshot).values()} == {0.0}


# ---- runs that are parked, and go on -------------------------------------------------------------------------


def parked(run: RunEvents, *, stretch: int = 0) -> int:
    """A stretch in which `judge` asks somebody and is parked. The flow's span, to be ended or not."""
    flow = run.begin("flow", "article")
    if stretch:
        run.point("resume", flow, stretch=stretch, steps=1)
    judge = run.begin("node", "article/judge#1", flow)
    run.at += 2.0
    run.end(judge, "interrupted", breakdown={"own": 2.0})
    return flow


def test_a_run_that_is_parked_is_not_under_way_and_has_not_ended() -> None:
    run = RunEvents("r1")
    run.end(parked(run), "interrupted", breakdown={"own": 2.0})
    snapshot = collected(run)
    assert in_flight(snapshot)["flows_in_flight"] == 0.0
    assert in_flight(snapshot)["nodes_in_flight"] == 0.0
    assert snapshot.value("flow_runs") is None
    assert snapshot.value("node_visits") is None
    assert snapshot.value("flow_interruptions", labels={"flow": "article"}) == 1.0
    assert snapshot.value("wait_seconds", labels={"scope": "node", "name": "judge", "phase": "own"}) == 2.0


def test_a_run_that_goes_on_is_one_run() -> None:
    run = RunEvents("r1")
    run.end(parked(run), "interrupted", breakdown={"own": 2.0})
    run.go_on(after=3600.0)
    run.end(parked(run, stretch=1), "interrupted", breakdown={"own": 2.0})
    run.go_on(after=3600.0)
    flow = run.begin("flow", "article")
    run.point("resume", flow, stretch=2, steps=1)
    judge = run.begin("node", "article/judge#1", flow)
    run.at += 1.0
    run.end(judge, breakdown={"own": 1.0})
    run.end(flow, breakdown={"own": 1.0})
    snapshot = collected(run)
    assert snapshot.value("flow_runs", labels={"flow": "article", "status": "done"}) == 1.0
    assert snapshot.value("flow_runs") == 1.0
    assert snapshot.value("node_visits") == 1.0
    assert snapshot.value("flow_interruptions") == 2.0
    assert snapshot.value("flow_resumes", labels={"flow": "article"}) == 2.0
    assert snapshot.value("flow_duration_seconds", "max", labels={"flow": "article"}) == 1.0  # nobody's answer is slow


def test_a_parked_run_that_is_cancelled_has_ended() -> None:
    run = RunEvents("r1")
    run.end(parked(run), "interrupted", breakdown={"own": 2.0})
    run.events.append(ExecutionEvent("cancel", "r1", "article", "article", 1, 0, run.started + 9.0))
    snapshot = collected(run)
    assert snapshot.value("flow_runs", labels={"flow": "article", "status": "cancelled"}) == 1.0
    assert snapshot.value("flow_runs") == 1.0


def test_what_was_undone_is_counted_by_node() -> None:
    def undo(run: RunEvents, visit: int) -> None:
        for how in ("success", "error"):
            span = run.begin("compensate", "article/book#1", visit)
            run.end(span, how, error="no", error_type="NodeError", breakdown={})

    snapshot = told(undo)
    where = {"flow": "article", "node": "book"}
    assert snapshot.value("node_compensations", labels={**where, "status": "done"}) == 1.0
    assert snapshot.value("node_compensations", labels={**where, "status": "failed"}) == 1.0
