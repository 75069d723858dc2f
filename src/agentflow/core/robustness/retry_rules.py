"""Which failures are worth another attempt, and how long to wait before it: the rules of a retry policy alone.

rules.allows(attempt, error)               whether to try again
rules.wait_for(attempt, error, chance)     seconds, `chance` being uniform in [0, 1)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from agentflow.core.robustness.attempt import is_owned
from agentflow.core.robustness.decision import Listener
from agentflow.core.robustness.retry_budget import RetryBudget
from agentflow.errors import RejectedError, StreamInterruptedError

__all__ = ["Jitter", "RetryOn", "RetryRules"]

Jitter: TypeAlias = Literal["full", "equal", "decorrelated", "none"]
RetryOn: TypeAlias = tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Types of errors, or a question asked of each error."""

_LARGEST: Final = sys.float_info.max


@dataclass(frozen=True, slots=True)
class RetryRules:
    """The fields of a `RetryPolicy`, which says what they mean."""

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

    def _bound(self, attempt: int) -> float:
        # The exponent is capped so that a long outage cannot overflow a float.
        return min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 1000))


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
