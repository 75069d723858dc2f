"""Runs in several stretches, made by hand: parked at a question, died at work, gone on, ended.

run = parked_run()                 `judge` asks a person, and the run waits
run = resumed_run(hours=1)         an hour later it is answered, dies in `write`, and goes on a minute after that
"""

from __future__ import annotations

from tests.support.run_events import RunEvents

__all__ = ["parked_run", "resumed_run"]

_GRAPH = {
    "start": "read",
    "nodes": [{"name": "read"}, {"name": "judge"}, {"name": "write"}],
    "edges": [["read", "default", "judge"], ["judge", "default", "write"], ["write", "default", None]],
}
_MODEL = {"model": "gpt-4o", "provider": "lab"}


def parked_run(run_id: str = "run1", *, question: str | None = None, started: float = 1_800_000_000.0) -> RunEvents:
    """20 s in which `read` and `judge` each ask a model for 10 cents; then `judge` asks a person."""
    run = RunEvents(run_id, started)
    flow = run.begin("flow", "digest", graph=_GRAPH)
    read = run.begin("node", "digest/read#1", flow)
    _call(run, "digest/read#1", read)
    run.end(read, breakdown={"generation": 10.0})
    judge = run.begin("node", "digest/judge#1", flow)
    _call(run, "digest/judge#1", judge)
    asked = {} if question is None else {"question": question}
    run.point("interrupt", judge, interrupt="digest/judge#1!wait:1", due=None, **asked)
    run.end(judge, "interrupted", breakdown={"generation": 10.0})
    run.end(flow, "interrupted", breakdown={"generation": 20.0})
    return run


def resumed_run(run_id: str = "run1", *, hours: float = 1.0, started: float = 1_800_000_000.0) -> RunEvents:
    """12 s more: `judge` takes 2, `write` loses its model's answer, and gets it in the third stretch in 10."""
    run = parked_run(run_id, started=started)
    run.go_on(after=3600.0 * hours)
    flow = run.begin("flow", "digest", graph=_GRAPH)
    run.point("resume", flow, stretch=1, steps=1, calls=2, cost=0.2)
    judge = run.begin("node", "digest/judge#1", flow)
    run.at += 2.0
    run.end(judge, breakdown={"own": 2.0}, action="default")
    write = run.begin("node", "digest/write#1", flow)
    run.begin("model", "digest/write#1", write, **_MODEL)
    run.go_on(after=60.0)
    flow = run.begin("flow", "digest", graph=_GRAPH)
    run.point("resume", flow, stretch=2, steps=2, calls=2, cost=0.2)
    write = run.begin("node", "digest/write#1", flow)
    _call(run, "digest/write#1", write)
    run.end(write, breakdown={"generation": 10.0}, action="default")
    run.end(flow, breakdown={"generation": 10.0}, action="default")
    return run


def _call(run: RunEvents, path: str, node: int) -> None:
    call = run.begin("model", path, node, **_MODEL)
    run.at += 10.0
    run.end(call, **_MODEL, input_tokens=900, output_tokens=100, cost=0.1, breakdown={"generation": 10.0})
