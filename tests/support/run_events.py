"""Runs made by hand: events as a run would tell them, without running anything.

run = RunEvents()
flow = run.begin("flow", "digest")
node = run.begin("node", "digest/write#1", parent=flow)
run.at += 2.0
run.end(node, breakdown={"own": 2.0})
run.go_on(after=3600.0)                        the run's next stretch, an hour later
run.events
"""

from __future__ import annotations

from agentflow.core.observability.events import STRETCH, ExecutionEvent

START = 1_800_000_000.0


class RunEvents:
    """Numbers and dates events; `at` is the run's time in seconds and is moved by whoever tells the story."""

    def __init__(self, run_id: str = "run1", started: float = START) -> None:
        self.run_id = run_id
        self.started = started
        self.at = 0.0
        self.events: list[ExecutionEvent] = []
        self._first = 0
        self._told = 0
        self._spans: dict[int, ExecutionEvent] = {}

    def begin(self, what: str, path: str, parent: int | None = None, **data: object) -> int:
        number = self._first + self._told + 1
        self._spans[number] = self._tell(f"{what}_start", path, number, parent, None, data)
        return number

    def end(self, span: int, how: str = "success", **data: object) -> None:
        first = self._spans[span]
        kind = f"{first.kind.removesuffix('_start')}_{how}"
        self._tell(kind, first.path, span, first.parent, self.at - first.at, data, first.attempt)

    def point(self, kind: str, span: int, **data: object) -> None:
        first = self._spans[span]
        self._tell(kind, first.path, span, first.parent, None, data)

    def go_on(self, after: float) -> None:
        """What is told from now on is of another stretch, so many seconds later."""
        self.at += after
        self._first += STRETCH
        self._told = 0

    def _tell(
        self,
        kind: str,
        path: str,
        span: int,
        parent: int | None,
        duration: float | None,
        data: object,
        attempt: int = 1,
    ) -> ExecutionEvent:
        self._told += 1
        name, _, visit = path.rpartition("/")[2].partition("#")
        event = ExecutionEvent(
            kind,
            self.run_id,
            path,
            path.rpartition("/")[0].rpartition("/")[2].partition("#")[0] if name.isdigit() and not visit else name,
            int(visit or (name if name.isdigit() else 1)),
            self._first + self._told,
            self.started + self.at,
            duration,
            attempt,
            data,  # type: ignore[arg-type]
            span,
            parent,
            self.at,
        )
        self.events.append(event)
        return event


def busy_run(items: int = 6, *, ends: bool = True, failing: int | None = None, content: bool = False) -> RunEvents:
    """A digest-like run: read, an Each of model calls that wait for the limiter and for first tokens, a retried call,
    and a last node. With `failing`, that item's call fails."""
    run = RunEvents("0197a1b2c3d4e5f60718")
    graph = {
        "start": "read",
        "nodes": [
            {"name": "read"},
            {"name": "summarise", "kind": "each", "inside": []},
            {"name": "judge"},
            {"name": "shorten"},
            {"name": "write"},
        ],
        "edges": [
            ["read", "default", "summarise"],
            ["summarise", "default", "judge"],
            ["judge", "shorten", "shorten"],
            ["shorten", "default", "judge"],
            ["judge", "accept", "write"],
            ["write", "default", None],
        ],
    }
    flow = run.begin("flow", "digest", graph=graph, tenant="acme")
    read = run.begin("node", "digest/read#1", flow)
    run.at = 0.4
    run.end(read, breakdown={"own": 0.4})
    each = run.begin("node", "digest/summarise#1", flow, items=items)
    base = run.at
    for index in range(items):
        run.at = base + 0.01 * index
        item = run.begin("node", f"digest/summarise#1/{index}", each)
        _call(run, f"digest/summarise#1/{index}", item, index, failed=index == failing, content=content)
        if index == failing:
            run.end(
                item, "error", error=f"summarise[{index}] failed", error_type="NodeError", breakdown={"failed": 1.0}
            )
        else:
            run.end(item, breakdown={"limiter": 0.2 * index, "first_token": 0.5, "generation": 1.0, "own": 0.02})
    run.end(each, breakdown={"own": 0.02, "limiter": 0.2 * (items - 1), "first_token": 0.5, "generation": 1.0})
    judge = run.begin("node", "digest/judge#1", flow)
    run.at += 0.005
    run.end(judge, breakdown={"own": 0.005})
    write = run.begin("node", "digest/write#1", flow)
    run.at += 0.1
    if ends:
        run.end(write, breakdown={"own": 0.1})
        total = {"own": 0.525, "limiter": 0.2 * (items - 1), "first_token": 0.5, "generation": 1.0}
        run.end(flow, breakdown=total, action="accept")
    return run


def _call(run: RunEvents, path: str, item: int, index: int, *, failed: bool, content: bool) -> None:
    prompt = {"messages": [{"role": "user", "content": "Summarise: <b>tides</b> & moons"}]} if content else {}
    facts = {"model": "fast" if index % 2 else "gpt-4o", "provider": "lab", "operation": "chat", "streaming": True}
    call = run.begin("model", path, item, **facts, **prompt)
    began = run.at
    run.at = began + 0.2 * index
    if index:
        run.point("limiter_wait", call, guard="lab", seconds=0.2 * index)
    attempt = run.begin("attempt", path, call, model=facts["model"], provider="lab")
    if failed:
        run.at += 1.0
        run.end(attempt, "error", status=500, error="the server failed", error_type="ServerError")
        error = {"error": "lab: the server failed (500)", "error_type": "ServerError", "status": 500}
        run.end(call, "error", **facts, **error, breakdown={"limiter": 0.2 * index, "failed": 1.0})
        return
    run.at += 1.5
    run.end(attempt, status=200, address="127.0.0.1", port=8000, url="http://127.0.0.1:8000/v1/chat/completions")
    spent = {"limiter": 0.2 * index, "first_token": 0.5, "generation": 1.0}
    said = {"answer": "The moon pulls."} if content else {}
    cost = None if facts["model"] == "fast" else 0.0123
    run.end(call, **facts, **said, input_tokens=900, output_tokens=120, cached_tokens=400, cost=cost, breakdown=spent)
    run.at += 0.02
