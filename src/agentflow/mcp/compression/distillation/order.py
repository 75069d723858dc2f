"""Which examples belong to which step: a function of the seed and the step alone, so that nothing has to be kept.

Order(1000, batch=16, seed=0).at(70)  →  the 16 examples of step 70

Every example comes once an epoch, in an order that is drawn anew for each; what does not fill a batch waits for the
next epoch.
"""

from __future__ import annotations

import hashlib

import torch

__all__ = ["Order", "mixed"]


class Order:
    """`count` examples, `batch` of them a step (all of them where there are fewer)."""

    __slots__ = ("_drawn", "_epoch", "batch", "count", "seed")

    def __init__(self, count: int, *, batch: int, seed: int) -> None:
        self.count = count
        self.batch = min(batch, count)
        self.seed = seed
        self._epoch = -1
        self._drawn = torch.empty(0, dtype=torch.int64)

    def at(self, step: int) -> torch.Tensor:
        """The indices of step `step`, counted from 0. Shape (batch,)."""
        epoch, number = divmod(step, self.count // self.batch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mixed(self.seed, "epoch", epoch))
            self._drawn = torch.randperm(self.count, generator=generator)
            self._epoch = epoch
        return self._drawn[number * self.batch : (number + 1) * self.batch]


def mixed(seed: int, *parts: int | str) -> int:
    """A seed of 63 bits for one purpose: other parts, an unrelated seed."""
    text = "\0".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
