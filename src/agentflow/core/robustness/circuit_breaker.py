"""A circuit breaker: leaves a service alone that fails too often, and asks it carefully before it trusts it again.

                 too many failed or slow                    breaker = CircuitBreaker(name="openai/gpt-4o")
      ┌────────┐ ───────────────────▶ ┌──────┐
      │ closed │                      │ open │ ◀─┐          with breaker.guard():           # CircuitOpenError if open
      └────────┘                      └──────┘   │              answer = await call()
          ▲ probes good  ┌───────────┐  │ time   │
          └───────────── │ half open │ ◀┘ passed │          @breaker                         # or as a decorator
                         └───────────┘ ──────────┘          async def call() -> str: ...
                                        probes bad or late

`TRANSITIONS` is the whole of it, and `diagram()` draws it. Each state that is entered is a generation: what a call of
an earlier one reports is ignored, it neither closes the breaker nor keeps it open.

Closed, the last calls are counted (see `breaker_window`): from `min_calls` on, a share of `failure_rate` that failed,
or of `slow_rate` that took longer than `slow_call` seconds, opens it. Open, it refuses for `open_for` seconds, `growth`
times longer for each opening without a good end in between, up to `max_open`, and ± `jitter` of that (also beyond
`max_open`, so that processes do not come back together). Half open, `half_open_calls` probes are let through, and the
same rates decide, as soon as the probes still out could not change it. A probe that is out for `half_open_wait`
seconds opens it again; time without callers does not.

The caller's cancellation records nothing and gives a probe back, as does an error that says nothing of the service
(`default_verdict`; a 429 is the limiter's business). Forced open, all is refused; disabled, all is let through and
counted; both last until `reset()`. All methods are synchronous, and may be called from any thread and event loop.

The rules are resilience4j's; the bounded probes that are given back, failsafe-go's; ignoring late results, Polly's.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, ParamSpec, TypeAlias, TypeVar, overload

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.breaker_window import CountRing, CountWindow, Ring, Window
from agentflow.core.robustness.decision import Listener, tell
from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OutputError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RejectedError,
    ServerError,
    StreamInterruptedError,
)

__all__ = [
    "TRANSITIONS",
    "BreakerCounts",
    "BreakerEvent",
    "BreakerState",
    "CircuitBreaker",
    "Permit",
    "Verdict",
    "default_verdict",
    "diagram",
]

P = ParamSpec("P")
R = TypeVar("R")
Verdict: TypeAlias = Literal["failure", "ignore"]

_CLOCK: Final = SystemClock()
_PROBING: Final = 1.0  # seconds after which to ask again while probes are out; nobody knows how long they take


# ---- the states ----------------------------------------------------------------------------------------------


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class BreakerEvent(StrEnum):
    TRIPPED = "tripped"  # too many of the last calls failed or were slow
    WAITED = "waited"  # the time for which it opened has passed
    PROBES_PASSED = "probes_passed"
    PROBES_FAILED = "probes_failed"
    PROBE_LATE = "probe_late"
    HELD = "held"  # another process says that it is open
    FORCED = "forced"
    DISABLED = "disabled"
    RESET = "reset"


TRANSITIONS: Final[Mapping[tuple[BreakerState, BreakerEvent], BreakerState]] = MappingProxyType(
    {
        (BreakerState.CLOSED, BreakerEvent.TRIPPED): BreakerState.OPEN,
        (BreakerState.CLOSED, BreakerEvent.HELD): BreakerState.OPEN,
        (BreakerState.CLOSED, BreakerEvent.FORCED): BreakerState.FORCED_OPEN,
        (BreakerState.CLOSED, BreakerEvent.DISABLED): BreakerState.DISABLED,
        (BreakerState.CLOSED, BreakerEvent.RESET): BreakerState.CLOSED,
        (BreakerState.OPEN, BreakerEvent.WAITED): BreakerState.HALF_OPEN,
        (BreakerState.OPEN, BreakerEvent.FORCED): BreakerState.FORCED_OPEN,
        (BreakerState.OPEN, BreakerEvent.DISABLED): BreakerState.DISABLED,
        (BreakerState.OPEN, BreakerEvent.RESET): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.PROBES_PASSED): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.PROBES_FAILED): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.PROBE_LATE): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.HELD): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.FORCED): BreakerState.FORCED_OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.DISABLED): BreakerState.DISABLED,
        (BreakerState.HALF_OPEN, BreakerEvent.RESET): BreakerState.CLOSED,
        (BreakerState.FORCED_OPEN, BreakerEvent.DISABLED): BreakerState.DISABLED,
        (BreakerState.FORCED_OPEN, BreakerEvent.RESET): BreakerState.CLOSED,
        (BreakerState.DISABLED, BreakerEvent.FORCED): BreakerState.FORCED_OPEN,
        (BreakerState.DISABLED, BreakerEvent.RESET): BreakerState.CLOSED,
    }
)
"""Every change of state. An event that is not here for a state has no effect in it."""


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = [f"    {old} --> {new}: {event.replace('_', ' ')}" for (old, event), new in TRANSITIONS.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {BreakerState.CLOSED}", *lines, ""])


_CLOSED: Final = BreakerState.CLOSED  # a global of one look-up, for the fast path

# ---- what counts as a failure --------------------------------------------------------------------------------

_FAILURES: Final = (
    ServerError,
    OverloadedError,
    ModelTimeoutError,
    ModelConnectionError,
    ProtocolError,
    StreamInterruptedError,
)
_IGNORED: Final = (
    RejectedError,
    RateLimitError,
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    BadRequestError,
    OutputError,
)


def default_verdict(error: BaseException) -> Verdict:
    """Whether an error says that the service is ill.

    What a guard of ours refused, a 429, and what is wrong with the request or its key say nothing of it. Other model
    errors go by their status. Of a group, one failure is enough. All other exceptions count, time-outs among them; what
    is no Exception (a cancellation, KeyboardInterrupt) never does.
    """
    if isinstance(error, ExceptionGroup):
        return "failure" if any(default_verdict(each) == "failure" for each in error.exceptions) else "ignore"
    if isinstance(error, _IGNORED) or not isinstance(error, Exception):
        return "ignore"
    if isinstance(error, ModelError) and not isinstance(error, _FAILURES):
        return "failure" if (error.status or 0) >= 500 else "ignore"
    return "failure"


# ---- permits -------------------------------------------------------------------------------------------------


class Permit:
    """Leave to make one call. Report how it ended, once: what comes second is ignored. Nothing here raises."""

    __slots__ = ("_breaker", "_phase", "_since")

    def __init__(self, breaker: CircuitBreaker, phase: _Phase, since: float) -> None:
        self._breaker = breaker
        self._phase: _Phase | None = phase  # None once it is settled
        self._since = since

    def success(self, seconds: float | None = None) -> None:
        """It went well. `seconds` is what counts for the slow-call rate (say, the time to the first token); None for
        the time since `acquire`."""
        self._breaker._settle(self, False, seconds)

    def failure(self, error: BaseException, seconds: float | None = None) -> None:
        """It ended with `error`, which is a failure or is ignored: then the permit is given back, unused."""
        if self._breaker._fails(error):
            self._breaker._settle(self, True, seconds)
        else:
            self.drop()

    def drop(self) -> None:
        """It was cancelled, or never made: record nothing, and let another one probe."""
        self._breaker._give_back(self)

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It is recorded by how the block ends, unless the block has settled it."""
        if error is None:
            self.success()
        else:
            self.failure(error)


