"""What reaches a linear layer on the calibration texts, kept as sums: the memory of any number of tokens is the same.

with block.inputs_of(inputs.see): block.run()        gram = Σ x xᵀ      mean and largest |x| of each channel
inputs.error(weight, quantised) = ‖(W − Ŵ) X‖² / ‖W X‖²
"""

from __future__ import annotations

import torch

__all__ = ["Inputs"]


class Inputs:
    """Sums over the rows seen so far, in float32 on the device of the layer."""

    __slots__ = ("gram", "highest", "rows", "total")

    def __init__(self, columns: int, device: str | torch.device = "cpu") -> None:
        self.rows = 0
        self.gram = torch.zeros(columns, columns, device=device)
        self.total = torch.zeros(columns, device=device)  # of |x|
        self.highest = torch.zeros(columns, device=device)  # of |x|

    def see(self, rows: torch.Tensor) -> None:
        """Rows of shape (n, columns)."""
        rows = rows.to(torch.float32)
        size = rows.abs()
        self.rows += len(rows)
        self.gram += rows.T @ rows
        self.total += size.sum(0)
        self.highest = torch.maximum(self.highest, size.amax(0))

    @property
    def mean(self) -> torch.Tensor:
        """Of |x|, shape (columns,)."""
        return self.total / max(1, self.rows)

    def divided(self, by: torch.Tensor) -> Inputs:
        """What would be seen were each channel divided by `by`, positive, of shape (columns,)."""
        found = Inputs(0, self.gram.device)
        found.rows = self.rows
        found.gram = self.gram / by.unsqueeze(0) / by.unsqueeze(1)
        found.total, found.highest = self.total / by, self.highest / by
        return found

    def loss(self, difference: torch.Tensor) -> torch.Tensor:
        """‖D X‖² for D of shape (rows, columns): a scalar."""
        return ((difference @ self.gram) * difference).sum()

    def error(self, weight: torch.Tensor, written: torch.Tensor) -> float:
        """The share of the output's energy that is wrong: 0 is perfect, 1 as bad as a layer of zeros."""
        whole = float(self.loss(weight))
        return float(self.loss(weight - written)) / whole if whole > 0 else 0.0
