"""Requests and tokens per minute, and how many calls at a time: whoever must wait goes in the order of coming.

    limiter = RateLimiter(name="openai/gpt-4o", requests_per_minute=500, tokens_per_minute=30_000, concurrency=20)

    async with limiter.reserve(input_tokens=900, output_tokens=400, timeout=30) as reservation:
        answer = await call()
        reservation.settle(input_tokens=answer.input, output_tokens=answer.output)
    limiter.observe(ServerLimits(requests_remaining=12, requests_reset=3.5))     the headers of an answer
    limiter.drain(retry_after)                                                   an answer was 429

All that a call needs is taken at once or not at all, and nobody overtakes: behind a large request small ones wait, or
it would never be its turn. What was reserved is a guess. Settling gives back what was too much and takes what was too
little, if need be into debt, which later requests wait out. A call that ends without a word counts as it was guessed,
because it was sent; `reservation.cancel()` says that it was not.

Raised is LimiterError: at once where the wait would be longer than `timeout`, after `timeout` where it turned out so
(with a `concurrency`, nobody can know before), instead of any wait with `on_limit="raise"`, and, not retryable, for
what is more than a full bucket holds. Times are seconds. One limiter serves any number of event loops and threads.

The listener is told `limiter_wait` (seconds), `limiter_refused` (reason, retry_after), `limiter_drained` (seconds) and
`limiter_clamped` (a number for each quantity that the server has less of).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from functools import partial, wraps
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.allowance import Allowance, Available, Queued, Reservation
from agentflow.core.robustness.buckets import QUANTITIES, Buckets, Need, ServerLimits
from agentflow.core.robustness.decision import Listener, tell
from agentflow.errors import LimiterError

__all__ = ["Available", "RateLimiter", "Reservation", "Reserving", "ServerLimits"]

P = ParamSpec("P")
R = TypeVar("R")

_CLOCK: Final = SystemClock()


class RateLimiter:
    """Without any limit it lets all pass, and still obeys `observe` and `drain`.

    `tokens_per_minute` counts input and output together. A full bucket holds `burst` times a minute's amount, and is
    full at first: in any T seconds at most `burst + T/60` times that amount is granted, beside what settling takes.

    The default, a whole minute at once, is what the buckets of OpenAI and Anthropic hold by their headers. They say,
    too, that a limit may be kept in slices of a second: then a crowd's first moment meets some 429, once, and goes at
    the rate after the drain. A `burst` of 1/60 goes at the rate nearly from the start, and refuses for ever a call of
    more tokens than a second's worth; take no less than the largest call needs.
    """

    __slots__ = ("_allowance", "_listener", "_name", "_summary", "_wait")

    def __init__(
        self,
        *,
        name: str = "limiter",
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        input_tokens_per_minute: float | None = None,
        output_tokens_per_minute: float | None = None,
        concurrency: int | None = None,
        burst: float = 1.0,
        on_limit: Literal["wait", "raise"] = "wait",
        clock: Clock = _CLOCK,
        listener: Listener | None = None,
    ) -> None:
        rates = (requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute)
        _check(rates, burst, concurrency, on_limit)
        self._name = name
        self._wait = on_limit == "wait"
        self._listener = listener
        self._summary = _told(rates, concurrency, on_limit)
        slots = math.inf if concurrency is None else concurrency
        self._allowance = Allowance(Buckets(rates, burst), slots, clock.monotonic)

    # ---- taking

    def try_reserve(self, *, requests: int = 1, input_tokens: int = 0, output_tokens: int = 0) -> Reservation | None:
        """Take it now; None where that would mean to wait, or to overtake somebody who waits."""
        if requests < 0 or input_tokens < 0 or output_tokens < 0:
            raise _negative(requests, input_tokens, output_tokens)
        need = (requests, input_tokens + output_tokens, input_tokens, output_tokens)
        reservation = self._allowance.take(need)
        if reservation is None and (error := self._too_much(need)) is not None:
            raise self._refused("capacity", error)
        return reservation

    def reserve(
        self,
        *,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        tokens: int = 0,
        timeout: float | None = None,
    ) -> Reserving:
        """Take it when it is there: `await` it, or `async with` it. `tokens` is a short word for input tokens.

        `timeout` is how long the caller may wait, in seconds.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is 0 or more seconds, not {timeout:g}")
        if requests < 0 or input_tokens < 0 or tokens < 0 or output_tokens < 0:
            raise _negative(requests, min(input_tokens, tokens), output_tokens)
        input_tokens += tokens
        return Reserving(self, (requests, input_tokens + output_tokens, input_tokens, output_tokens), timeout)

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Limit the calls of an async function; each is one request."""

        @wraps(function)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            async with self.reserve():
                return await function(*args, **kwargs)

        return limited

    # ---- the server's word

    def observe(self, limits: ServerLimits) -> None:
        """An answer said how much is left. Settle its call first, or what that took may count twice for a while.

        What is held here is lowered to it, never raised. A quantity without a rate of its own is held at it until its
        reset.
        """
        allowance = self._allowance
        with allowance.turn:
            held = allowance.buckets.observe(limits, allowance.now())
            if allowance.queue:
                allowance.pump()
        if held:
            tell(self._listener, "limiter_clamped", self._name, **held)

    def drain(self, seconds: float) -> None:
        """The server refused a call, and wants to be left alone for so long: nothing is granted until then.

        Calls under way go on. Afterwards it starts slowly, however much was in the buckets: without rates at half of
        what was answered lately, and at twice that every half second (`Buckets.drain`).
        """
        allowance = self._allowance
        with allowance.turn:
            now = allowance.now()
            seconds = allowance.buckets.drain(seconds, now, allowance.flow.per_second(now))
        tell(self._listener, "limiter_drained", self._name, seconds=seconds)

    # ---- looking

    @property
    def counts_tokens(self) -> bool:
        """Whether any limit is in tokens, so that it is worth estimating what a call takes."""
        return self._allowance.counts_tokens

    @property
    def summary(self) -> str:
        """What it allows, on one line."""
        return self._summary

    @property
    def name(self) -> str:
        return self._name

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._allowance.queue)

    @property
    def in_use(self) -> int:
        """How many reservations are neither settled nor cancelled."""
        return self._allowance.in_use

    def available(self) -> Available:
        """What is there at this moment."""
        return self._allowance.available()

    # ---- waiting

    async def _wait_for(self, need: Need, timeout: float | None) -> Reservation:
        """Join the queue, unless it is known already that this is no use."""
        allowance = self._allowance
        with allowance.turn:
            hopeless = self._hopeless(need, timeout)
            waiter = None if hopeless else allowance.join(need)
        if waiter is None:
            assert hopeless is not None
            raise self._refused(*hopeless)
        late = partial(self._late, waiter, timeout)
        reservation = await waiter.wait(allowance.withdraw, seconds=timeout, late=late)
        if reservation.waited > 0:
            tell(self._listener, "limiter_wait", self._name, seconds=reservation.waited)
        return reservation

    def _hopeless(self, need: Need, timeout: float | None) -> tuple[str, LimiterError] | None:
        """Why it must not wait, if so."""
        if (error := self._too_much(need)) is not None:
            return "capacity", error
        if timeout is None and self._wait:
            return None
        allowance = self._allowance
        seconds = allowance.predicted(need)
        if not self._wait and (seconds > 0 or allowance.queue or allowance.in_use >= allowance.slots):
            return "on_limit", self._error("it would have to wait, and must not", seconds)
        if timeout is not None and seconds > timeout:
            return "timeout", self._error(f"the wait would be {seconds:.3g} s, longer than {timeout:g} s", seconds)
        return None

    def _late(self, waiter: Queued, timeout: float | None) -> None:
        allowance = self._allowance
        with allowance.turn:
            allowance.pump()  # it may be just in time
            if waiter.granted:
                return
            allowance.leave(waiter)
            seconds = allowance.predicted(waiter.need)
            error = self._error(f"still not its turn after {timeout or 0.0:g} s", seconds)
            waiter.refuse(error)
            allowance.pump()
        self._refused("late", error)

    # ---- refusing

    def _too_much(self, need: Need) -> LimiterError | None:
        above = self._allowance.buckets.above_capacity(need)
        if above is None:
            return None
        what, amount, capacity = above
        words = what.replace("_", " ")
        error = self._error(f"{amount:,} {words} at once are more than {what}_per_minute × burst = {capacity:,g}", None)
        error.retryable = False
        return error

    def _error(self, message: str, retry_after: float | None) -> LimiterError:
        return LimiterError(self._name, message, retry_after=retry_after or None)

    def _refused(self, reason: str, error: LimiterError) -> LimiterError:
        tell(self._listener, "limiter_refused", self._name, reason=reason, retry_after=error.retry_after)
        return error


class Reserving:
    """A reservation to come: `reservation = await it`, or `async with it as reservation`, once.

    At the end of the block the reservation is released, unless it was settled or cancelled inside: however the block
    ends, the call may have been sent.
    """

    __slots__ = ("_held", "_limiter", "_need", "_timeout")

    def __init__(self, limiter: RateLimiter, need: Need, timeout: float | None) -> None:
        self._limiter = limiter
        self._need = need
        self._timeout = timeout
        self._held: Reservation | None = None

    def __await__(self) -> Generator[Any, None, Reservation]:
        reservation = self._limiter._allowance.take(self._need)
        if reservation is None:
            reservation = yield from self._limiter._wait_for(self._need, self._timeout).__await__()
        return reservation

    async def __aenter__(self) -> Reservation:
        self._held = held = await self
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            self._held.release() if error is not None else self._held.settle()


def _negative(requests: int, input_tokens: int, output_tokens: int) -> ValueError:
    return ValueError(f"amounts are 0 or more, not {requests} requests, {input_tokens} + {output_tokens} tokens")


def _told(rates: Sequence[float | None], concurrency: int | None, on_limit: str) -> str:
    words = ("requests", "tokens", "input tokens", "output tokens")
    limits = [f"{rate:,g} {word} a minute" for rate, word in zip(rates, words, strict=True) if rate is not None]
    limits += [] if concurrency is None else [f"{concurrency:,} at once"]
    told = ", ".join(limits) or "no limit of ours, but what the server says"
    return told if on_limit == "wait" else f"{told}; refuses instead of waiting"


def _check(rates: tuple[float | None, ...], burst: float, concurrency: int | None, on_limit: str) -> None:
    """Limits that nothing could ever pass are a mistake."""
    if not 0 < burst < math.inf:
        raise ValueError(f"burst is a share of a minute's amount, above 0 and finite, not {burst:g}")
    for quantity, rate in zip(QUANTITIES, rates, strict=True):
        if rate is not None and not (0 < rate < math.inf and rate * burst >= 1):
            raise ValueError(f"{quantity}_per_minute × burst is 1 or more and finite, not {rate:g} × {burst:g}")
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency is at least 1, or None for no limit, not {concurrency}")
    if on_limit not in ("wait", "raise"):
        raise ValueError(f'on_limit is "wait" or "raise", not {on_limit!r}')
