"""Another way where one has failed: candidates in order, each with the errors it answers for.

    answer = Fallback(
        Candidate("large", ask_large),
        Candidate("long", ask_long, when=(ContextLengthError,)),      passed over for other errors
        Candidate("local", ask_local),
    )
    await answer.run(question)

    @Fallback(Candidate("local", ask_local))          # the decorated function comes first
    async def ask(question: str) -> str: ...

A candidate without conditions answers for what another model may not have (`falls_back`): limits, overload, failures,
time-outs, refusals of our own guards, an unknown model, a wrong key, a prompt that is too long. What is wrong with the
request itself, and whatever is no error of a model, is raised at once, and so is the caller's cancellation.

Where no candidate is left, the last error itself is raised, with the earlier ones as notes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, Generic, ParamSpec, TypeAlias, TypeVar

from agentflow.core.robustness.decision import Listener, tell
from agentflow.core.robustness.notes import add_notes, brief
from agentflow.errors import (
    AuthenticationError,
    BudgetExceededError,
    BudgetUnavailableError,
    ContextLengthError,
    ModelConnectionError,
    NotFoundError,
    OperationTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RejectedError,
    ServerError,
)

__all__ = ["Candidate", "Condition", "Fallback", "falls_back"]

P = ParamSpec("P")
R = TypeVar("R")

Condition: TypeAlias = tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Types of errors, or a question asked of the error that came before."""

_ELSEWHERE: Final = (
    AuthenticationError,
    ContextLengthError,
    ModelConnectionError,
    NotFoundError,
    OperationTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RejectedError,
    ServerError,
)
_NOWHERE: Final = (BudgetExceededError, BudgetUnavailableError)


def falls_back(error: BaseException) -> bool:
    """Whether another model may succeed where this one failed so. A spent budget is no reason to spend elsewhere:
    whoever wants that says so."""
    return isinstance(error, _ELSEWHERE) and not isinstance(error, _NOWHERE)


@dataclass(frozen=True, slots=True)
class Candidate(Generic[P, R]):
    """One way to do it. `when` says for which errors of those before it; it is not asked of the first."""

    name: str
    function: Callable[P, Awaitable[R]]
    when: Condition = falls_back

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function of candidate {self.name!r} is an async function, not {self.function!r}")
        if not _is_condition(self.when):
            raise TypeError(f"when of candidate {self.name!r} is a tuple of exception types or a predicate")

    def answers_for(self, error: Exception) -> bool:
        return isinstance(error, self.when) if isinstance(self.when, tuple) else bool(self.when(error))


class Fallback(Generic[P, R]):
    """Frozen, and shared by all calls. Tells `fallback` with the names (`source`, `target`) and the error's."""

    __slots__ = ("_candidates", "_listener", "name")

    def __init__(self, *candidates: Candidate[P, R], name: str = "fallback", listener: Listener | None = None) -> None:
        if not candidates:
            raise ValueError("a Fallback needs at least one Candidate, found none")
        self._candidates = candidates
        self.name = name
        self._listener = listener

    @property
    def summary(self) -> str:
        """In a few words."""
        return " → ".join(candidate.name for candidate in self._candidates)

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the first candidate that succeeds returns; each is called with these arguments."""
        return await self._first(self._candidates, lambda function: function(*args, **kwargs))

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The async function, with the candidates behind it."""
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is an async generator, whose calls cannot fail")
        candidates = (Candidate(getattr(function, "__name__", "function"), function), *self._candidates)

        @wraps(function)
        async def covered(*args: P.args, **kwargs: P.kwargs) -> R:
            return await self._first(candidates, lambda function: function(*args, **kwargs))

        return covered

    async def _first(
        self,
        candidates: Sequence[Candidate[P, R]],
        call: Callable[[Callable[P, Awaitable[R]]], Awaitable[R]],
    ) -> R:
        place = 0
        earlier: list[str] = []
        while True:
            try:
                return await call(candidates[place].function)
            except Exception as error:
                following = _next(candidates, place, error)
                if following is None:
                    add_notes(error, earlier)
                    raise
                earlier.append(f"{candidates[place].name} failed before: {brief(error)}")
                facts = {"source": candidates[place].name, "target": candidates[following].name}
                tell(self._listener, "fallback", self.name, **facts, error=type(error).__name__)
            place = following


def _next(candidates: Sequence[Candidate[P, R]], place: int, error: Exception) -> int | None:
    """The next candidate that answers for the error."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return None  # somebody made another error of the caller's cancellation
    later = range(place + 1, len(candidates))
    return next((number for number in later if candidates[number].answers_for(error)), None)


def _is_condition(condition: object) -> bool:
    if isinstance(condition, tuple):
        return all(isinstance(kind, type) and issubclass(kind, Exception) for kind in condition)
    return callable(condition) and not isinstance(condition, type)  # a type would agree to every error
