"""How often to try again, and how long to wait in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A number of attempts and the waits between them.

    `max_attempts` counts the first one: 1 means no retry. The wait before attempt n+1 is drawn from
    [0, min(max_delay, base_delay · 2ⁿ⁻¹)] seconds ("full jitter", Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015), or is that bound itself with `jitter="none"`.
    """

    max_attempts: int = 3
    base_delay: float = 0.5
    max_delay: float = 30.0
    jitter: Literal["full", "none"] = "full"

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts counts the first attempt, so it is at least 1, not {self.max_attempts}")
        if not 0 <= self.base_delay < float("inf") or not 0 <= self.max_delay < float("inf"):
            raise ValueError("base_delay and max_delay are finite seconds, 0 or more")
        if self.jitter not in ("full", "none"):
            raise ValueError(f'jitter is "full" or "none", not {self.jitter!r}')

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after the failed `attempt` (from 1); `chance` is uniform in [0, 1)."""
        # The exponent is capped so that a long outage cannot overflow a float.
        bound = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 1000))
        return bound * chance if self.jitter == "full" else bound

    def allows(self, attempt: int, error: BaseException) -> bool:
        """Whether to try again after `attempt` failed with `error`.

        Errors that say they are not worth repeating (`error.retryable is False`) are not repeated.
        """
        return attempt < self.max_attempts and getattr(error, "retryable", True) is not False
