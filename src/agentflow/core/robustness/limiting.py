"""What a pipeline asks of a limiter and of a breaker, be they of this process or shared by several."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from agentflow.core.robustness.breaker_state import BreakerState
from agentflow.core.robustness.circuit_breaker import Permit

__all__ = ["Breaker", "Limiter", "Reserved"]


class Reserved(Protocol):
    """Requests and tokens taken, and a slot held, until one of the three is called; all are synchronous."""

    @property
    def waited(self) -> float: ...

    def settle(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> None: ...

    def cancel(self) -> None: ...

    def release(self) -> None: ...


class Limiter(Protocol):
    """`RateLimiter` is one."""

    @property
    def counts_tokens(self) -> bool:
        """Whether it is worth estimating how many tokens a call takes."""
        ...

    def try_reserve(self, *, requests: int = 1, input_tokens: int = 0, output_tokens: int = 0) -> Reserved | None: ...

    def reserve(
        self, *, requests: int = 1, input_tokens: int = 0, output_tokens: int = 0, timeout: float | None = None
    ) -> Awaitable[Reserved]: ...

    def drain(self, seconds: float) -> None: ...


class Breaker(Protocol):
    """`CircuitBreaker` is one."""

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> BreakerState: ...

    @property
    def retry_after(self) -> float | None: ...

    @property
    def announced(self) -> BreakerState:
        """The state that whoever watches calls was told last."""
        ...

    @announced.setter
    def announced(self, state: BreakerState, /) -> None: ...

    def check(self) -> None: ...

    def acquire(self) -> Permit: ...
