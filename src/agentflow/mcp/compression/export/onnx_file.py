"""An ONNX file that is written tensor by tensor: the graph in model.onnx, the weights in model.onnx.data beside it.

with Weights(folder) as weights:
    graph.initializer.append(weights.add("lm_head.weight", array))   written now; the graph keeps where it lies
…
save(model, folder)
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

__all__ = ["DATA", "MODEL", "OPSET", "Weights", "array_of", "save"]

MODEL, DATA = "model.onnx", "model.onnx.data"
OPSET = 21
_ALIGNED = 4096  # bytes; what lies on a page's edge is mapped rather than read
_SMALL = 1024  # bytes; what is smaller stays in the graph: constants that shape inference looks at


class Weights:
    """Takes arrays one by one; each is on the disk once `add` returns."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / DATA).open("wb")

    def __enter__(self) -> Weights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, array: NDArray[np.generic]) -> TensorProto:
        """What stands in the graph for the array."""
        array = np.asarray(array, order="C")  # ascontiguousarray would make a number a row
        if array.nbytes < _SMALL:
            return onnx.numpy_helper.from_array(array, name)
        start = -(-self._file.tell() // _ALIGNED) * _ALIGNED
        self._file.write(b"\0" * (start - self._file.tell()))
        self._file.write(array.tobytes())
        tensor = TensorProto(
            name=name,
            dims=array.shape,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", DATA), ("offset", str(start)), ("length", str(array.nbytes))):
            tensor.external_data.add(key=key, value=value)
        return tensor


def save(model: onnx.ModelProto, folder: Path) -> None:
    (folder / MODEL).write_bytes(model.SerializeToString(deterministic=True))


def array_of(tensor: TensorProto, folder: Path) -> NDArray[np.generic]:
    """The array behind an initialiser of a file in `folder`, of which nothing else is read."""
    array: NDArray[np.generic] = onnx.numpy_helper.to_array(tensor, base_dir=str(folder))
    return array
