"""The same call, guarded by each library: what `robustness.py` measures.

Every function under `PRIMITIVES` and `STACKS` gets the bare call and returns it guarded, or None where its library is
not installed. All are set so that nothing ever waits, is refused or fails. A guard that can be made once for many calls
is made once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.util import find_spec

from agentflow.core.robustness import (
    AIMD,
    CircuitBreaker,
    Fixed,
    LoadShedder,
    Pipeline,
    Priority,
    RateLimiter,
    ResourcePool,
    RetryBudget,
    RetryPolicy,
    limit,
)
from agentflow.core.robustness.operation import Operation

Call = Callable[[], Awaitable[int]]
Make = Callable[[Call], Call]

MANY = 1e9
BUSY = 1e12
SECONDS = 60.0


def _installed(*modules: str) -> bool:
    return all(find_spec(module) is not None for module in modules)


# ---- repeating ---------------------------------------------------------------------------------------------------


def our_retry(call: Call) -> Call:
    return RetryPolicy(max_attempts=3)(call)


def tenacity_retry(call: Call) -> Call:
    from tenacity import retry, stop_after_attempt, wait_random_exponential

    return retry(stop=stop_after_attempt(3), wait=wait_random_exponential(0.5, 30), reraise=True)(call)


def stamina_retry(call: Call) -> Call:
    import stamina

    return stamina.retry(on=Exception, attempts=3)(call)


def hyx_retry(call: Call) -> Call:
    from hyx.retry import retry

    return retry(on=Exception, attempts=3)(call)


# ---- breaking ----------------------------------------------------------------------------------------------------


def our_breaker(call: Call) -> Call:
    return CircuitBreaker()(call)


def hyx_breaker(call: Call) -> Call:
    from hyx.circuitbreaker import consecutive_breaker

    return consecutive_breaker()(call)


def purgatory_breaker(call: Call) -> Call:
    from purgatory import AsyncCircuitBreakerFactory

    return AsyncCircuitBreakerFactory()("bench")(call)


def aiobreaker_breaker(call: Call) -> Call:
    from aiobreaker import CircuitBreaker as Breaker

    breaker = Breaker()

    async def guarded() -> int:
        return await breaker.call_async(call)

    return guarded


# ---- limiting ----------------------------------------------------------------------------------------------------


def our_limiter(call: Call) -> Call:
    limiter = RateLimiter(requests_per_minute=MANY)

    async def limited() -> int:
        async with limiter.reserve():
            return await call()

    return limited


def our_limiter_of_tokens(call: Call) -> Call:
    limiter = RateLimiter(requests_per_minute=MANY, tokens_per_minute=BUSY)

    async def limited() -> int:
        async with limiter.reserve(input_tokens=900, output_tokens=400) as reservation:
            answer = await call()
            reservation.settle(input_tokens=880, output_tokens=350)
            return answer

    return limited


def aiolimiter_limiter(call: Call) -> Call:
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(MANY, 60)

    async def limited() -> int:
        async with limiter:
            return await call()

    return limited


def pyrate_limiter(call: Call) -> Call:
    from pyrate_limiter import Limiter, Rate, StateBucket, TokenBucket

    rate = Rate(int(MANY), 60_000)
    limiter = Limiter(StateBucket([rate], TokenBucket()))

    async def limited() -> int:
        await limiter.try_acquire_async("bench")
        return await call()

    return limited


def limits_limiter(call: Call) -> Call:
    from limits import RateLimitItemPerMinute
    from limits.aio.storage import MemoryStorage
    from limits.aio.strategies import FixedWindowRateLimiter

    limiter, item = FixedWindowRateLimiter(MemoryStorage()), RateLimitItemPerMinute(int(MANY))

    async def limited() -> int:
        await limiter.hit(item, "bench")
        return await call()

    return limited


def hyx_limiter(call: Call) -> Call:
    from hyx.ratelimit import tokenbucket

    return tokenbucket(MANY, 60)(call)


# ---- bounding ----------------------------------------------------------------------------------------------------


def our_limit(call: Call) -> Call:
    async def bounded() -> int:
        with limit(SECONDS):
            return await call()

    return bounded


def asyncio_timeout(call: Call) -> Call:
    async def bounded() -> int:
        async with asyncio.timeout(SECONDS):
            return await call()

    return bounded


def asyncio_wait_for(call: Call) -> Call:
    async def bounded() -> int:
        return await asyncio.wait_for(call(), SECONDS)  # type: ignore[arg-type]

    return bounded


def hyx_timeout(call: Call) -> Call:
    from hyx.timeout import timeout

    async def bounded() -> int:
        async with timeout(SECONDS):
            return await call()

    return bounded


# ---- admitting ---------------------------------------------------------------------------------------------------


def our_shedder(call: Call) -> Call:
    shedder = LoadShedder(limit=AIMD(initial=1_000))

    async def admitted() -> int:
        async with shedder.admit():
            return await call()

    return admitted


def our_bulkhead(call: Call) -> Call:
    shedder = LoadShedder(limit=Fixed(1_000))

    async def admitted() -> int:
        async with shedder.admit():
            return await call()

    return admitted


def semaphore(call: Call) -> Call:
    places = asyncio.Semaphore(1_000)

    async def admitted() -> int:
        async with places:
            return await call()

    return admitted


def hyx_bulkhead(call: Call) -> Call:
    from hyx.bulkhead import bulkhead

    return bulkhead(max_concurrency=1_000, max_capacity=1_000)(call)


# ---- lending -----------------------------------------------------------------------------------------------------


def our_pool(call: Call) -> Call:
    async def make() -> object:
        return object()

    pool = ResourcePool(make, size=10)

    async def lent() -> int:
        async with pool.acquire():
            return await call()

    return lent


def queue_as_pool(call: Call) -> Call:
    """What one writes by hand: resources in a queue."""
    resources: asyncio.Queue[object] = asyncio.Queue()
    for _ in range(10):
        resources.put_nowait(object())

    async def lent() -> int:
        resource = await resources.get()
        try:
            return await call()
        finally:
            resources.put_nowait(resource)

    return lent


# ---- all of it ---------------------------------------------------------------------------------------------------


def _pipeline(**left_out: None) -> Pipeline:
    """Every guard that a model call has unasked, and limits of requests and tokens."""
    guards = {
        "timeout": SECONDS,
        "shedder": LoadShedder(limit=AIMD(initial=1_000, maximum=10_000), target_wait=None),
        "retry": RetryPolicy(),
        "budget": RetryBudget(),
        "limiter": RateLimiter(requests_per_minute=MANY, tokens_per_minute=BUSY),
        "breaker": CircuitBreaker(),
    }
    return Pipeline("bench", **{**guards, **left_out})  # type: ignore[arg-type]


def our_pipeline(call: Call) -> Call:
    run = _pipeline().run

    async def guarded() -> int:
        return await run(call, input_tokens=900, output_tokens=400)

    return guarded


def our_pipeline_opened(call: Call) -> Call:
    """As the model client uses it: the call settles what it really took."""
    pipeline = _pipeline()

    async def guarded() -> int:
        deadline = pipeline.deadline()
        try:
            operation = Operation(deadline, input_tokens=900, output_tokens=400, priority=Priority.NORMAL)
            held = await pipeline.open(call, operation)
            held.succeed(input_tokens=880, output_tokens=350)
            return held.value
        finally:
            deadline.close()

    return guarded


def our_pipeline_like_theirs(call: Call) -> Call:
    """No shedder and no budget, which the other stacks do not have either."""
    run = _pipeline(shedder=None, budget=None).run

    async def guarded() -> int:
        return await run(call, input_tokens=900, output_tokens=400)

    return guarded


def tenacity_stack(call: Call) -> Call:
    return tenacity_retry(aiolimiter_limiter(aiobreaker_breaker(asyncio_timeout(call))))


def stamina_stack(call: Call) -> Call:
    return stamina_retry(aiolimiter_limiter(purgatory_breaker(asyncio_timeout(call))))


def hyx_stack(call: Call) -> Call:
    return hyx_retry(hyx_limiter(hyx_breaker(hyx_bulkhead(hyx_timeout(call)))))


OURS = "AgentFlow"
PRIMITIVES: dict[str, dict[str, tuple[Make, tuple[str, ...]]]] = {
    "retry": {
        OURS: (our_retry, ()),
        "hyx": (hyx_retry, ("hyx",)),
        "stamina": (stamina_retry, ("stamina",)),
        "tenacity": (tenacity_retry, ("tenacity",)),
    },
    "breaker": {
        OURS: (our_breaker, ()),
        "hyx": (hyx_breaker, ("hyx",)),
        "aiobreaker": (aiobreaker_breaker, ("aiobreaker",)),
        "purgatory": (purgatory_breaker, ("purgatory",)),
    },
    "limiter": {
        OURS: (our_limiter, ()),
        f"{OURS}, tokens too, settled": (our_limiter_of_tokens, ()),
        "hyx": (hyx_limiter, ("hyx",)),
        "aiolimiter": (aiolimiter_limiter, ("aiolimiter",)),
        "limits": (limits_limiter, ("limits",)),
        "pyrate-limiter": (pyrate_limiter, ("pyrate_limiter",)),
    },
    "time-out": {
        OURS: (our_limit, ()),
        "asyncio.timeout": (asyncio_timeout, ()),
        "asyncio.wait_for": (asyncio_wait_for, ()),
        "hyx": (hyx_timeout, ("hyx",)),
    },
    "places": {
        f"{OURS}, fixed": (our_bulkhead, ()),
        f"{OURS}, AIMD": (our_shedder, ()),
        "asyncio.Semaphore": (semaphore, ()),
        "hyx": (hyx_bulkhead, ("hyx",)),
    },
    "pool": {OURS: (our_pool, ()), "asyncio.Queue by hand": (queue_as_pool, ())},
}
PIPELINE = "AgentFlow's pipeline, everything on"
TENACITY = "tenacity, aiolimiter, aiobreaker, asyncio.timeout"
HYX = "hyx: retry, limiter, breaker, bulkhead, time-out"
STACKS: dict[str, tuple[Make, tuple[str, ...]]] = {
    PIPELINE: (our_pipeline, ()),
    "the same, settled as a model call is": (our_pipeline_opened, ()),
    "the same without what the others lack": (our_pipeline_like_theirs, ()),
    HYX: (hyx_stack, ("hyx",)),
    "stamina, aiolimiter, purgatory, asyncio.timeout": (stamina_stack, ("stamina", "aiolimiter", "purgatory")),
    TENACITY: (tenacity_stack, ("tenacity", "aiolimiter", "aiobreaker")),
}


def made(candidates: dict[str, tuple[Make, tuple[str, ...]]], call: Call) -> dict[str, Call]:
    """Those whose libraries are here."""
    return {name: make(call) for name, (make, needs) in candidates.items() if _installed(*needs)}
