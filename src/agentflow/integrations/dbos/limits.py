"""How many runs of a queue may be under way, and how many may begin in some time."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["QueueLimits"]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """`concurrency` counts over all workers, `per_worker` in each; `starts` may begin in any `period` seconds, going on
    included. None does not limit. Parked runs count for nothing."""

    concurrency: int | None = None
    per_worker: int | None = None
    starts: int | None = None
    period: float = 1.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "per_worker", "starts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.period <= 0:
            raise ValueError("period must be more than 0 seconds")
