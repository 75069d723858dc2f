"""A circuit breaker: leaves a service alone that fails too often, and asks it carefully before it trusts it again.

                 too many failed or slow                    breaker = CircuitBreaker(name="openai/gpt-4o")
      ┌────────┐ ───────────────────▶ ┌──────┐
      │ closed │                      │ open │ ◀─┐          with breaker.guard():           # CircuitOpenError if open
      └────────┘                      └──────┘   │              answer = await call()
          ▲ probes good  ┌───────────┐  │ time   │
          └───────────── │ half open │ ◀┘ passed │          @breaker                         # or as a decorator
                         └───────────┘ ──────────┘          async def call() -> str: ...
                                        probes bad or late

`breaker_state.TRANSITIONS` is the whole of it, and `breaker_state.diagram()` draws it. Each state that is entered is a
generation: what a call of an earlier one reports is ignored, it neither closes the breaker nor keeps it open.

Closed, the last calls are counted (see `breaker_window`): from `min_calls` on, a share of `failure_rate` that failed,
or of `slow_rate` that took longer than `slow_call` seconds, opens it. Failures often come back sooner than answers, so
calls under way count, too, as not failed: a crowd of slow ones of which one in twenty fails at once opens nothing. If
that alone keeps it closed, it opens where such a share failed of those that began together (`breaker_cohorts`).

Open, it refuses for `open_for` seconds, `growth` times longer for each opening without a good end in between, up to
`max_open`, and ± `jitter` of that (also beyond `max_open`, so that processes do not come back together). Half open,
`half_open_calls` probes are let through, and the same rates decide, as soon as the probes still out could not change
it. A probe that is out for `half_open_wait` seconds opens it again; time without callers does not. The first opening
is short, because a service that is back may be missed for as long as it was away, but for little longer.

The caller's cancellation records nothing and gives a probe back, as does an error that says nothing of the service
(`breaker_verdict`; a 429 is the limiter's business). Forced open, all is refused; disabled, all is let through and
counted; both last until `reset()`. All methods are synchronous, and may be called from any thread and event loop.

The rules are resilience4j's; the bounded probes that are given back, failsafe-go's; ignoring late results, Polly's.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, overload

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.breaker_machine import BreakerCounts
from agentflow.core.robustness.breaker_permit import Guard, Ledger, Permit
from agentflow.core.robustness.breaker_rules import Rules
from agentflow.core.robustness.breaker_state import BreakerEvent, BreakerState
from agentflow.core.robustness.breaker_verdict import Verdict
from agentflow.core.robustness.breaker_window import CountWindow, Window
from agentflow.core.robustness.decision import Listener

__all__ = ["BreakerCounts", "BreakerState", "CircuitBreaker", "Permit"]

P = ParamSpec("P")
R = TypeVar("R")

_CLOCK: Final = SystemClock()


class CircuitBreaker:
    """One for each thing that fails by itself: provider, endpoint, model and credential. See the module for the rules.

    `classify` says of an exception whether it is a "failure" or to be ignored; if it raises, `default_verdict` decides.
    `listener` hears `breaker_state` (from, to, reason, open_for) and `breaker_refused` (state, reason, retry_after).
    """

    __slots__ = ("_ledger", "_name", "_rules", "announced")

    def __init__(
        self,
        *,
        name: str = "breaker",
        window: Window = CountWindow(50),  # noqa: B008 - it is frozen
        min_calls: int = 10,
        failure_rate: float = 0.5,
        slow_call: float | None = None,
        slow_rate: float = 0.8,
        open_for: float = 3.0,
        growth: float = 2.0,
        max_open: float = 60.0,
        jitter: float = 0.2,
        half_open_calls: int = 3,
        half_open_wait: float = 60.0,
        classify: Callable[[BaseException], Verdict] | None = None,
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        self._name = name
        self.announced = BreakerState.CLOSED
        """The state that whoever watches calls was told last."""
        self._rules = Rules(
            window=window,
            min_calls=min_calls,
            failure_rate=failure_rate,
            slow_call=slow_call,
            slow_rate=slow_rate,
            open_for=open_for,
            growth=growth,
            max_open=max_open,
            jitter=jitter,
            half_open_calls=half_open_calls,
            half_open_wait=half_open_wait,
        )
        self._ledger = Ledger(self._rules, name, classify, clock, listener)

    # ---- calls

    def check(self) -> None:
        """Raise CircuitOpenError if no call would be let through now. Takes nothing."""
        ledger = self._ledger
        if not ledger.machine.phase.passes:
            ledger.enter(take=False)

    def acquire(self) -> Permit:
        """Leave to make one call, or CircuitOpenError. The permit must be settled: success, failure or drop."""
        ledger = self._ledger
        phase = ledger.machine.phase
        if phase.passes:  # the same as the ledger's, and a call less
            phase.begun = number = phase.begun + 1
            return Permit(ledger, phase, number, ledger.now() if ledger.timed else 0.0)
        return ledger.enter(take=True)

    def guard(self) -> AbstractContextManager[Permit]:
        """`with breaker.guard():` one call, recorded by how the block ends, unless the block settles it itself."""
        return Guard(self._ledger)

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
        self._ledger.at(lambda machine, now: machine.hold_open(seconds, now))

    # ---- looking at it

    @property
    def name(self) -> str:
        return self._name

    @property
    def summary(self) -> str:
        """When it opens, and for how long, on one line."""
        return self._rules.summary

    @property
    def state(self) -> BreakerState:
        """The state at this moment: half open as soon as its time is over, though nobody has called yet."""
        if self._ledger.machine.phase.closed:
            return BreakerState.CLOSED  # time alone opens nothing, so there is nothing to wait for
        return self._ledger.at(lambda machine, now: machine.move_to(now).state)

    @property
    def open_until(self) -> float | None:
        """The monotonic time of the next probe if it is open, else None."""
        return self._ledger.at(lambda machine, now: machine.move_to(now).until)

    @property
    def retry_after(self) -> float | None:
        """Seconds after which a call may be let through: 0 if it would be now, None if nobody can say (forced open)."""
        return self._ledger.at(lambda machine, now: machine.retry_after(now))

    def counts(self) -> BreakerCounts:
        """What it remembers at this moment. Open, it still holds what opened it."""
        return self._ledger.at(lambda machine, now: machine.counts(now))

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self._name!r} {self._ledger.machine.phase.state}>"

    def _command(self, event: BreakerEvent, reason: str) -> None:
        self._ledger.at(lambda machine, now: machine.command(event, reason, now))


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
