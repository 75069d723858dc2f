"""Runs for the run store: events made by hand, and programs that record in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.support.run_events import START, RunEvents

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store import RunReader, RunStore

__all__ = ["DATABASE", "a_call", "a_run", "child", "read", "record"]

DATABASE = ".agentflow/runs.db"

ANSWERED = {
    "model": "fast",
    "provider": "openai",
    "input_tokens": 100,
    "output_tokens": 20,
    "cached_tokens": 10,
    "reasoning_tokens": 5,
    "cost": 0.25,
}


def a_run(
    run_id: str = "run1",
    name: str = "digest",
    *,
    how: str = "success",
    nodes: int = 1,
    started: float = START,
    tenant: str | None = None,
    answer: dict[str, object] | None = None,
    over: bool = True,
) -> list[ExecutionEvent]:
    """A flow whose nodes each ask a model; five events and four a node."""
    run = RunEvents(run_id, started)
    flow = run.begin("flow", name, tenant=tenant)
    for number in range(1, nodes + 1):
        path = f"{name}/write#{number}"
        node = run.begin("node", path, parent=flow)
        model = run.begin("model", path, parent=node, model="fast", provider="openai")
        run.at += 2.0
        run.end(model, **{**ANSWERED, **(answer or {})}, breakdown={"generation": 2.0})
        run.end(node, breakdown={"generation": 2.0})
    if over:
        failure = {"error": "it broke", "error_type": "ValueError"} if how == "error" else {}
        run.end(flow, how, **failure, breakdown={"generation": 2.0 * nodes})
    return run.events


def a_call(run_id: str = "call1", model: str = "fast", *, started: float = START) -> list[ExecutionEvent]:
    """A question outside of any flow."""
    run = RunEvents(run_id, started)
    asked = run.begin("model", model, model=model, provider="openai")
    run.at += 1.0
    run.end(asked, **{**ANSWERED, "model": model}, breakdown={"generation": 1.0})
    return [replace(event, node="") for event in run.events]


def record(path: Path, *runs: Iterable[ExecutionEvent], **options: object) -> RunStore:
    """A store that has written these and is closed."""
    with RunStore(path, max_age=None, **options) as store:  # type: ignore[arg-type]
        for events in runs:
            for event in events:
                store.observe(event)
    return store


def read(path: Path, run_id: str = "run1") -> list[ExecutionEvent]:
    with RunReader(path) as reader:
        return list(reader.events(run_id))


def child(program: str, *arguments: object, wait: bool = True) -> subprocess.Popen[str]:
    """A Python process that runs `program`, with this suite's packages; its output is a pipe."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parent.parent.parent,
    )
    if wait:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        process.output = out  # type: ignore[attr-defined]
    return process
