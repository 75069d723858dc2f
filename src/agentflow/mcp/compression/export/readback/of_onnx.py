"""The weights of an .onnx file, by what its nodes do with them; those in a file beside it too.

MatMulNBits, GatherBlockQuantized   codes of a few bits, in blocks with a scale each
MatMulInteger, DequantizeLinear     codes that are tensors of their own type
whatever else                       numbers
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from agentflow.errors import ArtifactError
from agentflow.mcp.compression.artifact.manifest import TensorRecord
from agentflow.mcp.compression.export.onnx_file import array_of

__all__ = ["onnx_tensors"]

_NOT_WEIGHTS = ("cos_cache", "sin_cache")  # positions, which are computed
_OF_CODES = ("_Q2", "_Q4", "_Q8", "_quantized")
_BITS: Mapping[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.INT8: 8, TensorProto.UINT8: 8}


def onnx_tensors(path: Path) -> Iterator[TensorRecord]:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # a damaged file raises an error of protobuf, which has no common base
        raise ArtifactError(path, f"it cannot be read as ONNX: {error}") from error
    file = _File({tensor.name: tensor for tensor in model.graph.initializer}, path)
    records = [record for node in model.graph.node for record in file.read(node)]
    yield from records
    yield from file.numbers()


@dataclass(slots=True)
class _Codes:
    """The parts of one weight, by their names in the file, and what decides where it is nothing."""

    codes: str
    shape: tuple[int, ...]
    others: tuple[str, ...]
    kind: str
    zeros: int


class _File:
    def __init__(self, tensors: Mapping[str, TensorProto], path: Path) -> None:
        self._tensors = tensors
        self._path = path
        self._told: set[str] = set()

    def read(self, node: NodeProto) -> Iterator[TensorRecord]:
        """What the node makes of its initialisers, where they are codes."""
        given = list(node.input)
        if node.op_type == "MatMulNBits" and given[1] in self._tensors:
            yield from self._blocks(node, given[1], [*given, "", ""][2:4])
        elif node.op_type == "GatherBlockQuantized" and given[0] in self._tensors:
            yield from self._blocks(node, given[0], [*given, "", ""][2:4])
        elif node.op_type in ("MatMulInteger", "DequantizeLinear", "Gather"):
            name = given[1] if node.op_type == "MatMulInteger" else given[0]
            if name in self._tensors and self._tensors[name].data_type in _BITS:
                yield from self._bytes(name, given)

    def numbers(self) -> Iterator[TensorRecord]:
        """All that are no codes, nor belong to any."""
        for name, tensor in self._tensors.items():
            floating = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16,
                                            TensorProto.DOUBLE)  # fmt: skip
            if name in self._told or not floating or name in _NOT_WEIGHTS or not tensor.dims:
                continue
            array = self._array(name)
            bits = float(8 * array.dtype.itemsize)
            yield TensorRecord(
                name=name,
                shape=array.shape,
                type=f"F{bits:g}" if tensor.data_type != TensorProto.BFLOAT16 else "BF16",
                bits=bits,
                stored_bits=bits,
                sparsity=_share(array == 0),
            )

    def _blocks(self, node: NodeProto, name: str, others: list[str]) -> Iterator[TensorRecord]:
        if name in self._told:
            return
        told = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        codes, scales = self._array(name).astype(np.uint8).reshape(-1), self._array(others[0])
        block = int(told.get("block_size", 128))
        # Bytes a block say how wide a code is, whatever the attribute says.
        bits = 8 * codes.size / (scales.size * block)
        if bits not in (2, 4, 8) or int(bits) != int(told.get("bits", 4)):
            raise ArtifactError(
                self._path, f"{name} has {bits:g} bits a code, and its node reads {told.get('bits', 4)}"
            )
        rows, columns = self._shape(name, told, scales, block)
        unsigned = _unpacked(codes, int(bits)).reshape(scales.size, block)
        zeros = self._zero_points(others[1], int(bits), scales, rows)
        empty = ((unsigned == zeros) | (scales.reshape(-1, 1) == 0)).reshape(rows, -1)[:, :columns]
        yield self._record(name, (rows, columns), f"int{bits:g} g{block}", bits, others, _share(empty))

    def _shape(self, name: str, told: Mapping[str, object], scales: NDArray[np.generic], block: int) -> tuple[int, int]:
        if "N" in told:
            return int(str(told["N"])), int(str(told["K"]))
        rows = int(self._tensors[name].dims[0])
        return rows, scales.size // rows * block

    def _zero_points(self, name: str, bits: int, scales: NDArray[np.generic], rows: int) -> NDArray[np.uint8] | int:
        if not name:
            return 1 << (bits - 1)
        packed = self._array(name).astype(np.uint8).reshape(-1)
        return _unpacked(packed, bits).reshape(rows, -1)[:, : scales.size // rows].reshape(-1, 1)

    def _bytes(self, name: str, given: list[str]) -> Iterator[TensorRecord]:
        if name in self._told:
            return
        tensor = self._tensors[name]
        base = next((name.removesuffix(end) for end in _OF_CODES if name.endswith(end)), name)
        beside = [f"{base}{end}" for end in ("_scales", "_scale", "_zero_point")]
        others = [each for each in dict.fromkeys([*beside, *given]) if each in self._tensors and each != name]
        array = self._array(name)
        zero = next((self._array(each) for each in others if each.endswith(("_zero_point", "constant.middle"))), None)
        middle = 128 if tensor.data_type == TensorProto.UINT8 else 0
        empty = array == (np.asarray(middle) if zero is None else zero)
        bits = float(_BITS[tensor.data_type])
        mine = [each for each in others if each.startswith(base)]
        yield self._record(name, array.shape, f"int{bits:g}", bits, mine, _share(empty))

    def _record(
        self, name: str, shape: tuple[int, ...], kind: str, bits: float, others: list[str], sparsity: float
    ) -> TensorRecord:
        parts = [name, *(each for each in others if each)]
        self._told.update(parts)
        held = sum(_size(self._array(part), self._tensors[part].data_type) for part in parts)
        return TensorRecord(
            name=next((name.removesuffix(end) for end in _OF_CODES if name.endswith(end)), name),
            shape=shape,
            type=kind,
            bits=bits,
            stored_bits=8 * held / max(1, int(np.prod(shape))),
            sparsity=sparsity,
        )

    def _array(self, name: str) -> NDArray[np.generic]:
        try:
            return array_of(self._tensors[name], self._path.parent)
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ArtifactError(self._path, f"its weight {name} cannot be read: {error}") from error


def _unpacked(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((codes[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)


def _size(array: NDArray[np.generic], data_type: int) -> float:
    """Bytes in the file: codes of 4 bits lie there two a byte, and are bytes in memory."""
    bits: int = _BITS.get(data_type, 8 * array.dtype.itemsize)
    return array.size * bits / 8


def _share(found: NDArray[np.bool_]) -> float:
    return float(found.mean()) if found.size else 0.0
