"""What guards do where calls are cancelled, or come all at once: tried on ours and on other libraries, in real time.

An `EDGE` says what is right, and has a function for each library that tries it and returns what happened, in few words.
Nothing is known beforehand: a library that mends its ways is told so by the next run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from agentflow.core.robustness import (
    CircuitBreaker,
    CountWindow,
    Fixed,
    LoadShedder,
    Pipeline,
    RateLimiter,
    RetryPolicy,
)
from agentflow.errors import OperationTimeoutError

Try = Callable[[], Awaitable[str]]
Enter = Callable[[], AbstractAsyncContextManager[object]]

OPEN = 0.05
"""Seconds that a breaker stays open here."""


@dataclass(frozen=True, slots=True)
class Trial:
    what: str
    right: str
    ours: Try
    others: dict[str, Try]


@dataclass(frozen=True, slots=True)
class Edge:
    """A trial, and what came of it."""

    what: str
    right: str
    ours: str
    others: list[tuple[str, str]]


async def observed(trial: Trial) -> Edge:
    others = []
    for who, attempt in trial.others.items():
        if find_spec(who.replace("-", "_").partition(".")[0]) is not None:
            others.append((who, await _said(attempt)))
    return Edge(trial.what, trial.right, await _said(trial.ours), others)


async def _said(attempt: Try) -> str:
    try:
        return await attempt()
    except Exception as error:
        return f"{type(error).__name__}"


# ---- breakers ----------------------------------------------------------------------------------------------------


def _our_breaker(half_open_calls: int = 3) -> Enter:
    breaker = CircuitBreaker(
        window=CountWindow(2), min_calls=2, open_for=OPEN, jitter=0.0, half_open_calls=half_open_calls
    )

    @asynccontextmanager
    async def enter() -> Any:
        with breaker.guard():
            yield

    return enter


def _our_breaker_of_one() -> Enter:
    """One probe decides, as with the others."""
    return _our_breaker(1)


def _hyx_breaker() -> Enter:
    from hyx.circuitbreaker import consecutive_breaker

    breaker = consecutive_breaker(failure_threshold=2, recovery_time_secs=OPEN, recovery_threshold=1)
    return lambda: breaker


def _purgatory_breaker() -> Enter:
    from purgatory import AsyncCircuitBreakerFactory

    factory = AsyncCircuitBreakerFactory(default_threshold=2, default_ttl=OPEN)

    @asynccontextmanager
    async def enter() -> Any:
        async with await factory.get_breaker("edge"):
            yield

    return enter


def _aiobreaker_breaker() -> Enter:
    from aiobreaker import CircuitBreaker as Breaker

    breaker = Breaker(fail_max=2, timeout_duration=timedelta(seconds=OPEN))

    @asynccontextmanager
    async def enter() -> Any:
        """Its decorator, for a block: the block is the function that it calls."""
        began, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def block() -> None:
            began.set()
            await ended

        call = asyncio.ensure_future(breaker.call_async(block))
        waiting = asyncio.ensure_future(began.wait())
        await asyncio.wait([call, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if call.done():
            call.result()
        try:
            yield
        except asyncio.CancelledError:
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call
            raise
        except Exception as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)
        await call

    return enter


async def _fail(enter: Enter) -> BaseException | None:
    try:
        async with enter():
            raise ConnectionError("down")
    except Exception as error:
        return error
    return None


async def _passes(enter: Enter) -> bool:
    """Whether a call is let through."""
    entered = False
    with suppress(Exception):
        async with enter():
            entered = True
    return entered


async def _half_open(enter: Enter) -> None:
    for _ in range(2):
        await _fail(enter)
    await asyncio.sleep(OPEN * 2)


async def _cancel_inside(enter: Enter) -> None:
    """A call that is cancelled by its caller while it runs."""

    async def call() -> None:
        async with enter():
            await asyncio.sleep(10)

    task = asyncio.create_task(call())
    await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])


def _probes(breaker: Callable[[], Enter]) -> Try:
    async def attempt() -> str:
        enter, inside = breaker(), 0
        await _half_open(enter)
        done = asyncio.Event()

        async def probe() -> None:
            nonlocal inside
            with suppress(Exception):
                async with enter():
                    inside += 1
                    await done.wait()

        probes = [asyncio.create_task(probe()) for _ in range(50)]
        await asyncio.sleep(0.02)
        done.set()
        await asyncio.wait(probes)
        return f"{inside}"

    return attempt


def _cancelled_probe(breaker: Callable[[], Enter]) -> Try:
    """After it, one failure must open a half-open breaker, and would not open a closed one."""

    async def attempt() -> str:
        enter = breaker()
        await _half_open(enter)
        await _cancel_inside(enter)
        if not await _passes_probe(enter):
            return "failure"
        return "nothing"

    async def _passes_probe(enter: Enter) -> bool:
        entered = False
        with suppress(Exception):
            async with enter():
                entered = True
                raise ConnectionError("down")
        if entered and await _passes(enter):
            raise _ClosedError
        return entered

    async def told() -> str:
        try:
            return await attempt()
        except _ClosedError:
            return "success"

    return told


class _ClosedError(Exception):
    """A breaker that was half-open let a call through after one that failed: it was closed."""


def _cancelled_calls(breaker: Callable[[], Enter]) -> Try:
    async def attempt() -> str:
        enter = breaker()
        for _ in range(4):
            await _cancel_inside(enter)
        return "closed" if await _passes(enter) else "open"

    return attempt


def _tripping(breaker: Callable[[], Enter]) -> Try:
    async def attempt() -> str:
        enter = breaker()
        await _fail(enter)
        return type(await _fail(enter)).__name__

    return attempt


# ---- limiters ----------------------------------------------------------------------------------------------------


async def _large_first(take: Callable[[int], Awaitable[object]], prime: int) -> str:
    """A bucket is emptied; then one asks for ten, and forty for one each. How many of them overtake?"""
    await take(prime)
    order: list[int] = []

    async def one(amount: int) -> None:
        await take(amount)
        order.append(amount)

    waiting = []
    for amount in (10, *[1] * 40):
        waiting.append(asyncio.create_task(one(amount)))
        await asyncio.sleep(0)
    await asyncio.wait(waiting)
    return f"{order.index(10)} overtake"


async def _our_large() -> str:
    limiter = RateLimiter(tokens_per_minute=6_000, burst=10 / 6_000)
    return await _large_first(lambda amount: limiter.reserve(tokens=amount), 10)


async def _aiolimiter_large() -> str:
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(10, 0.1)
    return await _large_first(limiter.acquire, 10)


async def _pyrate_large() -> str:
    from pyrate_limiter import Limiter, Rate, StateBucket, TokenBucket

    limiter = Limiter(StateBucket([Rate(10, 100)], TokenBucket()))
    return await _large_first(lambda amount: limiter.try_acquire_async("edge", amount), 10)


# ---- places ------------------------------------------------------------------------------------------------------


def _leaks(places: Callable[[], Enter]) -> Try:
    """Two places and six to wait; six who wait are cancelled. How many may wait then?"""

    async def attempt() -> str:
        enter, refused = places(), 0

        async def call() -> None:
            nonlocal refused
            try:
                async with enter():
                    await asyncio.sleep(10)
            except Exception:
                refused += 1

        async with enter(), enter():
            for _ in range(6):
                await _cancel_inside(enter)
            calls = [asyncio.create_task(call()) for _ in range(6)]
            await asyncio.sleep(0.01)
            for task in calls:
                task.cancel()
            await asyncio.wait(calls)
        return f"{6 - refused}"

    return attempt


def _our_places() -> Enter:
    shedder = LoadShedder(limit=Fixed(2), max_queue=6, target_wait=None)

    @asynccontextmanager
    async def enter() -> Any:
        async with shedder.admit():
            yield

    return enter


def _hyx_places() -> Enter:
    from hyx.bulkhead import bulkhead

    places = bulkhead(max_concurrency=2, max_capacity=8)
    return lambda: places


# ---- retries and time-outs ---------------------------------------------------------------------------------------


def _three_attempts(decorate: Callable[[], Callable[[Any], Any]]) -> Try:
    async def attempt() -> str:
        made = 0

        async def call() -> None:
            nonlocal made
            made += 1
            raise ConnectionError("down")

        with suppress(Exception):
            await decorate()(call)()
        return f"{made}"

    return attempt


def _hyx_attempts() -> Any:
    from hyx.retry import retry

    return retry(on=Exception, attempts=3, backoff=0.001)


def _stamina_attempts() -> Any:
    import stamina

    stamina.instrumentation.set_on_retry_hooks([])
    return stamina.retry(on=Exception, attempts=3, wait_initial=0.001, wait_jitter=0.0)


def _tenacity_attempts() -> Any:
    from tenacity import retry, stop_after_attempt

    return retry(stop=stop_after_attempt(3))


def _ends_an_attempt(guarded: Callable[[Callable[[], Awaitable[None]]], Awaitable[object]]) -> Try:
    """A limit of 0.05 s for the whole, and an attempt that takes 0.5 s and fails."""

    async def slow() -> None:
        await asyncio.sleep(0.5)
        raise ConnectionError("down")

    async def attempt() -> str:
        loop = asyncio.get_running_loop()
        since = loop.time()
        with suppress(Exception):
            await guarded(slow)
        return "in time" if loop.time() - since < 0.4 else "when it ends by itself"

    return attempt


async def _stamina_within(call: Callable[[], Awaitable[None]]) -> None:
    import stamina

    await stamina.retry(on=Exception, timeout=0.05)(call)()


async def _tenacity_within(call: Callable[[], Awaitable[None]]) -> None:
    from tenacity import retry, stop_after_delay

    await retry(stop=stop_after_delay(0.05))(call)()


def _shared_limit(bounded: Callable[[], Callable[[], Awaitable[object]]]) -> Try:
    """One guard with a limit of 0.05 s, three tasks in it at once: how many does it end?"""

    async def attempt() -> str:
        enter, ended = bounded(), 0

        async def call() -> None:
            nonlocal ended
            try:
                await enter()
            except asyncio.CancelledError:
                return
            except Exception:
                ended += 1

        calls = []
        for _ in range(3):
            calls.append(asyncio.create_task(call()))
            await asyncio.sleep(0.01)
        await asyncio.wait(calls, timeout=0.3)
        said = f"{ended} of 3"
        for task in calls:
            task.cancel()
        await asyncio.wait(calls)
        return said

    return attempt


def _our_shared() -> Callable[[], Awaitable[object]]:
    pipeline = Pipeline(timeout=0.05)
    return lambda: pipeline.run(lambda: asyncio.sleep(10))


def _hyx_shared() -> Callable[[], Awaitable[object]]:
    from hyx.timeout import timeout

    shared = timeout(0.05)

    async def call() -> None:
        async with shared:
            await asyncio.sleep(10)

    return call


async def _our_lost_cancellation() -> str:
    async def call() -> None:
        await Pipeline(timeout=0.02).run(lambda: asyncio.sleep(10))

    return await _both_at_once(call, OperationTimeoutError)


async def _hyx_lost_cancellation() -> str:
    from hyx.timeout import timeout
    from hyx.timeout.exceptions import MaxDurationExceeded

    async def call() -> None:
        async with timeout(0.02):
            await asyncio.sleep(10)

    return await _both_at_once(call, MaxDurationExceeded)


async def _both_at_once(call: Callable[[], Awaitable[None]], late: type[Exception]) -> str:
    """The caller cancels in the very turn of the loop in which the time is up."""
    task = asyncio.ensure_future(call())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.0201, task.cancel)
    await asyncio.sleep(0.01)
    time.sleep(0.02)  # noqa: ASYNC251 - so that both timers are due at once
    await asyncio.wait([task])
    return "cancelled" if task.cancelled() else type(task.exception()).__name__


BREAKERS = {"hyx": _hyx_breaker, "purgatory": _purgatory_breaker, "aiobreaker": _aiobreaker_breaker}


def _on_breakers(attempt: Callable[[Callable[[], Enter]], Try]) -> tuple[Try, dict[str, Try]]:
    return attempt(_our_breaker), {who: attempt(breaker) for who, breaker in BREAKERS.items()}


EDGES = [
    Trial("a half-open breaker, 50 calls at once: probes let through", "3", *_on_breakers(_probes)),
    Trial(
        "a probe that its caller cancels counts as",
        "nothing",
        _cancelled_probe(_our_breaker_of_one),
        {who: _cancelled_probe(breaker) for who, breaker in BREAKERS.items()},
    ),
    Trial("a closed breaker after four calls that their callers cancel", "closed", *_on_breakers(_cancelled_calls)),
    Trial("the error that the caller gets of the call that opens it", "ConnectionError", *_on_breakers(_tripping)),
    Trial(
        "a limiter, a request for 10 before 40 for 1",
        "0 overtake",
        _our_large,
        {"aiolimiter": _aiolimiter_large, "pyrate-limiter": _pyrate_large},
    ),
    Trial(
        "two places and six to wait for them: may wait after six were cancelled",
        "6",
        _leaks(_our_places),
        {"hyx": _leaks(_hyx_places)},
    ),
    Trial(
        "three attempts: calls made",
        "3",
        _three_attempts(lambda: RetryPolicy(max_attempts=3, base_delay=0.001)),
        {
            "hyx": _three_attempts(_hyx_attempts),
            "stamina": _three_attempts(_stamina_attempts),
            "tenacity": _three_attempts(_tenacity_attempts),
        },
    ),
    Trial(
        "a limit of 0.05 s for all attempts ends one that takes longer",
        "in time",
        _ends_an_attempt(lambda call: RetryPolicy().run(call, timeout=0.05)),
        {"stamina": _ends_an_attempt(_stamina_within), "tenacity": _ends_an_attempt(_tenacity_within)},
    ),
    Trial(
        "one time-out shared by three tasks ends",
        "3 of 3",
        _shared_limit(_our_shared),
        {"hyx": _shared_limit(_hyx_shared)},
    ),
    Trial(
        "the caller cancels while the time-out expires: it is",
        "cancelled",
        _our_lost_cancellation,
        {"hyx": _hyx_lost_cancellation},
    ),
]
