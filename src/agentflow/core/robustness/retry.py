"""How often to try again, how long to wait in between, and doing so.

    policy = RetryPolicy(max_attempts=4, retry_on=(OSError,))

    answer = await policy.run(lambda: ask(question))            a call

    @policy                                                     a function
    async def ask(question: str) -> str: ...

    async for attempt in policy.attempts(timeout=60):           a block
        with attempt:
            answer = await ask(question)

Whoever repeats raises the last failure itself, with the earlier ones as notes. It gives up at once where the next wait
would outlast the time that is left, or where the retry budget is used up. A cancellation passes through untouched.

In nested calls the innermost layer repeats, and no other (attempt.py). The rules alone, for those who repeat by
themselves, are `allows` and `wait_for`, or `Repetition`, which keeps count as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.attempt import Attempt, current_attempt
from agentflow.core.robustness.repetition import Repetition
from agentflow.core.robustness.retry_rules import Jitter, RetryOn, RetryRules

if TYPE_CHECKING:
    from agentflow.core.robustness.retry_block import Attempts

__all__ = ["Jitter", "Repetition", "RetryOn", "RetryPolicy", "inherited_policy"]

P = ParamSpec("P")
R = TypeVar("R")

_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class RetryPolicy(RetryRules):
    """A number of attempts and the waits between them.

    `max_attempts` counts the first one: 1 means no retry. The wait after attempt n has the bound
    b = min(max_delay, base_delay · 2ⁿ⁻¹) seconds and is drawn from

        full            [0, b]
        equal           [b/2, b]
        decorrelated    [base_delay, 3 · the wait before], at most max_delay
        none            b itself

    (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). What the server asks for in
    `error.retry_after` is a floor.

    `retry_on` says which errors are worth repeating: those of some types, or those a predicate agrees to. None is all
    but those that say they are not (`error.retryable is False`) and refusals of our own guards (RejectedError).
    `after_first_chunk`: a stream that breaks after its first chunk was delivered is begun anew, and the first chunk of
    its new beginning says so (`StreamChunk.restart`); otherwise it is not repeated. `budget` is shared with other
    calls. `name` and `listener` are for events: `retry`, with attempt, error and delay.
    """

    async def run(
        self, function: Callable[[], Awaitable[R]], *, clock: Clock = _CLOCK, timeout: float | None = None
    ) -> R:
        """What `function` returns, after as many attempts as that takes.

        `timeout` bounds all attempts and waits together, in seconds of the event loop. Raises the last failure, the
        same object, with the earlier ones as notes; an OperationTimeoutError where the time was up first.
        """
        if timeout is not None:
            return await self._within(function, clock, timeout)
        attempt = Attempt(self)
        repetition: Repetition | None = None
        if self.budget is not None:
            self.budget.request()
        while True:
            token = current_attempt.set(attempt)
            try:
                return await function()
            except Exception as error:
                repetition = repetition or Repetition(self, attempt, clock)
                wait = repetition.after(error)
                if wait is None:
                    raise
            finally:
                try:  # noqa: SIM105 - suppress() would cost each attempt
                    current_attempt.reset(token)
                except ValueError:  # closed from outside, in another context
                    pass
            await clock.sleep(wait)

    async def _within(self, function: Callable[[], Awaitable[R]], clock: Clock, timeout: float) -> R:
        async for trial in self.attempts(clock=clock, timeout=timeout):
            with trial:
                return await function()
        raise AssertionError("the last attempt returns or raises")

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The async function, tried again on each call."""
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is an async generator, whose calls cannot fail: repeat its steps")

        @wraps(function)
        async def repeated(*args: P.args, **kwargs: P.kwargs) -> R:
            return await self.run(lambda: function(*args, **kwargs))

        return repeated

    def attempts(self, *, clock: Clock = _CLOCK, timeout: float | None = None) -> Attempts:
        """`async for attempt in policy.attempts(): with attempt: …`; the loop ends after the block that succeeds."""
        from agentflow.core.robustness.retry_block import Attempts

        return Attempts(self, clock, timeout)


def inherited_policy() -> RetryPolicy | None:
    """The nearest policy that a layer around this code was explicitly given: a layer without one takes it over."""
    attempt = current_attempt.get()
    while attempt is not None:
        if isinstance(attempt.policy, RetryPolicy):
            return attempt.policy
        attempt = attempt.outer
    return None
