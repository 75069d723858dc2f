"""The guards that the scenarios compare, each made anew for a run."""

from __future__ import annotations

from collections.abc import Callable

from agentflow.clock import Clock
from agentflow.core.robustness.adaptive_limit import AIMD, Fixed, Gradient2, Limit
from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.load_shedder import LoadShedder
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.retry_budget import RetryBudget
from agentflow.errors import ModelError

from .provider import Terms
from .world import Guards

__all__ = ["breaking", "by_default", "limited", "obeying", "plain", "retrying", "shedding"]

Make = Callable[[Clock], Guards]

_PLACES, _MOST_PLACES = 1_000, 10_000  # as the client begins for a remote model


def plain() -> Make:
    """One attempt, and the caller's patience: nothing that could help or harm."""
    return lambda clock: Guards(Pipeline("plain", clock=clock))


def by_default(*, attempt_timeout: float | None = None) -> Make:
    """What the LLM client puts around every call without a word of configuration."""

    def make(clock: Clock) -> Guards:
        limiter = RateLimiter(clock=clock)
        pipeline = Pipeline(
            "default",
            shedder=LoadShedder(limit=AIMD(initial=_PLACES, maximum=_MOST_PLACES), target_wait=None, clock=clock),
            retry=RetryPolicy(),
            budget=RetryBudget(clock=clock),
            repeats=(ModelError,) if attempt_timeout is None else (Exception,),
            limiter=limiter,
            breaker=CircuitBreaker(clock=clock),
            attempt_timeout=attempt_timeout,
            clock=clock,
        )
        return Guards(pipeline, limiter)

    return make


def retrying(attempts: int = 3, *, budget: bool = False, attempt_timeout: float | None = None) -> Make:
    """Retries, and nothing else unless a budget."""
    return lambda clock: Guards(
        Pipeline(
            "retry",
            retry=RetryPolicy(attempts),
            budget=RetryBudget(clock=clock) if budget else None,
            attempt_timeout=attempt_timeout,
            clock=clock,
        )
    )


def limited(terms: Terms) -> Make:
    """Retries, and a limiter that knows what the provider grants."""

    def make(clock: Clock) -> Guards:
        limiter = RateLimiter(
            requests_per_minute=terms.requests_per_minute,
            tokens_per_minute=terms.tokens_per_minute,
            burst=terms.burst,
            clock=clock,
        )
        return Guards(Pipeline("limited", retry=RetryPolicy(), limiter=limiter, clock=clock), limiter)

    return make


def obeying() -> Make:
    """Retries, and a limiter that knows nothing but what the provider says: heads of answers, and Retry-After."""

    def make(clock: Clock) -> Guards:
        limiter = RateLimiter(clock=clock)
        return Guards(Pipeline("obeying", retry=RetryPolicy(), limiter=limiter, clock=clock), limiter)

    return make


def breaking(
    attempts: int = 3, *, open_for: float = 3.0, budget: bool = False, attempt_timeout: float | None = None
) -> Make:
    """Retries and a circuit breaker."""
    return lambda clock: Guards(
        Pipeline(
            "breaking",
            retry=RetryPolicy(attempts),
            budget=RetryBudget(clock=clock) if budget else None,
            breaker=CircuitBreaker(open_for=open_for, clock=clock),
            attempt_timeout=attempt_timeout,
            clock=clock,
        )
    )


def shedding(limit: Callable[[], Limit], *, target_wait: float | None = 5.0) -> Make:
    """Retries with a budget, and a load shedder."""
    return lambda clock: Guards(
        Pipeline(
            "shedding",
            shedder=LoadShedder(limit=limit(), target_wait=target_wait, clock=clock),
            retry=RetryPolicy(),
            budget=RetryBudget(clock=clock),
            clock=clock,
        )
    )


def aimd() -> Limit:
    return AIMD(initial=20, maximum=200)


def gradient() -> Limit:
    return Gradient2(initial=20, maximum=200)


def fixed(places: int) -> Callable[[], Limit]:
    return lambda: Fixed(places)