class _Guard:
    """Takes its permit when it is entered, not when it is made: one that is never entered holds nothing."""

    __slots__ = ("_breaker", "_permit")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def __enter__(self) -> Permit:
        self._permit = permit = self._breaker.acquire()
        return permit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._permit.success()
        else:
            self._permit.failure(error)


# ---- the breaker ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BreakerCounts:
    """A breaker at one moment: `calls` of its window (of the probes, half open), how many of them failed or were slow,
    `probes` that are out, all calls `refused` since it was made, and the number of its `generation`."""

    state: BreakerState
    calls: int
    failures: int
    slow: int
    probes: int
    refused: int
    generation: int


class _Phase:
    """One generation: the time between two changes of state. Permits hold theirs, so the late ones are known."""

    __slots__ = ("number", "passes", "probes", "reason", "ring", "state", "until")

    def __init__(self, state: BreakerState, number: int, ring: Ring, reason: str, until: float | None) -> None:
        self.state = state
        self.number = number
        self.ring = ring
        self.reason = reason
        self.until = until
        self.passes = state in (BreakerState.CLOSED, BreakerState.DISABLED)
        self.probes: set[Permit] = set()


class CircuitBreaker:
    """One for each thing that fails by itself: provider, endpoint, model and credential. See the module for the rules.

    `classify` says of an exception whether it is a "failure" or to be ignored; if it raises, `default_verdict` decides.
    `listener` hears `breaker_state` (from, to, reason, open_for) and `breaker_refused` (state, reason, retry_after).
    """

    __slots__ = (
        "_classify",
        "_clock",
        "_failure_rate",
        "_growth",
        "_half_open_calls",
        "_half_open_wait",
        "_jitter",
        "_listener",
        "_lock",
        "_max_open",
        "_min_calls",
        "_monotonic",
        "_name",
        "_news",
        "_open_for",
        "_phase",
        "_refused",
        "_slow_call",
        "_slow_rate",
        "_span",
        "_timed",
        "_window",
    )

    def __init__(
        self,
        *,
        name: str = "breaker",
        window: Window = CountWindow(50),  # noqa: B008 - it is frozen
        min_calls: int = 10,
        failure_rate: float = 0.5,
        slow_call: float | None = None,
        slow_rate: float = 0.8,
        open_for: float = 15.0,
        growth: float = 2.0,
        max_open: float = 120.0,
        jitter: float = 0.2,
        half_open_calls: int = 3,
        half_open_wait: float = 60.0,
        classify: Callable[[BaseException], Verdict] | None = None,
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        _at_least_one(min_calls=min_calls, half_open_calls=half_open_calls)
        _rates(failure_rate=failure_rate, slow_rate=slow_rate)
        _durations(open_for=open_for, max_open=max_open, half_open_wait=half_open_wait, slow_call=slow_call)
        if isinstance(window, CountWindow) and min_calls > window.size:
            raise ValueError(f"min_calls must be at most the window's size ({window.size}), not {min_calls}")
        if max_open < open_for:
            raise ValueError(f"max_open must be at least open_for ({open_for:g} s), not {max_open:g}")
        if not 1 <= growth < math.inf:
            raise ValueError(f"growth must be a finite factor of at least 1, not {growth:g}")
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter must be a share from 0 to below 1, not {jitter:g}")
        self._name = name
        self._window = window
        self._min_calls = min_calls
        self._failure_rate = failure_rate
        self._slow_call = math.inf if slow_call is None else slow_call
        self._slow_rate = slow_rate
        self._timed = slow_call is not None or not isinstance(
            window, CountWindow
        )  # whether it must know the time while closed
        self._open_for = self._span = open_for  # _span: how long the next opening lasts
        self._growth = growth
        self._max_open = max_open
        self._jitter = jitter
        self._half_open_calls = half_open_calls
        self._half_open_wait = half_open_wait
        self._classify = classify or default_verdict
        self._clock = clock
        self._monotonic = clock.monotonic
        self._listener = listener
        self._lock = threading.Lock()
        self._news: deque[tuple[str, dict[str, object]]] = deque()  # told once the lock is free
        self._refused = 0
        self._phase = _Phase(BreakerState.CLOSED, 0, window.ring(), "", None)

    # ---- calls

    def check(self) -> None:
        """Raise CircuitOpenError if no call would be let through now. Takes nothing."""
        if not self._phase.passes:
            self._enter(take=False)

    def acquire(self) -> Permit:
        """Leave to make one call, or CircuitOpenError. The permit must be settled: success, failure or drop."""
        phase = self._phase
        if phase.passes:
            return Permit(self, phase, self._monotonic() if self._timed else 0.0)
        return self._enter(take=True)

    def guard(self) -> AbstractContextManager[Permit]:
        """`with breaker.guard():` one call, recorded by how the block ends, unless the block settles it itself."""
        return _Guard(self)

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...
    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Guard every call of an async or sync function. A generator cannot be: use `guard()` inside it."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is a generator: use `with breaker.guard():` inside it")
        return _guard_async(self, function) if inspect.iscoroutinefunction(function) else _guard_sync(self, function)

    # ---- by hand

    def force_open(self) -> None:
        """Refuse all calls until `reset` or `disable`."""
        self._command(BreakerEvent.FORCED, "forced open by hand")

    def disable(self) -> None:
        """Let all calls through until `reset` or `force_open`, and count them."""
        self._command(BreakerEvent.DISABLED, "disabled by hand")

    def reset(self) -> None:
        """Close it and forget everything, calls under way included."""
        self._command(BreakerEvent.RESET, "reset by hand")

    def hold_open(self, seconds: float) -> None:
        """Another process found it failing: be open for so long, at least. Without effect if forced or disabled.

        It does not make the next opening longer. Seconds of 0 or less are over already.
        """
        if not seconds < math.inf:
            raise ValueError(f"seconds must be finite (force_open() has no end), not {seconds}")
        if seconds <= 0:
            return
        now = self._monotonic()
        with self._lock:
            phase = self._move_to(now)
            if phase.until is None:
                self._change(BreakerEvent.HELD, "held open for another process", now, seconds)
            else:
                phase.until = max(phase.until, now + seconds)
        self._announce()

    # ---- looking at it

    @property
    def name(self) -> str:
        return self._name

    @property
    def summary(self) -> str:
        """When it opens, and for how long, on one line."""
        slow = "" if self._slow_call == math.inf else f", or {self._slow_rate:.0%} took over {self._slow_call:g} s"
        opens = f"opens where {self._failure_rate:.0%} of {self._min_calls} calls or more failed{slow}"
        return f"{opens}; for {self._open_for:g} s, then longer, up to {self._max_open:g} s"

    @property
    def state(self) -> BreakerState:
        """The state at this moment: half open as soon as its time is over, though nobody has called yet."""
        return self._look(lambda phase, now: phase.state)

    @property
    def open_until(self) -> float | None:
        """The monotonic time of the next probe if it is open, else None."""
        return self._look(lambda phase, now: phase.until)

    @property
    def retry_after(self) -> float | None:
        """Seconds after which a call may be let through: 0 if it would be now, None if nobody can say (forced open)."""
        return self._look(lambda phase, now: 0.0 if self._passes(phase) else self._wait(phase, now))

    def counts(self) -> BreakerCounts:
        """What it remembers at this moment. Open, it still holds what opened it."""
        return self._look(self._count)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self._name!r} {self._phase.state}>"

    # ---- within

    def _look(self, at: Callable[[_Phase, float], R]) -> R:
        now = self._monotonic()
        with self._lock:
            seen = at(self._move_to(now), now)
        self._announce()
        return seen

    def _count(self, phase: _Phase, now: float) -> BreakerCounts:
        ring = phase.ring
        ring.move_to(now)
        return BreakerCounts(
            state=phase.state,
            calls=ring.total,
            failures=ring.failures,
            slow=ring.slow,
            probes=len(phase.probes),
            refused=self._refused,
            generation=phase.number,
        )

    def _enter(self, *, take: bool) -> Permit:
        """The way in where not everybody passes."""
        now = self._monotonic()
        with self._lock:
            phase = self._move_to(now)
            permit = Permit(self, phase, now)
            refusal = None if self._passes(phase) else self._refuse(phase, now)
            if refusal is None and take and phase.state is BreakerState.HALF_OPEN:
                phase.probes.add(permit)
        self._announce()
        if refusal is not None:
            raise refusal
        return permit

    def _refuse(self, phase: _Phase, now: float) -> CircuitOpenError:
        self._refused += 1
        wait = self._wait(phase, now)
        self._report("breaker_refused", state=phase.state.value, reason=phase.reason, retry_after=wait)
        return CircuitOpenError(self._name, _refusal(phase, wait), retry_after=wait)

    def _passes(self, phase: _Phase) -> bool:
        if phase.state is BreakerState.HALF_OPEN:
            return phase.ring.total + len(phase.probes) < self._half_open_calls
        return phase.passes

    def _wait(self, phase: _Phase, now: float) -> float | None:
        """Seconds until it is worth asking again, None if nobody knows."""
        if phase.state is BreakerState.HALF_OPEN:
            return min(_PROBING, self._late(phase) - now)
        return None if phase.until is None else phase.until - now

    def _late(self, phase: _Phase) -> float:
        """When the oldest of the probes will have been out for too long."""
        return min((permit._since for permit in phase.probes), default=math.inf) + self._half_open_wait

    def _fails(self, error: BaseException) -> bool:
        if not isinstance(error, Exception):
            return False
        with suppress(Exception):
            return self._classify(error) == "failure"
        return default_verdict(error) == "failure"

    def _settle(self, permit: Permit, failed: bool, seconds: float | None) -> None:
        phase = permit._phase
        if phase is None:
            return
        if not phase.passes:
            return self._settle_probe(permit, phase, failed, seconds)
        now, slow = 0.0, False
        if self._timed:  # a look at the clock is a tenth of the whole
            now = self._monotonic()
            slow = (now - permit._since if seconds is None else seconds) > self._slow_call
        ring = phase.ring
        if ring.quiet and not failed and not slow:
            permit._phase = None  # the usual case takes no lock
            return
        lock = self._lock
        lock.acquire()  # `with` takes twice as long
        try:
            if phase is self._phase and permit._phase is not None:
                ring.record(now, failed, slow)
                if (ring.failures or ring.slow) and phase.state is _CLOSED:
                    self._judge(ring)
            permit._phase = None
        finally:
            lock.release()
        if self._news:
            self._announce()

    def _settle_probe(self, permit: Permit, phase: _Phase, failed: bool, seconds: float | None) -> None:
        now = self._monotonic()
        slow = (now - permit._since if seconds is None else seconds) > self._slow_call
        with self._lock:
            if self._move_to(now) is phase and permit in phase.probes:
                phase.probes.discard(permit)
                phase.ring.record(now, failed, slow)
                self._judge_probes(phase.ring, now)
            permit._phase = None
        self._announce()

    def _give_back(self, permit: Permit) -> None:
        with self._lock:
            phase, permit._phase = permit._phase, None
            if phase is not None:
                phase.probes.discard(permit)

    def _judge(self, ring: Ring) -> None:
        total = ring.total
        if total < self._min_calls:
            return
        # Divided, not multiplied: 7 / 100 is the float that 0.07 is, but 0.07 * 100 is not 7.
        if ring.failures / total >= self._failure_rate or ring.slow / total >= self._slow_rate:
            self._open(BreakerEvent.TRIPPED, self._complaint(ring, "calls"), self._monotonic())

    def _judge_probes(self, ring: Ring, now: float) -> None:
        """Decide as on the whole batch, once what is still out could not change it."""
        batch = self._half_open_calls
        left = batch - ring.total
        could_be_slow = left if self._slow_call < math.inf else 0
        if ring.failures / batch >= self._failure_rate or ring.slow / batch >= self._slow_rate:
            self._open(BreakerEvent.PROBES_FAILED, self._complaint(ring, "probes"), now)
        elif (ring.failures + left) / batch < self._failure_rate and (
            ring.slow + could_be_slow
        ) / batch < self._slow_rate:
            self._change(BreakerEvent.PROBES_PASSED, "the probes went well", now)
            self._span = self._open_for

    def _complaint(self, ring: Ring, what: str) -> str:
        if ring.failures / ring.total >= self._failure_rate:
            return f"{ring.failures} of {ring.total} {what} failed"
        return f"{ring.slow} of {ring.total} {what} took longer than {self._slow_call:g} s"

    def _move_to(self, now: float) -> _Phase:
        """Make the changes that time alone brings, as of when they fell due. Returns the phase at `now`."""
        phase = self._phase
        if phase.probes and now >= (late := self._late(phase)):
            reason = f"a probe was out for {self._half_open_wait:g} s"
            phase = self._open(BreakerEvent.PROBE_LATE, reason, late)
        if phase.until is not None and now >= phase.until:
            phase = self._change(BreakerEvent.WAITED, phase.reason, now)
        return phase

    def _open(self, event: BreakerEvent, reason: str, now: float) -> _Phase:
        seconds = self._span * (1 + self._jitter * (2 * self._clock.random() - 1))
        self._span = min(self._max_open, self._span * self._growth)
        return self._change(event, reason, now, seconds)

    def _change(self, event: BreakerEvent, reason: str, now: float, seconds: float | None = None) -> _Phase:
        """Go where the table says; `seconds` is for how long, where that is open."""
        old = self._phase
        state = TRANSITIONS.get((old.state, event))
        if state is None:
            return old
        until = None if seconds is None else now + seconds
        self._phase = new = _Phase(state, old.number + 1, self._ring(state), reason, until)
        self._report("breaker_state", **{"from": old.state.value}, to=state.value, reason=reason, open_for=seconds)
        return new

    def _ring(self, state: BreakerState) -> Ring:
        if state is BreakerState.HALF_OPEN:
            return CountRing(self._half_open_calls)
        if state in (BreakerState.OPEN, BreakerState.FORCED_OPEN):
            return self._phase.ring
        return self._window.ring()

    def _command(self, event: BreakerEvent, reason: str) -> None:
        now = self._monotonic()
        with self._lock:
            self._move_to(now)
            self._change(event, reason, now)
            self._span = self._open_for
        self._announce()

    def _report(self, kind: str, **data: object) -> None:
        if self._listener is not None:
            self._news.append((kind, data))

    def _announce(self) -> None:
        """Tell the listener, outside the lock. With several threads, each item is told once, by one of them."""
        while self._news:
            with suppress(IndexError):
                kind, data = self._news.popleft()
                tell(self._listener, kind, self._name, **data)


