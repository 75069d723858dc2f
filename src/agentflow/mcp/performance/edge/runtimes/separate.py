"""Rows that each decode by themselves, for runtimes whose rows cannot share a pass.

    Separate(open_row)      open_row([1, 7, 4]) → a Row: logits() of its next token, append(token), close()

Every row's answer is what it would be alone, to the bit; a step of many rows takes as long as each after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Row", "Separate"]


class Row(Protocol):
    """One text that is being continued."""

    def logits(self) -> NDArray[np.float32]:
        """Of its next token: shape (vocabulary,)."""
        ...

    def append(self, token: int) -> None: ...

    def close(self) -> None: ...


class Separate:
    """A `Decoding` of rows that know nothing of each other."""

    def __init__(self, open_row: Callable[[Sequence[int]], Row]) -> None:
        self._open_row = open_row
        self._rows: list[Row] = []

    def logits(self) -> NDArray[np.float32]:
        if not self._rows:
            return np.zeros((0, 0), np.float32)
        return np.stack([row.logits() for row in self._rows])

    def append(self, tokens: Sequence[int]) -> None:
        for row, token in zip(self._rows, tokens, strict=True):
            row.append(token)

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        for prompt in prompts:
            self._rows.append(self._open_row(prompt))

    def keep(self, rows: Sequence[int]) -> None:
        kept = [self._rows[row] for row in rows]
        for row in self._rows:
            if row not in kept:
                row.close()
        self._rows = kept

    def close(self) -> None:
        self.keep(())
