"""What happened in a run, as frozen records, and how they reach whoever watches.

    node ──emit──▶ Scope (adds run, path, visit, sequence, time) ──▶ sink (awaited: a slow one slows the run)

With nobody watching no record is built: `observed()` is False and `emit` returns at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType

from agentflow.clock import Clock

__all__ = ["Channel", "ExecutionEvent", "Scope", "current_scope", "emit", "emit_blocking", "observed"]

_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ExecutionEvent:
    """One thing that happened in a run.

    `kind` is an open string: flow_start, flow_success, flow_error, node_start, node_success, node_error, retry, chunk,
    model_start, model_success, model_error, or the user's own. `path` names every level with its visit
    (`article/inner#2/write#1`), `sequence` counts from 1 within the run, `time` is wall time in seconds since 1970,
    `duration` is monotonic seconds since the matching start (None where nothing ended).
    """

    kind: str
    run_id: str
    path: str
    node: str
    visit: int
    sequence: int
    time: float
    duration: float | None = None
    attempt: int = 1
    data: Mapping[str, object] = field(default_factory=dict)


class Channel:
    """Where the events of one run go: numbers them and hands each to an awaited sink."""

    __slots__ = ("_sequence", "_sink", "clock", "loop", "run_id")

    def __init__(self, run_id: str, clock: Clock, sink: Callable[[ExecutionEvent], Awaitable[None]]) -> None:
        self.run_id = run_id
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self._sink = sink
        self._sequence = 0

    async def send(
        self,
        kind: str,
        scope: Scope,
        data: Mapping[str, object] = _NOTHING,
        *,
        duration: float | None = None,
        attempt: int = 1,
    ) -> None:
        self._sequence += 1
        await self._sink(
            ExecutionEvent(
                kind,
                self.run_id,
                scope.path,
                scope.node,
                scope.visit,
                self._sequence,
                self.clock.time(),
                duration,
                attempt,
                data,
            )
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """Where in a run the code stands: the node visit that is being executed, and the channel that watches it."""

    channel: Channel
    path: str
    node: str
    visit: int


current_scope: ContextVar[Scope | None] = ContextVar("agentflow_scope", default=None)


def observed() -> bool:
    """Whether anybody watches the node that is running here."""
    return current_scope.get() is not None


async def emit(kind: str, data: Mapping[str, object] = _NOTHING) -> None:
    """Add an event of your own to the run that this code is part of. Without a watcher it does nothing.

    It waits while the watcher is behind, so memory stays bounded.
    """
    scope = current_scope.get()
    if scope is None:
        return
    sending = scope.channel.send(kind, scope, data)
    if scope.channel.loop is asyncio.get_running_loop():
        await sending
    else:  # a sync node's thread made a sync call, which runs on the portal's loop
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(sending, scope.channel.loop))


def emit_blocking(kind: str, data: Mapping[str, object] = _NOTHING) -> None:
    """`emit` for a sync node, which runs in a thread. It blocks while the watcher is behind.

    Raises RuntimeError when called on the event loop's own thread, where blocking would stop the loop.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("emit_blocking() would block the event loop: use `await emit(...)` in async code")
    scope = current_scope.get()
    if scope is None:
        return
    sending = scope.channel.send(kind, scope, data)
    try:
        delivered = asyncio.run_coroutine_threadsafe(sending, scope.channel.loop)
    except RuntimeError:  # the loop is closed: the thread outlived its run, and nobody watches any more
        sending.close()
    else:
        with suppress(CancelledError):  # the loop is closing
            delivered.result()
