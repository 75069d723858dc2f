"""Where in a run the code stands, and the way from there to whoever watches.

    node ──emit──▶ Scope (path, span, what is around) ──▶ Channel (run, sequence, time) ─┬─▶ observers, at once
                                                                                         └─▶ a stream's reader, awaited

With nobody watching there is no channel and no scope: `observed()` is False, no record is built, and `emit` returns at
once. A stream's reader that is behind slows the run; an observer never does. What may not wait (the end of something
that was cancelled, an attempt) is left with the reader for later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import replace
from functools import partial
from itertools import count
from threading import RLock
from types import MappingProxyType
from typing import Final

from agentflow.clock import Clock
from agentflow.core.observability.attribution import Account, Entry, Parts, merged
from agentflow.core.observability.carried import carried
from agentflow.core.observability.errand import Errand, Reader
from agentflow.core.observability.events import CONTENT, STRETCH, ExecutionEvent, execution_event
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
    "step_out",
]

_NOTHING: Mapping[str, object] = MappingProxyType({})
_EXACT: Final = 1e-6  # seconds
_NO_PARTS: Final[Parts] = MappingProxyType({})


class Channel:
    """Where the events of one run go: to observers at once, then to a reader that is waited for.

    `chunks` and `content` say whether anybody wants the pieces of streams, and prompts and answers.

    A run that goes on, after it was parked or its process died, goes on telling: `stretch` is how often it has gone on,
    and `since` the wall time when it first began. Numbers of different stretches never meet, and `at` counts from that
    first beginning, never below 0, also where the clock was set back meanwhile.
    """

    __slots__ = (
        "_next",
        "_propagators",
        "_sees",
        "_time",
        "_zero",
        "chunks",
        "clock",
        "content",
        "lock",
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
        *,
        stretch: int = 0,
        since: float | None = None,
    ) -> None:
        self.run_id = run_id
        self.clock = clock
        self.loop = _running_loop()
        self.lock = RLock()  # an abandoned span may be ended by the garbage collector, in any line
        self.reader = reader
        self.started = clock.monotonic()
        self._zero = self.started if since is None else self.started - max(0.0, clock.time() - since)
        self.chunks = reader is not None or any(each.chunks for each in watching)
        self.content = any(each.content for each in watching)
        self._propagators = [each.propagator for each in watching if each.propagator is not None]
        self._sees = tuple([self._way_to(each) for each in watching])
        self._next = count(stretch * STRETCH + 1).__next__
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
            now - self._zero,
        )
        for see in self._sees:
            see(event)
        return event

    def _way_to(self, watching: Observation) -> Callable[[ExecutionEvent], None]:
        """How an observer is told: what it does not want is kept from it where others want it."""
        if watching.chunks >= self.chunks and watching.content >= self.quotes:
            return watching.see
        return partial(_spare, watching)

    def leave(self, event: ExecutionEvent) -> None:
        """Leave it with the reader, from any thread."""
        reader, loop = self.reader, self.loop
        if reader is None or loop is None:
            return
        if _running_loop() is loop:
            reader.leave(event)
            return
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            loop.call_soon_threadsafe(reader.leave, event)

    @property
    def quotes(self) -> bool:
        """Whether a model may be quoted in what is decided about it: to who reads the run's own stream, or wants
        contents."""
        return self.content or self.reader is not None

    async def put(self, tell: Callable[[], ExecutionEvent]) -> None:
        """Tell what `tell` makes, and wait while the reader is behind; on the run's own loop, wherever this runs."""
        reader, loop = self.reader, self.loop
        if reader is None or loop is None:
            tell()
        elif loop is asyncio.get_running_loop():
            await reader.put(tell())
        else:  # a sync node's thread made a sync call, which runs on the portal's loop
            await Errand(loop, reader, self.lock, tell).done()

    def headers(self, span: int) -> dict[str, str]:
        """What a request made within `span` carries along to another system."""
        return carried(self._propagators, self.run_id, span) if self._propagators else {}


