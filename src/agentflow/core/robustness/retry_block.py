"""Attempts as blocks of code, where a function to call would be in the way.

    async for attempt in policy.attempts(timeout=60):
        with attempt:
            answer = await ask(question)

The loop ends after the block that succeeds, or with the error of the last one.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from contextvars import Token
from types import TracebackType

from agentflow.clock import Clock
from agentflow.core.robustness.attempt import Attempt, current_attempt
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.repetition import Repetition
from agentflow.core.robustness.retry_rules import RetryRules

__all__ = ["Attempts", "Trial"]


class Attempts:
    """The attempts of one operation, waiting between them. Made by `RetryPolicy.attempts`."""

    __slots__ = ("_clock", "_deadline", "_ended", "_expires", "_repetition", "_timeout", "_wait")

    def __init__(self, policy: RetryRules, clock: Clock, timeout: float | None) -> None:
        self._repetition = Repetition(policy, Attempt(policy), clock)
        self._clock = clock
        self._timeout = timeout
        self._deadline: Deadline | None = None
        self._expires = math.inf
        self._wait: float | None = None
        self._ended = False

    @property
    def attempt(self) -> Attempt:
        return self._repetition.attempt

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Trial:
        if self._ended:
            raise StopAsyncIteration
        if self._wait is None:
            self._begin()
        else:
            await self._clock.sleep(self._wait)
        self._ended = True  # unless the block fails and may be repeated
        return Trial(self)

    def enter(self) -> None:
        """A block begins."""
        if self._deadline is not None:
            self._deadline.end_at(self._expires)
            self._deadline.__enter__()

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """A block has ended. Whether it failed, and is going to be repeated."""
        try:
            self._wait = self._next_wait(kind, error, trace)
        finally:
            if self._deadline is not None:
                self._deadline.close()  # between blocks no timer is left behind, should the loop be left there
        self._ended = self._wait is None
        return not self._ended

    def _next_wait(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> float | None:
        try:
            if self._deadline is not None:
                self._deadline.__exit__(kind, error, trace)
        except Exception as late:
            self._repetition.after(late)
            raise
        return self._repetition.after(error) if isinstance(error, Exception) else None

    def _begin(self) -> None:
        policy = self._repetition.policy
        if policy.budget is not None:
            policy.budget.request()
        if self._timeout is not None:
            self._deadline = self._repetition.deadline = Deadline(self._timeout, policy.name)
            self._expires = asyncio.get_running_loop().time() + self._timeout


class Trial:
    """One attempt of a block: `with attempt: …`. It keeps a failure back where the block may be repeated."""

    __slots__ = ("_attempts", "_token")

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._token: Token[Attempt | None] | None = None

    @property
    def number(self) -> int:
        """From 1."""
        return self._attempts.attempt.number

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts."""
        return self._attempts.attempt.idempotency_key

    def __enter__(self) -> Trial:
        self._attempts.enter()
        self._token = current_attempt.set(self._attempts.attempt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._token is not None:
            with suppress(ValueError):  # a generator that is left behind is closed in another context
                current_attempt.reset(self._token)
        return self._attempts.leave(kind, error, trace)
