"""A run that is told event by event, at times that the test says: what an observer would see, without a run.

run = Telling(observer)
flow = run.begin("flow_start", "article")
run.wait(2.0)
run.end("flow_success", flow, {"action": "default"})
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.core.observability.events import STRETCH, ExecutionEvent
from agentflow.core.observability.observers import Observer

__all__ = ["MODEL", "Span", "Telling"]

MODEL: Mapping[str, object] = {
    "model": "fast",
    "provider": "openai",
    "model_id": "gpt-4o",
    "operation": "chat",
    "streaming": True,
    "round": 1,
    "temperature": 0.2,
    "max_tokens": 100,
    "top_p": 0.9,
}


@dataclass(frozen=True, slots=True)
class Span:
    """What `begin` returns: the number by which the other events name it, and what they have in common with it."""

    number: int
    parent: int | None
    path: str
    node: str
    at: float
    data: Mapping[str, object]


class Telling:
    """One run. `wall` is the wall clock at its beginning; setting it later is a clock that jumps."""

    def __init__(self, observer: Observer, run_id: str = "run-1", wall: float = 1_700_000_000.0) -> None:
        self.observer = observer
        self.run_id = run_id
        self.wall = wall
        self.now = 0.0
        self._sequence = 0

    def go_on(self, seconds: float, observer: Observer | None = None) -> None:
        """What is told from now on is of the next stretch, so much later; `observer` is that of another process."""
        self.now += seconds
        self.observer = observer or self.observer
        self._sequence += STRETCH - self._sequence % STRETCH

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def begin(
        self, kind: str, name: str, data: Mapping[str, object] = {}, inside: Span | None = None, attempt: int = 1
    ) -> Span:
        """A span begins. `name` is the flow's or node's; models, attempts and tools have that of what is around."""
        path = name if inside is None else f"{inside.path}/{name}#1" if name else inside.path
        node = name or (inside.node if inside is not None else "")
        parent = None if inside is None else inside.number
        span = Span(self._sequence + 1, parent, path, node, self.now, data)
        self._tell(kind, span, data, None, attempt)
        return span

    def end(self, kind: str, span: Span, data: Mapping[str, object] = {}, attempt: int = 1) -> None:
        self._tell(kind, span, {**span.data, **data}, self.now - span.at, attempt)

    def happen(self, kind: str, span: Span, data: Mapping[str, object] = {}) -> None:
        self._tell(kind, span, data, None, 1)

    def _tell(self, kind: str, span: Span, data: Mapping[str, Any], duration: float | None, attempt: int) -> None:
        self._sequence += 1
        self.observer.observe(
            ExecutionEvent(
                kind,
                self.run_id,
                span.path,
                span.node,
                1,
                self._sequence,
                self.wall + self.now,
                duration,
                attempt,
                data,
                span.number,
                span.parent,
                self.now,
            )
        )