class Scope(Entry):
    """Something that begins and ends within a run: a flow, a visit of a node, a model call, an attempt, a tool.

    inner = scope_within(channel, "article/write#1", "write", 1)
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
        if channel.reader is None:
            channel.tell(kind, self, data, duration, attempt, self.span)
        else:
            await channel.put(lambda: channel.tell(kind, self, data, duration, attempt, self.span))

    def remark(self, kind: str, data: Mapping[str, object] = _NOTHING, *, attempt: int = 1) -> None:
        """`send` without waiting for anybody, from any thread."""
        channel = self.channel
        channel.leave(channel.tell(kind, self, data, None, attempt, self.span))

    async def begin(self, kind: str, data: Mapping[str, object] = _NOTHING) -> None:
        if self.channel.reader is None:
            self._begun(kind, data, 1)
        else:
            now = self.channel.clock.monotonic()  # the run's loop may come to it later
            await self.channel.put(lambda: self._begun(kind, data, 1, now))

    async def end(
        self,
        kind: str,
        data: Mapping[str, object] = _NOTHING,
        *,
        parts: Parts | None = None,
        attempt: int = 1,
    ) -> None:
        """It is over. `parts` is where its time went, where that is known; else it follows from what ran inside."""
        if self.channel.reader is None:
            self._over(kind, data, parts, attempt)
        else:
            now = self.channel.clock.monotonic()
            await self.channel.put(lambda: self._over(kind, data, parts, attempt, now))

    def enter(self, kind: str, data: Mapping[str, object] = _NOTHING, *, attempt: int = 1) -> None:
        """`begin` without waiting for anybody, from any thread."""
        event = self._begun(kind, data, attempt)
        if self.channel.reader is not None:
            self.channel.leave(event)

    def leave(
        self, kind: str, data: Mapping[str, object] = _NOTHING, *, parts: Parts | None = None, attempt: int = 1
    ) -> None:
        """`end` without waiting for anybody, from any thread: for what was cancelled, and for attempts. Nothing where
        it has not begun, or is over."""
        if self.span and not self.over:
            event = self._over(kind, data, parts, attempt)
            if self.channel.reader is not None:
                self.channel.leave(event)

    def _begun(self, kind: str, data: Mapping[str, object], attempt: int, now: float | None = None) -> ExecutionEvent:
        channel = self.channel
        if now is None:
            now = channel.clock.monotonic()
        self.started = now
        outer = self.outer
        if outer is not None and self.counts:
            with channel.lock:
                account = outer._account
                if account is None:
                    account = outer._account = Account(outer.started, outer.own)
                account.begin(self, now)
        event = channel.tell(kind, self, data, None, attempt, None, now)
        self.span = event.span
        return event

    def _over(
        self, kind: str, data: Mapping[str, object], parts: Parts | None, attempt: int, now: float | None = None
    ) -> ExecutionEvent:
        channel = self.channel
        if now is None:
            now = channel.clock.monotonic()
        self.over = True
        if self.facts is not None:
            data = {**self.facts, **data}
        if self.counts:
            with channel.lock:
                parts = self._parts(now) if parts is None else _whole(parts, now - self.started)
                if self.outer is not None and self.outer._account is not None:
                    self.outer._account.end(self, now, parts)
            data = {**data, "breakdown": parts} if data else {"breakdown": parts}
        return channel.tell(kind, self, data, now - self.started, attempt, self.span, now)

    def _parts(self, now: float) -> Parts:
        """Where the time went: what ran inside, what was waited for beside it, and the rest."""
        account = self._account
        parts = {self.own: now - self.started} if account is None else account.total(now)
        if not self._waits:
            return parts
        waited, own = sum(self._waits.values()), parts.get(self.own, 0.0)
        share = min(1.0, own / waited) if waited else 0.0  # of a hedged one some of it ran beside something else
        rest = {**parts, self.own: own - share * waited}
        told = merged(rest, {name: seconds * share for name, seconds in self._waits.items()})
        return {name: seconds for name, seconds in told.items() if seconds > 0.0}


def _whole(parts: Parts, seconds: float) -> Parts:
    """The parts, with what has passed since they were added up: a busy thread may have to wait for its turn to tell."""
    rest = seconds - sum(parts.values())
    return parts if rest < _EXACT else merged(parts, {"unattributed": rest})


def _spare(watching: Observation, event: ExecutionEvent) -> None:
    """Tell it without pieces of streams and without contents, unless it wants them."""
    if event.kind == "chunk" and not watching.chunks:
        return
    if not watching.content and not CONTENT.isdisjoint(event.data):
        event = replace(event, data={name: value for name, value in event.data.items() if name not in CONTENT})
    watching.see(event)


current_scope: ContextVar[Scope | None] = ContextVar("agentflow_scope", default=None)


def step_out(token: Token[Scope | None]) -> None:
    """What was current before `current_scope.set` gave this token is current again."""
    try:  # noqa: SIM105 - suppress() would cost each visit
        current_scope.reset(token)
    except ValueError:  # closed from outside, in another context
        pass


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
    channel = scope.channel
    if channel.reader is None or channel.loop is None:
        channel.tell(kind, scope, data, span=scope.span)
        return
    told = partial(channel.tell, kind, scope, data, span=scope.span)
    Errand(channel.loop, channel.reader, channel.lock, told).wait()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    return asyncio._get_running_loop()
