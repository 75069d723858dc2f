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

import asyncio
import inspect
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Token
from dataclasses import dataclass, field
from functools import wraps
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, TypeAlias, TypeVar, get_args

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.attempt import Attempt, current_attempt, is_owned, mark_owned
from agentflow.core.robustness.deadline import Deadline, is_bounded_by
from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.notes import add_notes, brief
from agentflow.core.robustness.retry_budget import RetryBudget
from agentflow.errors import RejectedError, StreamInterruptedError

__all__ = ["Attempts", "Jitter", "Repetition", "RetryOn", "RetryPolicy", "Trial", "inherited_policy"]

P = ParamSpec("P")
R = TypeVar("R")

Jitter: TypeAlias = Literal["full", "equal", "decorrelated", "none"]
RetryOn: TypeAlias = tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Types of errors, or a question asked of each error."""

_CLOCK: Final = SystemClock()
_LARGEST: Final = sys.float_info.max


@dataclass(frozen=True, slots=True)
class RetryPolicy:
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

    max_attempts: int = 3
    base_delay: float = 0.5
    max_delay: float = 30.0
    jitter: Jitter = "full"
    retry_on: RetryOn | None = field(default=None, kw_only=True)
    after_first_chunk: bool = field(default=False, kw_only=True)
    budget: RetryBudget | None = field(default=None, kw_only=True, compare=False)
    name: str = field(default="retry", kw_only=True, compare=False, repr=False)
    listener: Listener | None = field(default=None, kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts counts the first attempt, so it is at least 1, not {self.max_attempts}")
        if not 0 <= self.base_delay < float("inf") or not 0 <= self.max_delay < float("inf"):
            raise ValueError("base_delay and max_delay are finite seconds, 0 or more")
        if self.jitter not in get_args(Jitter):
            raise ValueError(f'jitter is "full", "equal", "decorrelated" or "none", not {self.jitter!r}')
        if self.retry_on is not None and not _is_condition(self.retry_on):
            raise TypeError(f"retry_on is a tuple of exception types or a predicate of an error, not {self.retry_on!r}")

    @property
    def summary(self) -> str:
        """In a few words."""
        waits = f"waits from {self.base_delay:g} s to {self.max_delay:g} s, jitter {self.jitter}"
        return f"{self.max_attempts} attempts, {waits}"

    def delay(self, attempt: int, chance: float, previous: float | None = None) -> float:
        """Seconds to wait after the failed `attempt` (from 1); `chance` is uniform in [0, 1).

        `previous` is the wait before this one, which "decorrelated" alone asks for; None after the first attempt.
        """
        bound = self._bound(attempt)
        match self.jitter:
            case "full":
                return bound * chance
            case "equal":
                return bound / 2 * (1 + chance)
            case "decorrelated":
                base = self.base_delay
                widest = 3 * (base if previous is None else max(base, previous))
                return min(self.max_delay, base + chance * (widest - base))
            case _:
                return bound

    def wait_for(self, attempt: int, error: BaseException, chance: float, previous: float | None = None) -> float:
        """Seconds to wait after `attempt` failed with `error`: never less than its `retry_after`.

        All those that were refused together are told the same time, so up to the bound of this attempt comes on top,
        by chance (not with jitter "none"). A `retry_after` that is no finite number, or negative, counts as none.
        """
        delay = self.delay(attempt, chance, previous)
        floor = _told(error)
        if floor is None:
            return delay
        return max(delay, floor if self.jitter == "none" else floor + chance * self._bound(attempt))

    def allows(self, attempt: int, error: BaseException, since: float = 0.0) -> bool:
        """Whether to try again after `attempt` failed with `error`.

        What an inner layer has already repeated to the end is not repeated, whatever `retry_on` says; `since` is
        `Attempt.began`, so that older marks do not count.
        """
        if attempt >= self.max_attempts or is_owned(error, since):
            return False
        if isinstance(self.retry_on, tuple):
            return isinstance(error, self.retry_on)
        if self.retry_on is not None:
            return bool(self.retry_on(error))
        if self.after_first_chunk and isinstance(error, StreamInterruptedError):
            return True
        return getattr(error, "retryable", True) is not False and not isinstance(error, RejectedError)

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
                current_attempt.reset(token)
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
        return Attempts(self, clock, timeout)

    def _bound(self, attempt: int) -> float:
        # The exponent is capped so that a long outage cannot overflow a float.
        return min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 1000))


def inherited_policy() -> RetryPolicy | None:
    """The nearest policy that a layer around this code was explicitly given: a layer without one takes it over."""
    attempt = current_attempt.get()
    while attempt is not None:
        if isinstance(attempt.policy, RetryPolicy):
            return attempt.policy
        attempt = attempt.outer
    return None


class Repetition:
    """Keeps count for one operation: asked after each failure, it says how long to wait, or that this was the last.

    `attempt` is counted up with each repetition. The budget is told of the first attempt by whoever makes it.
    """

    __slots__ = ("_clock", "_earlier", "_previous", "attempt", "deadline", "policy")

    def __init__(self, policy: RetryPolicy, attempt: Attempt, clock: Clock, deadline: Deadline | None = None) -> None:
        self.policy = policy
        self.attempt = attempt
        self._clock = clock
        self.deadline = deadline
        self._earlier: list[str] = []
        self._previous: float | None = None

    def after(self, error: Exception) -> float | None:
        """Seconds until the next attempt. None: raise `error`, which has its notes and marks now."""
        wait = self._next_wait(error)
        if wait is None:
            self.give_up(error)
            return None
        policy, number = self.policy, self.attempt.number
        self._earlier.append(f"attempt {number} of {policy.max_attempts}: {brief(error)}; waited {wait:.3g} s")
        self._previous = wait
        self.attempt.number = number + 1
        tell(policy.listener, "retry", policy.name, attempt=number, error=type(error).__name__, delay=wait)
        return wait

    def _next_wait(self, error: Exception) -> float | None:
        policy, number = self.policy, self.attempt.number
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return None  # somebody made another error of the caller's cancellation
        if not policy.allows(number, error, self.attempt.began):
            return None
        wait = policy.wait_for(number, error, self._clock.random(), self._previous)
        if not self._has_time_for(wait):
            self._earlier.append(f"not tried again: the next wait, {wait:.3g} s, would outlast the time left")
            return None
        if policy.budget is not None and not policy.budget.try_spend():
            self._earlier.append("not tried again: the retry budget is used up")
            return None
        return wait

    def _has_time_for(self, wait: float) -> bool:
        if self.deadline is not None and not self.deadline.allows(wait):
            return False
        return not is_bounded_by(asyncio.get_running_loop().time() + wait)

    def give_up(self, error: Exception, why: str | None = None) -> None:
        """Mark and note what is raised now; `why` is a last note, where it might have been tried again."""
        if why is not None:
            self._earlier.append(why)
        if self.policy.max_attempts > 1:  # who never repeats leaves that to the layers around
            mark_owned(error)
        add_notes(error, self._earlier)


class Attempts:
    """The attempts of one operation, waiting between them. Made by `RetryPolicy.attempts`."""

    __slots__ = ("_clock", "_deadline", "_ended", "_expires", "_repetition", "_timeout", "_wait")

    def __init__(self, policy: RetryPolicy, clock: Clock, timeout: float | None) -> None:
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


def _is_condition(condition: object) -> bool:
    if isinstance(condition, tuple):
        return all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in condition)
    return callable(condition) and not isinstance(condition, type)  # a type would agree to every error


def _told(error: BaseException) -> float | None:
    """The seconds that the server asks for, where that is a number to be believed."""
    seconds = getattr(error, "retry_after", None)
    if not isinstance(seconds, int | float) or not 0 <= seconds <= _LARGEST:
        return None
    return float(seconds)