def _refusal(phase: _Phase, wait: float | None) -> str:
    if phase.state is BreakerState.FORCED_OPEN:
        return f"{phase.reason}; reset() closes it"
    if phase.state is BreakerState.HALF_OPEN:
        return f"half open ({phase.reason}), and its probes are under way; try again in {wait or 0.0:.1f} s"
    return f"open, because {phase.reason}; next probe in {wait or 0.0:.1f} s"


def _guard_async(breaker: CircuitBreaker, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    @wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        with breaker.acquire():
            return await function(*args, **kwargs)

    return guarded


def _guard_sync(breaker: CircuitBreaker, function: Callable[P, Any]) -> Callable[P, Any]:
    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        permit = breaker.acquire()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            permit.failure(error)
            raise
        if inspect.isawaitable(result):  # it is not over yet
            return _ended(permit, result)
        permit.success()
        return result

    return guarded


async def _ended(permit: Permit, result: Awaitable[R]) -> R:
    with permit:
        return await result


# ---- arguments -----------------------------------------------------------------------------------------------


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")


def _rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 < rate <= 1:
            raise ValueError(f"{name} must be a share above 0 and up to 1, not {rate:g}")


def _durations(**durations: float | None) -> None:
    for name, seconds in durations.items():
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"{name} must be a finite time above 0 s, not {seconds:g}")
