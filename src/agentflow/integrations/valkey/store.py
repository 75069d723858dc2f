"""The store that processes share: asked behind a short time limit, told the rest later, and known to be up or down.

    store = ValkeyStore("valkey://limits.internal:6379/0", replicas=4)
    limiter = store.limiter("openai/gpt-4o", requests_per_minute=500, tokens_per_minute=30_000)
    budget  = store.budget("search", amount=20.0, per_seconds=86_400)        dollars a day
    gate    = store.breaker_gate("openai/gpt-4o")
    answers = store.cache("answers")                                         what a cache keeps
    await store.aclose()                       what is still to be told is told; the event loop's end does it, too

A question is one script, and waits `timeout` seconds at most, the opening of a connection included. After that, or any
error, the store counts as down: for a second nobody asks it, and every process goes by its own part of each limit (the
limit ÷ `replicas`). Then it is asked in the background whether it is back. The listener hears `store_down` (reason,
retry), `store_up` (seconds), and `store_lost` (messages, reason) where it could not be told what it should know.

What ends something is queued and sent by a task of the event loop's own, many in one round trip, so that cleaning up
waits for nothing. While the store is down the queue keeps the newest 10,000 of them.

One store serves any number of event loops and threads. It opens no connection before it is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.waiting import running_loop
from agentflow.integrations.valkey.accounts import ValkeyAccounts
from agentflow.integrations.valkey.answers import SharedAnswers
from agentflow.integrations.valkey.breaker import BreakerGate, SharedBreaker
from agentflow.integrations.valkey.budget import SharedBudget
from agentflow.integrations.valkey.connection import Connection, checked_url, reason_of, require_redis, shown_url
from agentflow.integrations.valkey.health import Health
from agentflow.integrations.valkey.limiter import ValkeyRateLimiter
from agentflow.integrations.valkey.link import Link, done, undo_when_done
from agentflow.integrations.valkey.outbox import Outbox
from agentflow.integrations.valkey.remote import Argument, Message
from agentflow.integrations.valkey.scripts import Script

__all__ = ["ValkeyStore"]

_CLOCK: Final = SystemClock()
_RETRY: Final = 1.0  # seconds for which a store that failed is left alone
_MOST: Final = 10_000  # messages that wait for it to come back
_PATIENCE: Final = 1.0  # seconds that the sending task gives a round trip or a probe: nobody waits for it


class ValkeyStore:
    """`prefix` begins every key; `lease` is after how many seconds what a crashed process held comes back."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "agentflow",
        replicas: int = 1,
        timeout: float = 0.05,
        lease: float = 30.0,
        cluster: bool = False,
        name: str = "valkey",
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        _check(prefix, replicas, timeout, lease)
        self._url = checked_url(url)
        require_redis(self._url)
        self._shown = shown_url(url)
        self._prefix = prefix
        self._replicas = replicas
        self._timeout = timeout
        self._lease = lease
        self._cluster = cluster
        self._name = name
        self._clock = clock
        self._listener = listener
        self._health = Health(_RETRY)
        self._outbox = Outbox(lease, _MOST)
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._back: list[weakref.WeakMethod[Callable[[], None]]] = []

    def __repr__(self) -> str:
        return f"ValkeyStore({self._shown!r}, replicas={self._replicas})"

    # ---- what it shares

    def limiter(
        self,
        key: str,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        input_tokens_per_minute: float | None = None,
        output_tokens_per_minute: float | None = None,
        concurrency: int | None = None,
        burst: float = 1.0,
        on_limit: Literal["wait", "raise"] = "wait",
        listener: Listener | None = None,
    ) -> ValkeyRateLimiter:
        """The limiter of that key, wherever it is made; with the limits that core's RateLimiter has. All processes must
        give it the same ones, and each makes it once. Without a `listener` it tells the store's."""
        return ValkeyRateLimiter(
            self,
            key,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            input_tokens_per_minute=input_tokens_per_minute,
            output_tokens_per_minute=output_tokens_per_minute,
            concurrency=concurrency,
            burst=burst,
            on_limit=on_limit,
            listener=listener or self._listener,
        )

    def budget(self, key: str, *, amount: float, per_seconds: float) -> SharedBudget:
        """`amount` (dollars, tokens, …) for every window of so many seconds, counted from 1970 by the server."""
        return SharedBudget(self, key, amount=amount, per_seconds=per_seconds, listener=self._listener)

    def accounts(self, key: str, *, patience: float = 2.0) -> ValkeyAccounts:
        """Accounts that a budget's calls are charged to, exactly: nothing is decided while the store is away, for which
        whoever asks waits so many seconds."""
        return ValkeyAccounts(self, key, patience=patience)

    def breaker_gate(self, key: str) -> BreakerGate:
        """Until when a circuit breaker is open, be it this process's or another's."""
        return BreakerGate(self, key)

    def share_breaker(self, key: str, breaker: Callable[[Listener], CircuitBreaker]) -> SharedBreaker:
        """A circuit breaker that opens where another process's has opened. `breaker` makes it, with the listener that
        it is given: `lambda listener: CircuitBreaker(name="openai/gpt-4o", listener=listener)`."""
        return SharedBreaker(self.breaker_gate(key), breaker)

    def cache(self, name: str) -> SharedAnswers:
        """Where a cache keeps the answers of models, for all processes that give it this name."""
        return SharedAnswers(self, name)

    # ---- what they ask of it (remote.py)

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def replicas(self) -> int:
        return self._replicas

    @property
    def lease(self) -> float:
        return self._lease

    @property
    def up(self) -> bool:
        """False from a question that failed to a probe that did not."""
        return self._health.up

    def keys(self, kind: str, key: str, *parts: str) -> tuple[str, ...]:
        digest = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()  # a key may name a credential
        return tuple(f"{self._prefix}:{kind}:{{{digest}}}:{part}" for part in parts)

    async def ask(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, undo: Callable[[], None] | None
    ) -> Any | None:
        link = self._link()
        if not self._health.up:
            if self._health.probe_due(self._clock.monotonic()):
                link.start(self._probe(link))
            return None
        # A task of its own: cancelling the caller breaks no connection, and what was asked is known to have ended.
        asking = link.start(link.connection.run(script, keys, arguments))
        try:
            await done(asking, self._timeout)
        except BaseException:
            undo_when_done(asking, self._timeout, undo)
            raise
        return self._outcome(asking, undo)

    def send(self, message: Message) -> None:
        self._outbox.add(message)
        self._wake()

    def hold(self, lease: str, holder: str, *, often: bool) -> None:
        if self._outbox.hold(lease, holder, self._clock.monotonic(), often=often):
            self._wake()

    def let_go(self, holder: str) -> None:
        self._outbox.let_go(holder)

    def when_back(self, callback: Callable[[], None]) -> None:
        self._back.append(weakref.WeakMethod(callback))

    async def aclose(self) -> None:
        """Send what is queued, for as long as the store answers, and close this event loop's connections.

        Every event loop closes its own, which `asyncio.run` does by itself at its end. The store can be used again.
        """
        link = self._links.get(asyncio.get_running_loop())
        if link is not None:
            await link.farewell.aclose()

    # ---- the task that sends

    def _link(self) -> Link:
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None or not link.connection.is_ours:
            for ended in [other for other in list(self._links) if other.is_closed()]:
                self._links.pop(ended, None)
            link = self._links[loop] = Link(Connection(self._url, cluster=self._cluster), self._leave)
        return link

    async def _leave(self, link: Link) -> None:
        """The end of a link: its tasks end, what is queued is sent, and what others hold is renewed by others."""
        try:
            await link.close()
            while self._outbox and self._health.up:
                await self._send_some(link)
        finally:
            if self._links.get(link.loop) is link:
                del self._links[link.loop]
            self._wake_another()
            await link.connection.close()

    def _wake(self) -> None:
        """Have the outbox looked at: by this thread's event loop, or else by any that has asked before."""
        loop = running_loop()
        link = None if loop is None else self._links.get(loop)
        if link is not None:
            link.rouse(self._work)
        elif not self._wake_another() and loop is not None:
            self._link().rouse(self._work)

    def _wake_another(self) -> bool:
        for link in list(self._links.values()):
            with suppress(RuntimeError):  # that one is closed
                link.loop.call_soon_threadsafe(link.rouse, self._work)
                return True
        return False

    async def _work(self, link: Link) -> None:
        """Send, renew, and look whether the store is back, until there is nothing left to do."""
        try:
            while not link.closing:
                link.awake()
                await self._look(link)
                pause = self._outbox.pause(self._clock.monotonic(), up=self._health.up, retry=_RETRY / 4)
                if pause is None:
                    return
                if pause > 0:
                    await link.sleep(pause)
        finally:
            link.worker = None

    async def _look(self, link: Link) -> None:
        now = self._clock.monotonic()
        if not self._health.up:
            if self._health.probe_due(now):
                await self._probe(link)
            return
        renewals = self._outbox.renewals(now)
        if renewals and not await self._deliver(link, renewals):
            self._outbox.renew_now()
        await self._send_some(link)

    async def _send_some(self, link: Link) -> None:
        batch = self._outbox.take()
        delivered = not batch
        try:
            delivered = delivered or await self._deliver(link, batch)
        finally:
            if not delivered:
                self._outbox.put_back(batch)

    async def _deliver(self, link: Link, batch: Sequence[Message]) -> bool:
        try:
            async with asyncio.timeout(max(self._timeout, _PATIENCE)):
                answers = await link.connection.run_all(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, these limits must not stop the program
            self._failed(error)
            return False
        self._answered()
        for message, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                tell(self._listener, "store_lost", self._name, messages=1, reason=reason_of(answer))
            elif message.sent is not None:
                message.sent()
        return True

    async def _probe(self, link: Link) -> None:
        try:
            async with asyncio.timeout(max(self._timeout, _PATIENCE)):
                await link.connection.ping()
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)
        else:
            self._answered()

    # ---- up and down

    def _outcome(self, asking: asyncio.Task[Any], undo: Callable[[], None] | None) -> Any | None:
        error: BaseException | None
        if not asking.done():
            asking.cancel()
            error = TimeoutError()
        else:
            error = asyncio.CancelledError() if asking.cancelled() else asking.exception()
        if error is None:
            self._answered()
            return asking.result()
        self._failed(error)
        if undo is not None:
            undo()
        return None

    def _failed(self, error: BaseException) -> None:
        if self._health.failed(self._clock.monotonic()):
            tell(self._listener, "store_down", self._name, reason=reason_of(error), retry=_RETRY)

    def _answered(self) -> None:
        seconds = self._health.answered(self._clock.monotonic())
        if seconds is None:
            return
        tell(self._listener, "store_up", self._name, seconds=seconds)
        lost, self._outbox.lost = self._outbox.lost, 0
        if lost:
            tell(self._listener, "store_lost", self._name, messages=lost, reason="too many to keep")
        self._outbox.renew_now()
        self._back = [reference for reference in self._back if reference() is not None]
        for callback in [reference() for reference in self._back]:
            if callback is not None:
                callback()
        self._wake()


def _check(prefix: str, replicas: int, timeout: float, lease: float) -> None:
    if "{" in prefix or "}" in prefix:
        raise ValueError(f"prefix must not contain braces, which choose a cluster's slot: {prefix!r}")
    if replicas < 1:
        raise ValueError(f"replicas must be at least 1, not {replicas}")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout:g}")
    if not 1 <= lease < math.inf:
        raise ValueError(f"lease must be at least 1 second, not {lease:g}")
