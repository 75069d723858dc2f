"""Which attempt of which operation this is, for whoever runs inside it: one owner of retries, one idempotency key.

    node, retry=3            Attempt ◀── outer ── Attempt            LLMClient, inside it
                             repeats what nobody inside repeats       repeats its own call, and marks what it gave up

The innermost layer repeats. What it has repeated to the end, or would not repeat, it marks (`mark_owned`), and no layer
around it tries that error again: three layers with three attempts make three calls, not 27. A layer without a policy of
its own takes over the nearest one around it (`inherited_policy`, in retry.py).

The variable is set around each step that is awaited, and reset after it:

    token = current_attempt.set(attempt)
    try:
        return await function()
    finally:
        current_attempt.reset(token)      # never across a `yield`: a generator's consumer would see it
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from agentflow.core.durability.step import current_step
from agentflow.core.robustness.deadline import Deadline
from agentflow.process_worker import carried_key

if TYPE_CHECKING:
    from agentflow.core.observability.scope import Scope

__all__ = [
    "Account",
    "Attempt",
    "current_attempt",
    "idempotency_key",
    "is_owned",
    "mark_owned",
    "note_connecting",
    "note_pool_wait",
]


class Account(Protocol):
    """Where the seconds of an operation go, and when its call began."""

    pool: float
    connect: float
    begun: float


class Attempt:
    """One operation under way. `number` counts its attempts, from 1; whoever repeats it counts up.

    `policy` is the retry policy that its layer was explicitly given, None where it was given none. `began` is the
    machine's monotonic time: a mark that is older belongs to another operation. `account` is where the time of the
    operation is written down, `deadline` what bounds it, `resource` a pool and what it has lent, `scope` where whoever
    watches hears of it. `key` is its idempotency key, where that is known already.
    """

    __slots__ = ("_key", "account", "began", "deadline", "number", "outer", "policy", "resource", "scope")

    def __init__(self, policy: object | None = None, key: str | None = None) -> None:
        self.number = 1
        self.policy = policy
        self.outer = current_attempt.get()
        self.began = monotonic()
        self.account: Account | None = None
        self.deadline: Deadline | None = None
        self.resource: object = None
        self.scope: Scope | None = None
        self._key = key

    def follow(self, attempts: int, prior: Attempt | None) -> None:
        """So many attempts of the operation were made already; `prior` is the one that broke after it had begun."""
        self.number = attempts + 1
        if prior is not None:
            self._key = prior._key

    @property
    def idempotency_key(self) -> str:
        """32 hexadecimal digits, the same for all attempts of this operation, and for no other's."""
        if self._key is None:
            from uuid import uuid4  # slow to import, and seldom needed

            self._key = uuid4().hex
        return self._key

    def __repr__(self) -> str:
        return f"<attempt {self.number}>"


current_attempt: ContextVar[Attempt | None] = ContextVar("agentflow_attempt", default=None)
"""The innermost attempt that this code runs in."""


def idempotency_key() -> str | None:
    """The key of the operation around: the same at each of its attempts. None outside of any.

    In a step of a durable run it is the same whenever the step runs, in whatever process, so that what the step asks
    of others is not done twice. In a worker process it is the one of the node that works there.
    """
    attempt, step = current_attempt.get(), current_step.get()
    if attempt is not None:
        return attempt.idempotency_key
    return carried_key() if step is None else step.idempotency_key


def note_pool_wait(seconds: float) -> None:
    """This code has waited so long for a connection, or for something else that is pooled: the nearest layer around
    that keeps an account writes it down."""
    attempt = _accounting()
    if attempt is not None and attempt.account is not None:
        attempt.account.pool += seconds
        attempt.account.begun += seconds  # whoever is called was not called yet
        if attempt.scope is not None:
            attempt.scope.note(pool=seconds)


def note_connecting(seconds: float) -> None:
    """This code has taken so long to open a connection; written down as `note_pool_wait` does."""
    attempt = _accounting()
    if attempt is not None and attempt.account is not None:
        attempt.account.connect += seconds
        attempt.account.begun += seconds
        if attempt.scope is not None:
            attempt.scope.note(connect=seconds)


def _accounting() -> Attempt | None:
    """The nearest layer around that keeps an account."""
    attempt = current_attempt.get()
    while attempt is not None and attempt.account is None:
        attempt = attempt.outer
    return attempt


_MARK: Final = "_repeated_at"
_DEEPEST: Final = 100  # causes; a chain may be a ring


def mark_owned(error: BaseException) -> None:
    """This error has been repeated as often as it shall be: no layer further out is to do so again."""
    with suppress(Exception):  # an exception class may refuse attributes
        # Not setattr: a frozen dataclass may be an exception, too.
        object.__setattr__(error, _MARK, monotonic())


def is_owned(error: BaseException, since: float = 0.0) -> bool:
    """Whether a layer further in has repeated this error, or the one that caused it, to the end.

    `since` is the `began` of who asks: an error object that is kept and raised again and again keeps its mark, and one
    from an earlier operation says nothing about this one. A group is owned where one of its errors is.
    """
    cause: BaseException | None = error
    for _ in range(_DEEPEST):
        if cause is None:
            return False
        if getattr(cause, _MARK, -1.0) >= since:
            return True
        if isinstance(cause, BaseExceptionGroup) and any(is_owned(each, since) for each in cause.exceptions):
            return True
        cause = cause.__cause__
    return False
