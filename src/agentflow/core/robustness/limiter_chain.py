"""Two limiters for one call: both must let it through.

    LimiterChain(own, common)      own: this model's, which obeys the server; common: the numbers of the whole account

The own one is asked first and hears of refusals; the common one counts. Nothing is held of either when one refuses.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from agentflow.core.robustness.limiting import Limiter, Reserved

__all__ = ["LimiterChain"]


class LimiterChain:
    """A `Limiter` made of two. Calls wait first for `own`, then for `common`: always in this order, so that no two of
    them wait for each other."""

    __slots__ = ("_common", "_own")

    def __init__(self, own: Limiter, common: Limiter) -> None:
        self._own = own
        self._common = common

    @property
    def summary(self) -> str:
        return f"{getattr(self._common, 'summary', self._common)} (all models of the provider together)"

    @property
    def counts_tokens(self) -> bool:
        return self._own.counts_tokens or self._common.counts_tokens

    def try_reserve(self, *, requests: int = 1, input_tokens: int = 0, output_tokens: int = 0) -> Reserved | None:
        own = self._own.try_reserve(requests=requests, input_tokens=input_tokens, output_tokens=output_tokens)
        if own is None:
            return None
        try:
            common = self._common.try_reserve(requests=requests, input_tokens=input_tokens, output_tokens=output_tokens)
        except BaseException:
            own.cancel()
            raise
        if common is None:
            own.cancel()
            return None
        return _Both(own, common)

    def reserve(
        self, *, requests: int = 1, input_tokens: int = 0, output_tokens: int = 0, timeout: float | None = None
    ) -> Coroutine[Any, Any, Reserved]:
        return self._reserve(requests, input_tokens, output_tokens, timeout)

    async def _reserve(self, requests: int, input_tokens: int, output_tokens: int, timeout: float | None) -> Reserved:
        own = await self._own.reserve(
            requests=requests, input_tokens=input_tokens, output_tokens=output_tokens, timeout=timeout
        )
        left = None if timeout is None else max(0.0, timeout - own.waited)
        try:
            common = await self._common.reserve(
                requests=requests, input_tokens=input_tokens, output_tokens=output_tokens, timeout=left
            )
        except BaseException:
            own.cancel()
            raise
        return _Both(own, common)

    def drain(self, seconds: float) -> None:
        """The server's word is about what was asked for, not about the account's other models."""
        self._own.drain(seconds)


class _Both:
    """Two reservations that end together."""

    __slots__ = ("_common", "_own")

    def __init__(self, own: Reserved, common: Reserved) -> None:
        self._own = own
        self._common = common

    @property
    def waited(self) -> float:
        return self._own.waited + self._common.waited

    def settle(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> None:
        self._own.settle(input_tokens=input_tokens, output_tokens=output_tokens)
        self._common.settle(input_tokens=input_tokens, output_tokens=output_tokens)

    def cancel(self) -> None:
        self._own.cancel()
        self._common.cancel()

    def release(self) -> None:
        self._own.release()
        self._common.release()
