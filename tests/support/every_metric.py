"""A moment in which everything happens that AgentFlow counts: so that each of its metrics has something to show.

metrics = MetricsCollector()
let_everything_happen(metrics)          # twice, and every counter has grown
"""

from __future__ import annotations

import itertools

from tests.support.run_events import RunEvents

from agentflow.core.observability.metrics.collector import MetricsCollector

__all__ = ["let_everything_happen"]

_PHASES = (
    "queue limiter pool backoff failed connect first_token generation tools own waiting stopped unattributed".split()
)
_MODEL = {"provider": "openai", "model": "gpt-4o"}
_USED = {
    "input_tokens": 900,
    "output_tokens": 120,
    "cached_tokens": 400,
    "cache_write_tokens": 10,
    "reasoning_tokens": 30,
    "timing": {"first_token": 0.4},
    "breakdown": dict.fromkeys(_PHASES, 0.25),
}
_numbers = itertools.count(1)


def let_everything_happen(metrics: MetricsCollector) -> str:
    """Four runs of the flow `digest`: done, failed, under way, and parked twice. Returns the first one's id."""
    done, failed = _run("done"), _run("failed")
    for event in (*done.events, *failed.events, *_under_way().events, *_parked().events):
        metrics.observe(event)
    for _ in range(2):
        metrics.record("rows", 3.0, {"table": "orders"})
    return done.run_id


def _run(status: str) -> RunEvents:
    run = RunEvents(f"{status}{next(_numbers):08d}")
    flow = run.begin("flow", "digest")
    node = run.begin("node", "digest/write#1", flow)
    _call(run, node, failed=status == "failed")
    for kind, data in _POINTS:
        run.point(kind, node, **data)
    for how in ("success", "error", "cancelled"):
        tool = run.begin("tool", "digest/write#1", node, tool="search")
        run.at += 0.3
        run.end(tool, how, tool="search", error_type="ToolError")
    ends = {"breakdown": dict.fromkeys(_PHASES, 0.5), "error": "no", "error_type": "NodeError"}
    how = "success" if status == "done" else "error"
    run.end(node, how, **ends)
    run.end(flow, how, **ends)
    run.point("feedback", flow, score=0.8, label="good", source="user")
    return run


def _call(run: RunEvents, node: int, *, failed: bool) -> None:
    call = run.begin("model", "digest/write#1", node, **_MODEL)
    attempt = run.begin("attempt", "digest/write#1", call, **_MODEL)
    run.at += 1.5
    if failed:
        run.end(attempt, "error", **_MODEL, error="no", error_type="ServerError")
        run.point("retry", call, **_MODEL, error="no", error_type="ServerError", delay=0.5)
        run.end(call, "error", **_MODEL, error="no", error_type="ServerError", breakdown={"failed": 1.5})
        return
    run.end(attempt, "success", **_MODEL)
    run.end(call, "success", **_MODEL, **_USED, cost=0.02, lost_requests=1, lost_cost=0.01)
    unpriced = run.begin("model", "digest/write#1", node, **_MODEL)
    run.end(unpriced, "success", **_MODEL, **_USED)


_POINTS: list[tuple[str, dict[str, object]]] = [
    ("retry", {"error": "no", "error_type": "ServerError", "delay": 0.5}),
    ("shedder_wait", {"guard": "openai", "seconds": 0.1}),
    ("limiter_wait", {"guard": "openai", "seconds": 0.7}),
    ("pool_wait", {"guard": "openai", "seconds": 0.01}),
    ("breaker_state", {"guard": "openai", "from": "closed", "to": "open"}),
    ("rejected", {"guard": "openai", "error": "open", "error_type": "CircuitOpenError"}),
    ("hedge", {"guard": "openai", "number": 2}),
    ("fallback", {"from": "gpt-4o", "to": "fast", "error": "no", "error_type": "ServerError"}),
    ("alert", {"rule": "slow", "state": "firing", "previous": "pending", "severity": "page", "value": 9.0}),
    ("cache_hit", {"model": "fast", "tier": "exact", "saved": 0.01}),
    ("cache_miss", {"model": "fast", "reason": "absent"}),
    ("route", {"from": "auto", "to": "fast", "reason": "cheapest"}),
    ("budget", {"model": "fast", "account": "tenant:acme", "decision": "refused"}),
    ("batch", {"model": "fast", "size": 3, "reason": "full"}),
]


def _parked() -> RunEvents:
    run = RunEvents(f"parked{next(_numbers):08d}")
    for stretch in range(2):
        flow = run.begin("flow", "digest")
        if stretch:
            run.point("resume", flow, stretch=stretch, steps=0)
        undo = run.begin("compensate", "digest/write#1", flow)
        run.end(undo, breakdown={})
        run.end(flow, "interrupted", breakdown={"own": 0.5})
        run.go_on(after=60.0)
    return run


def _under_way() -> RunEvents:
    run = RunEvents(f"open{next(_numbers):08d}")
    flow = run.begin("flow", "digest")
    node = run.begin("node", "digest/write#1", flow)
    run.begin("model", "digest/write#1", node, **_MODEL)
    return run
