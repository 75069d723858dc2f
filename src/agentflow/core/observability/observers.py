"""Who watches runs: a protocol of one method, and what keeps a bad observer from doing harm.

    event ──▶ inline observers, at once ──▶ [ 10,000 events ] ──▶ all others, each in a thread of its own

    with observe(print_it):                       # every run and every model call of this process
        await flow.run({"topic": "tides"})
    await flow.run({"topic": "tides"}, observers=[print_it])          # this run alone

An observer that raises is counted and goes on being told; one that is slow falls behind in its own thread, and what it
has no room for is dropped and counted. Neither changes a run.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Protocol, runtime_checkable

from agentflow.core.observability.events import ExecutionEvent

__all__ = ["Observation", "Observer", "Propagator", "observations", "observe"]

_ROOM: Final = 10_000  # events that wait for one observer
_PATIENCE: Final = 2.0  # seconds that the end of the process waits for observers that are behind
_log = logging.getLogger("agentflow.observers")


class Observer(Protocol):
    """Sees events. `observe` gets each one, in the order of its run.

    Three class attributes may say more; each is False where it is absent. `inline`: it never waits and serves several
    threads, so it is called at once, where the event happens, and not in a thread of its own. `chunks`: it wants the
    pieces of streams as well. `content`: it wants prompts and answers, which are otherwise left out.
    """

    def observe(self, event: ExecutionEvent, /) -> None: ...


@runtime_checkable
class Propagator(Protocol):
    """An inline observer that also says what a request to another system carries along, such as `traceparent`.

    What is no header is left out, and so is what decides where a request goes, whose it is, or what it asks for.
    """

    def headers(self, run_id: str, span: int, /) -> Mapping[str, str]: ...


class Observation:
    """An observer at work, until `close()` or the end of its `with`.

    `seen`, `failed` and `dropped` count events: those it was given, those it raised at, those it had no room for.
    """

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._observe = observer.observe
        self.seen = 0
        self.failed = 0
        self.dropped = 0
        self.last_error: BaseException | None = None
        self.chunks = bool(getattr(observer, "chunks", False))
        self.content = bool(getattr(observer, "content", False))
        self.propagator = observer if isinstance(observer, Propagator) else None
        self._over = False
        self._relay = None if getattr(observer, "inline", False) else _Relay(self._hand_over, self._name())
        self.see: Callable[[ExecutionEvent], None] = self._hand_over if self._relay is None else self._queue

    @property
    def inline(self) -> bool:
        """Whether it is told at once, in no thread of its own."""
        return self._relay is None

    def flush(self, timeout: float = _PATIENCE) -> bool:
        """Wait until the observer has seen all that happened until now. Whether it has, within `timeout` seconds."""
        return self._relay is None or self._relay.flush(timeout)

    async def drained(self, timeout: float = _PATIENCE) -> bool:
        """`flush` for async code."""
        if self._relay is None or not self._relay.behind:
            return True
        return await asyncio.to_thread(self._relay.flush, timeout)

    def close(self, timeout: float = _PATIENCE) -> None:
        """Tell it nothing more, after what it was told already."""
        _forget(self)
        if self._relay is not None:
            self._relay.close(timeout)
        else:
            self._over = True  # runs that began before still know it

    def __enter__(self) -> Observation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self._name()}: {self.seen} seen, {self.failed} failed, {self.dropped} dropped>"

    def _name(self) -> str:
        return f"observer {type(self.observer).__name__}"

    def _hand_over(self, event: ExecutionEvent) -> None:
        if self._over:
            return
        self.seen += 1
        try:
            self._observe(event)
        except BaseException as error:  # whoever watches changes nothing of what it watches
            if self._relay is None and isinstance(error, SystemExit | KeyboardInterrupt):
                raise  # the process is to end; a thread of our own goes on with the next event
            self.failed += 1
            self.last_error = error.with_traceback(None)
            if _worth_a_line(self.failed):
                raised = type(error).__name__
                _log.warning("%s raised %s at %s (%d times)", self._name(), raised, event.kind, self.failed)

    def _queue(self, event: ExecutionEvent) -> None:
        relay = self._relay
        if relay is not None and not relay.put(event):
            self.dropped += 1
            if _worth_a_line(self.dropped):
                _log.warning("%s is too slow: %d events dropped", self._name(), self.dropped)


class _Relay:
    """A bounded queue and the thread that empties it. The thread starts with the first event, and again after a
    fork."""

    def __init__(self, hand_over: Callable[[ExecutionEvent], None], name: str) -> None:
        self._hand_over = hand_over
        self._name = name
        self._renew()

    def _renew(self) -> None:
        self._events: deque[ExecutionEvent] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    @property
    def behind(self) -> bool:
        self._mine()
        return bool(self._events) or self._busy

    def _mine(self) -> None:
        """After a fork the child has not the thread, and what waited for that is the parent's."""
        if self._process != os.getpid():
            closed = self._closed
            self._renew()
            self._closed = closed

    def put(self, event: ExecutionEvent) -> bool:
        """Whether there was room. An event that comes after the end is one that nobody asked for any more."""
        self._mine()
        with self._changed:
            if self._closed:
                return True
            if len(self._events) >= _ROOM:
                return False
            self._events.append(event)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return True

    def flush(self, timeout: float) -> bool:
        self._mine()
        if threading.current_thread() is self._thread:
            return True  # an observer that flushes itself
        end = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(lambda: not self.behind, max(0.0, end - time.monotonic()))
            return not self.behind

    def close(self, timeout: float) -> None:
        self.flush(timeout)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not self._events:
                    if self._closed:
                        return
                    self._changed.wait()
                event = self._events.popleft()
                self._busy = True
            self._hand_over(event)


_everywhere: tuple[Observation, ...] = ()
_lock = threading.Lock()


def observe(observer: Observer) -> Observation:
    """Let `observer` see every run and every model call of this process that begins from now on.

    Returns the observation, a context manager; `close()` ends it.
    """
    global _everywhere
    observation = Observation(observer)
    with _lock:
        _everywhere = (*_everywhere, observation)
    return observation


def observations() -> tuple[Observation, ...]:
    """Whoever watches every run of this process."""
    return _everywhere


def _forget(observation: Observation) -> None:
    global _everywhere
    with _lock:
        _everywhere = tuple([each for each in _everywhere if each is not observation])


def joined(more: Iterable[Observer]) -> tuple[Observation, ...]:
    """Those who watch everything, and beside them those who watch one run."""
    return (*_everywhere, *[Observation(observer) for observer in more])


def _renew_lock() -> None:
    """After a fork: a thread that the child does not have may have held it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _worth_a_line(count: int) -> bool:
    """The first, the tenth, the hundredth, …"""
    return str(count).rstrip("0") == "1"


@atexit.register
def _wind_up() -> None:
    end = time.monotonic() + _PATIENCE
    for observation in _everywhere:
        observation.flush(max(0.0, end - time.monotonic()))
