"""What a pipeline asks of a limiter, be it of this process or one that several share."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

__all__ = ["Limiter", "Reserved"]


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
