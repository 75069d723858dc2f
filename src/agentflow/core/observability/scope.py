"""Where in a run the code stands, and the way from there to whoever watches.

    node ──emit──▶ Scope (path, span, what is around) ──▶ Channel (run, sequence, time) ─┬─▶ observers, at once
                                                                                         └─▶ a stream's reader, awaited

With nobody watching there is no channel and no scope: `observed()` is False, no record is built, and `emit` returns at
once. A stream's reader that is behind slows the run; an observer never does. What may not wait (the end of something
that was cancelled, an attempt) is left with the reader for later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import ContextVar
from itertools import count
from types import MappingProxyType
from typing import Final, Protocol

from agentflow.clock import Clock
from agentflow.core.observability.attribution import Account, Entry, Parts, merged
from agentflow.core.observability.events import ExecutionEvent, execution_event
from agentflow.core.observability.observers import Observation, observations

__all__ = [
    "Channel",
    "Reader",
    "Scope",
    "chunks_wanted",
    "current_scope",
    "emit",
    "emit_blocking",
    "observed",
    "scope_outside",
    "scope_within",
]

_NOTHING: Mapping[str, object] = MappingProxyType({})
_NO_PARTS: Final[Parts] = MappingProxyType({})


class Reader(Protocol):
    """Whoever reads the events of one run in their order."""

    async def put(self, event: ExecutionEvent, /) -> None:
        """Hand it over, and wait while the reader is behind."""
        ...

    def leave(self, event: ExecutionEvent, /) -> None:
        """Hand it over without waiting."""
        ...


class Channel:
    """Where the events of one run go: to observers at once, then to a reader that is waited for.

    `chunks` and `content` say whether anybody wants the pieces of streams, and prompts and answers.
    """

    __slots__ = (
        "_next",
        "_observations",
        "_sees",
        "_time",
        "chunks",
        "clock",
        "content",
        "loop",
        "reader",
        "run_id",
        "started",
    )

    def __init__(
        self,
        run_id: str,
        clock: Clock,
        reader: Reader | None = None,
        watching: tuple[Observation, ...] = (),
    ) -> None:
        self.run_id = run_id
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.reader = reader
        self.started = clock.monotonic()
        self.chunks = reader is not None or any(each.chunks for each in watching)
        self.content = any(each.content for each in watching)
        self._observations = watching
        self._sees = tuple([each.see for each in watching])
        self._next = count(1).__next__
        self._time = clock.time

    def tell(
        self,
        kind: str,
        scope: Scope,
        data: Mapping[str, object],
        duration: float | None = None,
        attempt: int = 1,
        span: int | None = None,
        now: float | None = None,
    ) -> ExecutionEvent:
        """Number it, date it, and show it to the observers. Without `span` it begins one."""
        number = self._next()
        if now is None:
            now = self.clock.monotonic()
        if span is None:
            span = number
        event = execution_event(
            kind,
            self.run_id,
            scope.path,
            scope.node,
            scope.visit,
            number,
            self._time(),
            duration,
            attempt,
            data,
            span,
            scope.parent,
            now - self.started,
        )
        for see in self._sees:
            see(event)
        return event

    def leave(self, event: ExecutionEvent) -> None:
        """Leave it with the reader, from any thread."""
        reader = self.reader
        if reader is None:
            return
        if _running_loop() is self.loop:
            reader.leave(event)
            return
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self.loop.call_soon_threadsafe(reader.leave, event)

    def headers(self, span: int) -> dict[str, str]:
        """What a request made within `span` carries along to another system."""
        found: dict[str, str] = {}
        for each in self._observations:
            if each.propagator is not None:
                with suppress(Exception):
                    found.update(each.propagator.headers(self.run_id, span))
        return found


class Scope(Entry):
    """Something that begins and ends within a run: a flow, a visit of a node, a model call, an attempt, a tool.

    inner = scope.within("article/write#1", "write", 1)
    await inner.begin("node_start")
    await inner.end("node_success")               ── or inner.leave("node_cancelled"), which waits for nobody

    `own` is what the time in it is called that nothing inside accounts for. Without `counts` its surroundings keep no
    account of it. `common` is what all that is told of its inside bears. Each visit of a watched node makes one.
    """

    __slots__ = (
        "_account",
        "_waits",
        "channel",
        "common",
        "counts",
        "facts",
        "node",
        "outer",
        "over",
        "own",
        "parent",
        "path",
        "span",
        "started",
        "visit",
    )
    span: int
    started: float

    def __init__(
        self, channel: Channel, path: str, node: str, visit: int, outer: Scope | None = None, own: str = "own"
    ) -> None:
        self.channel = channel
        self.path = path
        self.node = node
        self.visit = visit
        self.outer = outer
        self.own = own
        self.parent: int | None = None if outer is None else outer.span or None
        self.span = 0
        self.over = False
        self.counts = True
        self.started = channel.started
        self.common = _NOTHING
        self.facts: dict[str, object] | None = None
        self._account: Account | None = None
        self._waits = _NO_PARTS

    def within(self, path: str, node: str, visit: int, own: str = "own") -> Scope:
        return Scope(self.channel, path, node, visit, self, own)

    def inside(self, own: str = "own") -> Scope:
        """Something in the same node's visit."""
        return Scope(self.channel, self.path, self.node, self.visit, self, own)

    def note(self, **facts: object) -> None:
        """What whoever works in it adds to the event that ends it."""
        self.facts = facts if self.facts is None else {**self.facts, **facts}

    def waited(self, parts: Parts) -> None:
        """So long was waited in it, beside what ran inside."""
        self._waits = merged(self._waits, parts) if self._waits else parts

    # ---- telling ---------------------------------------------------------------------------------------------

    async def send(
        self, kind: str, data: Mapping[str, object] = _NOTHING, *, attempt: int = 1, duration: float | None = None
    ) -> None:
        """Something happened in it."""
        channel = self.channel
        if channel.loop is not asyncio.get_running_loop():
            # a sync node's thread made a sync call, which runs on the portal's loop
            await _elsewhere(channel.loop, lambda: self.send(kind, data, attempt=attempt, duration=duration))
            return
        event = channel.tell(kind, self, data, duration, attempt, self.span)
        if channel.reader is not None:
            await channel.reader.put(event)

    def remark(self, kind: str, data: Mapping[str, object] = _NOTHING, *, attempt: int = 1) -> None:
        """`send` without waiting for anybody, from any thread."""
        channel = self.channel
        channel.leave(channel.tell(kind, self, data, None, attempt, self.span))

    async def begin(self, kind: str, data: Mapping[str, object] = _NOTHING) -> None:
        channel = self.channel
        if channel.loop is not asyncio.get_running_loop():
            await _elsewhere(channel.loop, lambda: self.begin(kind, data))
            return
        event = self._begun(kind, data, 1)
        if channel.reader is not None:
            await channel.reader.put(event)

    async def end(
        self,
        kind: str,
        data: Mapping[str, object] = _NOTHING,
        *,
        parts: Parts | None = None,
        attempt: int = 1,
    ) -> None:
        """It is over. `parts` is where its time went, where that is known; else it follows from what ran inside."""
        channel = self.channel
        if channel.loop is not asyncio.get_running_loop():
            await _elsewhere(channel.loop, lambda: self.end(kind, data, parts=parts, attempt=attempt))
            return
        event = self._over(kind, data, parts, attempt)
        if channel.reader is not None:
            await channel.reader.put(event)

    def enter(self, kind: str, data: Mapping[str, object] = _NOTHING, *, attempt: int = 1) -> None:
        """`begin` without waiting for anybody, on the run's own loop; from any other where it does not count."""
        event = self._begun(kind, data, attempt)
        if self.channel.reader is not None:
            self.channel.leave(event)

    def leave(
        self, kind: str, data: Mapping[str, object] = _NOTHING, *, parts: Parts | None = None, attempt: int = 1
    ) -> None:
        """`end` without waiting for anybody, from any thread: for what was cancelled, and for attempts. Nothing where
        it has not begun, or is over."""
        if not self.span or self.over:
            return
        channel = self.channel
        if self.counts and _running_loop() is not channel.loop:
            with suppress(RuntimeError):  # the loop is closed: nobody adds up any more
                channel.loop.call_soon_threadsafe(self._left, kind, data, parts, attempt)
            return
        self._left(kind, data, parts, attempt)

    def _left(self, kind: str, data: Mapping[str, object], parts: Parts | None, attempt: int) -> None:
        self.channel.leave(self._over(kind, data, parts, attempt))

    def _begun(self, kind: str, data: Mapping[str, object], attempt: int) -> ExecutionEvent:
        channel = self.channel
        self.started = now = channel.clock.monotonic()
        outer = self.outer
        if outer is not None and self.counts:
            account = outer._account
            if account is None:
                account = outer._account = Account(outer.started, outer.own)
            account.begin(self, now)
        event = channel.tell(kind, self, data, None, attempt, None, now)
        self.span = event.span
        return event

    def _over(self, kind: str, data: Mapping[str, object], parts: Parts | None, attempt: int) -> ExecutionEvent:
        channel = self.channel
        now = channel.clock.monotonic()
        self.over = True
        if self.facts is not None:
            data = {**self.facts, **data}
        if self.counts:
            if parts is None:
                parts = self._parts(now)
            data = {**data, "breakdown": parts} if data else {"breakdown": parts}
            if self.outer is not None and self.outer._account is not None:
                self.outer._account.end(self, now, parts)
        return channel.tell(kind, self, data, now - self.started, attempt, self.span, now)

    def _parts(self, now: float) -> Parts:
        """Where the time went: what ran inside, what was waited for beside it, and the rest."""
        account = self._account
        parts = {self.own: now - self.started} if account is None else account.total(now)
        if not self._waits:
            return parts
        waited = sum(self._waits.values())
        return merged({**parts, self.own: max(0.0, parts.get(self.own, 0.0) - waited)}, self._waits)


