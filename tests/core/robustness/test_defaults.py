"""What a guard does that was told nothing, and how it describes itself. Both are read by people: the numbers stand in
the guide, and whoever changes one changes what every program does that relied on it."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest

from agentflow.core.robustness import (
    AIMD,
    Adaptive,
    Candidate,
    CircuitBreaker,
    CountWindow,
    Fallback,
    FaultInjector,
    Fixed,
    Gradient2,
    Hedge,
    LoadShedder,
    RateLimiter,
    ResourcePool,
    RetryBudget,
    RetryPolicy,
    TimeoutManager,
    TimeWindow,
)


@pytest.mark.parametrize(
    ("made", "defaults"),
    [
        (
            AIMD,
            {"initial": 20, "minimum": 1, "maximum": 1000, "decrease": 0.9, "increase": 1.0, "window": 1.0}
            | {"slow_start": True},
        ),
        (
            Gradient2,
            {"initial": 20, "minimum": 1, "maximum": 200, "tolerance": 1.5, "smoothing": 0.2, "long_window": 600}
            | {"queue": 4, "window": 1.0, "probe": 100},
        ),
        (Adaptive, {"percentile": 0.99, "factor": 2.0, "minimum": 1.0, "maximum": None, "samples": 50}),
        (
            CircuitBreaker,
            {"name": "breaker", "window": CountWindow(50), "min_calls": 10, "failure_rate": 0.5, "slow_call": None}
            | {"slow_rate": 0.8, "open_for": 3.0, "growth": 2.0, "max_open": 60.0, "jitter": 0.2}
            | {"half_open_calls": 3, "half_open_wait": 60.0, "classify": None},
        ),
        (CountWindow, {"size": 50}),
        (TimeWindow, {"seconds": 60.0, "buckets": 10}),
        (Fallback, {"name": "fallback"}),
        (
            FaultInjector,
            {"seed": 0, "latency": 0.0, "latency_rate": None, "error_rate": 0.0, "cut_rate": 0.0, "cut_after": 10}
            | {"enabled": True, "name": "faults"},
        ),
        (
            Hedge,
            {"after": None, "percentile": 0.95, "minimum_samples": 20, "max_hedges": 1, "budget": 0.1, "name": "hedge"},
        ),
        (
            LoadShedder,
            {"name": "shedder", "limit": None, "max_queue": None, "target_wait": 5.0, "max_lag": None},
        ),
        (
            RateLimiter,
            {"name": "limiter", "requests_per_minute": None, "tokens_per_minute": None, "concurrency": None}
            | {"input_tokens_per_minute": None, "output_tokens_per_minute": None, "burst": 1.0, "on_limit": "wait"},
        ),
        (
            ResourcePool,
            {"name": "pool", "size": 10, "close": None, "validate": None, "validate_after": 5.0}
            | {"validate_timeout": 5.0, "idle_timeout": 300.0, "max_lifetime": 1800.0, "lifetime_jitter": 0.1}
            | {"acquire_timeout": 30.0, "discard_on": (), "trace_leaks": False},
        ),
        (RetryBudget, {"ratio": 0.2, "minimum": 10, "window": 10.0, "name": "retry budget"}),
        (
            RetryPolicy,
            {"max_attempts": 3, "base_delay": 0.5, "max_delay": 30.0, "jitter": "full", "retry_on": None}
            | {"after_first_chunk": False, "budget": None, "name": "retry"},
        ),
        (TimeoutManager, {"timeouts": {}, "default": None, "adaptive": None, "name": "timeouts"}),
    ],
    ids=lambda made: getattr(made, "__name__", ""),
)
def test_what_it_is_told_nothing_of_is_as_the_guide_says(made: type, defaults: dict[str, Any]) -> None:
    told = {
        name: each.default
        for name, each in signature(made).parameters.items()
        if each.default is not each.empty and name not in ("clock", "listener", "error", "cut_error")
    }
    assert told == defaults


async def ask() -> None: ...


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        (
            CircuitBreaker(),
            "opens where 50% of 10 calls or more failed; for 3 s, then longer, up to 60 s",
        ),
        (
            CircuitBreaker(slow_call=30.0),
            "opens where 50% of 10 calls or more failed, or 80% took over 30 s; for 3 s, then longer, up to 60 s",
        ),
        (Fallback(Candidate("large", ask), Candidate("small", ask)), "large → small"),
        (FaultInjector(), "none"),
        (FaultInjector(latency=1.0, latency_rate=0.1, error_rate=0.05), "10% slow, 5% failing"),
        (FaultInjector(cut_rate=0.2, enabled=False), "20% cut (switched off)"),
        (Hedge(), "another request after the 95% percentile, for up to 10% of calls"),
        (Hedge(after=1.5, budget=0.2), "another request after 1.5 s, for up to 20% of calls"),
        (LoadShedder(limit=Fixed(7)), "7 calls at once (Fixed), any number waits"),
        (
            LoadShedder(limit=AIMD(), max_queue=3, max_lag=0.5),
            "20 calls at once (AIMD), at most 3 wait, or where the event loop is 0.5 s late",
        ),
        (RateLimiter(), "no limit of ours, but what the server says"),
        (
            RateLimiter(requests_per_minute=1000, output_tokens_per_minute=8000, concurrency=5, on_limit="raise"),
            "1,000 requests a minute, 8,000 output tokens a minute, 5 at once; refuses instead of waiting",
        ),
        (RetryBudget(), "retries up to 20% of calls, and 10 in 10 s always"),
        (RetryPolicy(), "3 attempts, waits from 0.5 s to 30 s, jitter full"),
        (ResourcePool(ask, name="db", size=4), "db: at most 4 at once"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_guard_says_in_a_few_words_what_it_does(guard: Any, words: str) -> None:
    assert guard.summary == words
