"""Codes and scales as onnxruntime's MatMulNBits holds them, exactly those that were given.

    weight = (code − zero) · scale, codes unsigned: QuantizedWeight's −8…7 become 0…15, its zero 0 becomes 8

MatMulNBits knows codes of 2, 4 and 8 bits in blocks of 16, 32, 64, 128 … input channels. What is otherwise is widened
without loss: three bits are stored in four; a group of 96 becomes three blocks of 32 with the same scale, one scale a
row becomes blocks of 128. A group that no block of 16 divides has no such form, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from agentflow.errors import RecipeError
from agentflow.mcp.compression.export.onnx_file import Weights

if TYPE_CHECKING:
    from onnx import TensorProto

    from agentflow.mcp.compression.quantization.packed import QuantizedWeight

__all__ = ["Blocked", "blocked", "node_of", "width_of"]

WIDTHS = (2, 4, 8)
LARGEST = {2: 256, 4: 256, 8: 256}  # what the fast kernels take
WHOLE_ROW = 128  # the block where a whole row has one scale
# Inputs are rounded to 8 bits, block by block, while the model runs: what onnxruntime-genai's own builder asks for on a
# processor. Exact arithmetic (1) is some 8 times slower with 4 bits, and 100 times with 2 and 8.
ACCURACY_LEVEL = 4


@dataclass(frozen=True, slots=True)
class Blocked:
    """`codes` are uint8 of shape (rows, columns), `scales` float32 and `zeros` uint8 of shape (rows, blocks)."""

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8] | None
    bits: int
    block: int

    @classmethod
    def joined(cls, parts: Sequence[Blocked]) -> Blocked:
        """Several layers of one input, as one: their outputs follow each other."""
        first = parts[0]
        asymmetric = any(part.zeros is not None for part in parts)
        return cls(
            codes=np.concatenate([part.codes for part in parts]),
            scales=np.concatenate([part.scales for part in parts]),
            zeros=np.concatenate([part._zeros() for part in parts]) if asymmetric else None,
            bits=first.bits,
            block=first.block,
        )

    def _zeros(self) -> NDArray[np.uint8]:
        return self.zeros if self.zeros is not None else np.full(self.scales.shape, 1 << (self.bits - 1), np.uint8)

    def dequantized(self) -> NDArray[np.float32]:
        """What the runtime computes with: float32 of shape (rows, columns)."""
        columns = self.codes.shape[1]
        zeros = np.repeat(self._zeros(), self.block, axis=1)[:, :columns]
        scales = np.repeat(self.scales, self.block, axis=1)[:, :columns]
        weight: NDArray[np.float32] = (self.codes.astype(np.float32) - zeros.astype(np.float32)) * scales
        return weight


def width_of(bits: int) -> int:
    """The bits in which codes of so many are stored."""
    return next(width for width in WIDTHS if width >= bits)


def blocked(weight: QuantizedWeight) -> Blocked:
    """The same codes and scales. Raises RecipeError where the group has no blocks."""
    rows, columns = weight.shape
    width = width_of(weight.bits)
    block = _block(weight.group, width)
    times = 1 if weight.group is None else weight.group // block
    many = -(-columns // block)
    spread = (rows, many) if weight.group is None else None
    shift = 1 << (width - 1)
    scales = weight.scales.float().cpu().numpy()
    zeros = None if weight.zeros is None else (weight.zeros.cpu().numpy().astype(np.int16) + shift).astype(np.uint8)
    return Blocked(
        codes=(weight.codes.cpu().numpy().astype(np.int16) + shift).astype(np.uint8),
        scales=np.broadcast_to(scales, spread).copy() if spread else np.repeat(scales, times, axis=1),
        zeros=None if zeros is None else (np.broadcast_to(zeros, spread) if spread else np.repeat(zeros, times, 1)),
        bits=width,
        block=block,
    )


def _block(group: int | None, bits: int) -> int:
    if group is None:
        return WHOLE_ROW
    block = min(group & -group, LARGEST[bits])  # the largest power of two that divides it
    if block < 16:
        raise RecipeError(
            f"onnx: a group of {group} is no multiple of 16, which its blocks are: quantise with g32 or g64"
        )
    return block


def node_of(matmul: NodeProto, matrix: Blocked, weights: Weights) -> tuple[NodeProto, list[TensorProto]]:
    """The node that takes the place of `matmul`, and its initialisers, written into `weights`."""
    rows, columns = matrix.codes.shape
    name = matmul.input[1]
    tensors = [
        weights.add(f"{name}_Q{matrix.bits}", packed(_in_blocks(matrix), matrix.bits)),
        weights.add(f"{name}_scales", matrix.scales),
    ]
    if matrix.zeros is not None:
        tensors.append(weights.add(f"{name}_zeros", packed(_filled(matrix.zeros, 8 // matrix.bits), matrix.bits)))
    node = helper.make_node(
        "MatMulNBits",
        [matmul.input[0], *(tensor.name for tensor in tensors)],
        list(matmul.output),
        name=matmul.name,
        domain="com.microsoft",
        K=columns,
        N=rows,
        bits=matrix.bits,
        block_size=matrix.block,
        accuracy_level=ACCURACY_LEVEL,
    )
    return node, tensors


def _in_blocks(matrix: Blocked) -> NDArray[np.uint8]:
    """(rows, blocks, block), the last one filled up with codes that mean nothing."""
    return _filled(matrix.codes, matrix.block).reshape(len(matrix.codes), -1, matrix.block)


def _filled(array: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    return np.pad(array, ((0, 0), (0, -array.shape[1] % multiple)))


def packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Several codes a byte, the first in its low bits, along the last axis."""
    each = codes.reshape(*codes.shape[:-1], -1, 8 // bits)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    together: NDArray[np.uint8] = np.bitwise_or.reduce(each << shifts, axis=-1)
    return together
