"""A limiter's buckets as the scripts take them: name, capacity, what flows in a second, and an amount, for each."""

from __future__ import annotations

from collections.abc import Sequence

from agentflow.core.robustness.buckets import QUANTITIES, Need
from agentflow.integrations.valkey.remote import Argument

__all__ = ["Levels"]

_Rates = tuple[float | None, float | None, float | None, float | None]


class Levels:
    """`rates` are those of core's Buckets: a minute's amount of each quantity, None where it is not counted."""

    __slots__ = ("_buckets", "_rates")

    def __init__(self, rates: _Rates, burst: float) -> None:
        self._rates = rates
        self._buckets = [(index, rate * burst, rate / 60) for index, rate in enumerate(rates) if rate is not None]

    def __str__(self) -> str:
        named = zip(QUANTITIES, self._rates, strict=True)
        return ", ".join(f"{rate:,g} {name.replace('_', ' ')}/min" for name, rate in named if rate)

    def counts(self, quantities: Sequence[int]) -> bool:
        """Whether any of them has a bucket."""
        return any(index in quantities for index, _, _ in self._buckets)

    def groups(self, amounts: Sequence[float]) -> list[Argument]:
        """For a script. Always all buckets: their levels are of one moment."""
        return [
            argument
            for index, capacity, per_second in self._buckets
            for argument in (QUANTITIES[index], capacity, per_second, amounts[index])
        ]

    def too_much(self, need: Need) -> str | None:
        """What of it is never there at once, in words; None where all may be."""
        for index, capacity, _ in self._buckets:
            if need[index] > capacity:
                name = QUANTITIES[index]
                words = name.replace("_", " ")
                return f"{need[index]:,} {words} at once are more than {name}_per_minute × burst = {capacity:,g}"
        return None
