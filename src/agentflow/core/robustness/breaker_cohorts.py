"""How many of the calls that began together have failed: what answers that are slower than failures cannot distort.

    calls in the order of beginning   │ ✓ ▣ … ✓ … ✓ │ … … ▣ … … … │ …          ✓ good, ▣ failed, … under way
                                        cohort 0        cohort 1      cohort 2

    cohorts.failed(number)           the call of that number (from 1) failed
    cohorts.dropped(number)          it never counts
    cohorts.share(number, begun)     the share that failed, of its cohort and of the one before

Where failures come back in an instant and answers take a minute, the last calls that ended may be failures alone
though one of twenty fails. Of the calls that began together it is one of twenty at any time: one that is under way has
not failed yet. Nothing is kept of a cohort until one of its calls fails or is dropped.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Cohorts"]

_KEPT: Final = 4_096  # cohorts; whoever has more calls than that under way forgets the first that were noted


class Cohorts:
    """Groups of `size` calls each. No lock in here."""

    __slots__ = ("_noted", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._noted: dict[int, list[int]] = {}  # cohort: [failed, dropped]

    def failed(self, number: int) -> None:
        self._note(number, 0)

    def dropped(self, number: int) -> None:
        self._note(number, 1)

    def share(self, number: int, begun: int) -> float:
        """Of those that have begun so far, `begun` in all: a cohort that has only just begun would not say much."""
        cohort = (number - 1) // self._size
        first, last = max(0, cohort - 1) * self._size, min((cohort + 1) * self._size, begun)
        failed = dropped = 0
        for each in (cohort - 1, cohort):
            if (noted := self._noted.get(each)) is not None:
                failed, dropped = failed + noted[0], dropped + noted[1]
        return failed / max(1, last - first - dropped)

    def _note(self, number: int, what: int) -> None:
        cohort = (number - 1) // self._size
        noted = self._noted.get(cohort)
        if noted is None:
            if len(self._noted) >= _KEPT:
                del self._noted[next(iter(self._noted))]
            noted = self._noted[cohort] = [0, 0]
        noted[what] += 1
