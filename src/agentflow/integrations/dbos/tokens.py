"""An observer that lets others see a run's answers as they come, wherever the run is.

engine.serve("article", lambda spec: flow.body(spec, observers=[Tokens(engine)]))      in the worker
async for piece in engine.stream(run_id): print(piece, end="")                          anywhere
"""

from __future__ import annotations

from typing import Protocol

from agentflow.core.observability.events import ExecutionEvent

__all__ = ["Publisher", "Tokens"]


class Publisher(Protocol):
    """The part of an engine that takes pieces on."""

    def publish(self, run_id: str, piece: str, /) -> bool: ...


class Tokens:
    """Publishes the pieces of streamed answers. The engine gathers them, so that a token is not a transaction."""

    inline = True
    chunks = True

    def __init__(self, engine: Publisher) -> None:
        self._publish = engine.publish

    def observe(self, event: ExecutionEvent) -> None:
        content = event.data.get("content") if event.kind == "chunk" else None
        if isinstance(content, str) and content:
            self._publish(event.run_id, content)
