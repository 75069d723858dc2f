"""What a batch has cost, divided among those who asked: by their tokens, and so that nothing is lost by rounding.

portions(100, [1, 1, 1])  ──▶  34, 33, 33
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentflow.core.limits import Ledger, Limits

__all__ = ["BatchBill", "portions", "share"]


def portions(amount: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers that add up to `amount`, in proportion to the weights (largest remainders)."""
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    made = [amount * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda at: -(amount * weights[at] % whole))
    for at in by_remainder[: amount - sum(made)]:
        made[at] += 1
    return made


def share(amount: float | None, weight: int, weights: Sequence[int]) -> float | None:
    """The part of an amount that nobody needs to be exact to the last bit."""
    if amount is None:
        return None
    whole = math.fsum(weights)
    return amount * weight / whole if whole else amount / len(weights)


class BatchBill(Ledger):
    """What the requests of one batch have cost together. `cost` is None where nobody knows it of one of them."""

    __slots__ = ("unknown",)

    def __init__(self) -> None:
        super().__init__(Limits())
        self.unknown = False

    def spend(self, tokens: int, dollars: float | None) -> None:
        super().spend(tokens, dollars)
        self.unknown = self.unknown or dollars is None

    @property
    def cost(self) -> float | None:
        return None if self.unknown else self.dollars

    def divide(self, among: Sequence[tuple[Ledger, ...]], weights: Sequence[int]) -> None:
        """Note it in the ledgers of those who asked; nothing where nobody has kept account."""
        if not self.requests:
            return
        for ledgers, tokens, weight in zip(among, portions(self.tokens, weights), weights, strict=True):
            for ledger in ledgers:
                ledger.take_over(1, tokens, share(self.cost, weight, weights))
