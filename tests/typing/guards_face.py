"""Guards that several processes share stand in for those of one. Checked by mypy --strict and pyright, never run."""

from __future__ import annotations

from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.limiter_chain import LimiterChain
from agentflow.core.robustness.limiting import Breaker, Limiter
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.integrations.valkey import ValkeyRateLimiter
from agentflow.integrations.valkey.breaker import SharedBreaker


def limiters(own: RateLimiter, shared: ValkeyRateLimiter, both: LimiterChain) -> tuple[Limiter, Limiter, Limiter]:
    return own, shared, both


def breakers(own: CircuitBreaker, shared: SharedBreaker) -> tuple[Breaker, Breaker]:
    return own, shared
