"""Codes and scales as llama.cpp's blocks of 32 hold them: Q4_0, Q4_1 and Q8_0, each code as it was given.

    Q8_0   f16 scale, 32 × int8                  weight = code · scale
    Q4_0   f16 scale, 32 × 4 bits                weight = (code − 8) · scale
    Q4_1   f16 scale, f16 minimum, 32 × 4 bits   weight = code · scale + minimum

A group of 64 becomes two blocks with the same scale. Scales are of 16 bits here; by how much that changes them is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

if TYPE_CHECKING:
    from agentflow.mcp.compression.quantization.packed import QuantizedWeight

__all__ = ["BLOCK", "CarriedBlocks", "carried", "holds", "narrowest"]

BLOCK = 32


@dataclass(frozen=True, slots=True)
class CarriedBlocks:
    """`data` is uint8 of shape (rows, bytes a row); `scale_error` the largest relative change of a scale."""

    data: NDArray[np.uint8]
    scale_error: float


def narrowest(weight: QuantizedWeight) -> GGMLQuantizationType | None:
    """The smallest type that holds its codes; None where none does."""
    kinds = (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0)
    return next((kind for kind in kinds if holds(kind, weight)), None)


def holds(kind: GGMLQuantizationType, weight: QuantizedWeight) -> bool:
    """Whether `kind` has a place for each code, and a scale for each group."""
    if weight.shape[1] % BLOCK or (weight.group is not None and weight.group % BLOCK):
        return False
    match kind:
        case GGMLQuantizationType.Q4_0:
            return weight.bits <= 4 and weight.zeros is None
        case GGMLQuantizationType.Q4_1:
            return weight.bits <= 4
        case GGMLQuantizationType.Q8_0:
            return weight.zeros is None
        case _:
            return False


def carried(weight: QuantizedWeight, kind: GGMLQuantizationType, order: NDArray[np.int64] | None) -> CarriedBlocks:
    """The rows of `weight`, in `order`, as blocks; `kind` must hold it."""
    rows, columns = weight.shape
    places = np.arange(rows) if order is None else order
    blocks = columns // BLOCK
    codes: NDArray[np.int8] = weight.codes.cpu().numpy()[places].reshape(rows, blocks, BLOCK)
    exact = _spread(weight.scales.float().cpu().numpy()[places], blocks)
    scales = exact.astype(np.float16)
    parts: list[NDArray[np.uint8]] = [scales[..., None].view(np.uint8)]
    if kind is GGMLQuantizationType.Q8_0:
        parts.append(codes.view(np.uint8))
    else:
        if kind is GGMLQuantizationType.Q4_1:
            zeros = 0 if weight.zeros is None else _spread(weight.zeros.cpu().numpy()[places], blocks)
            minima: NDArray[np.float16] = (-(zeros + np.float32(8)) * exact).astype(np.float16)
            parts.append(minima[..., None].view(np.uint8))
        unsigned: NDArray[np.uint8] = (codes.astype(np.int16) + 8).astype(np.uint8)
        parts.append(np.bitwise_or(unsigned[..., : BLOCK // 2], unsigned[..., BLOCK // 2 :] << 4, dtype=np.uint8))
    data = np.concatenate(parts, axis=-1).reshape(rows, -1)
    return CarriedBlocks(data, _change(exact, scales))


def _spread(values: NDArray[np.generic], blocks: int) -> NDArray[np.float32]:
    return np.repeat(values.astype(np.float32), blocks // values.shape[1], axis=1)


def _change(exact: NDArray[np.float32], rounded: NDArray[np.float16]) -> float:
    safe = np.where(exact == 0, np.float32(1), exact)
    return float(np.abs((rounded.astype(np.float32) - exact) / safe).max(initial=0.0))