current_scope: ContextVar[Scope | None] = ContextVar("agentflow_scope", default=None)


def scope_within(channel: Channel, path: str, node: str, visit: int, own: str = "own") -> Scope:
    """A scope within the one that this code runs in, where that is of the same run."""
    outer = current_scope.get()
    return Scope(channel, path, node, visit, outer if outer is not None and outer.channel is channel else None, own)


def observed() -> bool:
    """Whether anybody watches the code that is running here."""
    return current_scope.get() is not None


def chunks_wanted() -> bool:
    """Whether anybody who watches wants the pieces of streams."""
    scope = current_scope.get()
    return scope is not None and scope.channel.chunks


def scope_outside(clock: Clock, name: str, run_id: Callable[[], str]) -> Scope | None:
    """The scope of something that is part of no run, where observers watch this process: a run of its own."""
    watching = observations()
    if not watching:
        return None
    scope = Scope(Channel(run_id(), clock, None, watching), name, "", 1)
    scope.started = scope.channel.started
    return scope


async def emit(kind: str, data: Mapping[str, object] = _NOTHING) -> None:
    """Add an event of your own to the run that this code is part of. Without a watcher it does nothing.

    It waits while the reader of the run's stream is behind, so memory stays bounded.
    """
    scope = current_scope.get()
    if scope is not None:
        await scope.send(kind, data)


def emit_blocking(kind: str, data: Mapping[str, object] = _NOTHING) -> None:
    """`emit` for a sync node, which runs in a thread. It blocks while the reader of the stream is behind.

    Raises RuntimeError when called on the event loop's own thread, where blocking would stop the loop.
    """
    if _running_loop() is not None:
        raise RuntimeError("emit_blocking() would block the event loop: use `await emit(...)` in async code")
    scope = current_scope.get()
    if scope is None:
        return
    sending = scope.send(kind, data)
    try:
        delivered = asyncio.run_coroutine_threadsafe(sending, scope.channel.loop)
    except RuntimeError:  # the loop is closed: the thread outlived its run, and nobody watches any more
        sending.close()
    else:
        with suppress(CancelledError):  # the loop is closing
            delivered.result()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    return asyncio._get_running_loop()


async def _elsewhere(loop: asyncio.AbstractEventLoop, make: Callable[[], Awaitable[None]]) -> None:
    """Do it on the loop that the run belongs to."""

    async def there() -> None:
        await make()

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), loop))
