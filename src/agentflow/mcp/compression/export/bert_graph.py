"""BERT as an ONNX graph, written from its definition (Devlin et al., arXiv:1810.04805) in standard operators alone.

input_ids, attention_mask, token_type_ids ─▶ embeddings ─▶ layers ─▶ pooled (and normalised) ─▶ embedding
                                                                 └─▶ pooler, classifier      ─▶ logits

Written rather than traced: tracing bakes in what the traced example happened to have, such as that nothing is padded,
and gives the weights names of its own, while here each keeps the name it has in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from agentflow.errors import RecipeError
from agentflow.mcp.compression.export.onnx_file import OPSET, Weights

__all__ = ["BertGraph", "Pooling"]

_MIDDLE = 128  # the code of nothing

Pooling = Literal["mean", "cls", "max"]


@dataclass(frozen=True, slots=True)
class BertGraph:
    """`load` gives a weight as float32 by the name that BertModel has for it ("classifier.weight" too); `check` is
    called before each layer.

    `int8`: matrices of 8 bits, a scale an output channel, and their inputs rounded to 8 bits with a scale a token. A
    scale for all of them together, as onnxruntime's quantize_dynamic has it, makes a text's vector depend on what else
    is in the batch, and loses more. Both factors are unsigned with a zero point of 128: signed weights overflow in the
    16-bit sums of processors without VNNI.
    """

    config: Mapping[str, Any]
    load: Callable[[str], NDArray[np.float32]]
    weights: Weights
    check: Callable[[], None]
    int8: bool = False

    def embedding(self, pooling: Pooling, *, normalize: bool) -> onnx.ModelProto:
        """Output `embedding`, of shape (rows, hidden size)."""
        body = _Body(self)
        pooled = body.pooled(body.encoder(), pooling)
        body.end("embedding", body.normalized(pooled) if normalize else pooled)
        return body.model("embedding", int(self.config["hidden_size"]))

    def logits(self, labels: int) -> onnx.ModelProto:
        """Output `logits`, of shape (rows, labels)."""
        body = _Body(self)
        first = body.node("Gather", body.encoder(), body.ints("first", 0), axis=1)
        pooled = body.node("Tanh", body.linear(first, "pooler.dense"))
        body.end("logits", body.linear(pooled, "classifier"))
        return body.model("logits", labels)


class _Body:
    """The graph while it grows: each method adds nodes and returns the name of what comes out."""

    def __init__(self, bert: BertGraph) -> None:
        self._bert = bert
        self._config = bert.config
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, TensorProto] = {}
        self._inputs: dict[str, tuple[str, str]] = {}

    # ---- the parts of BERT

    def encoder(self) -> str:
        hidden, mask = self._embeddings(), self._mask()
        for index in range(int(self._config["num_hidden_layers"])):
            self._bert.check()
            hidden = self._layer(hidden, mask, f"encoder.layer.{index}")
        return hidden

    def _embeddings(self) -> str:
        words = self._words("embeddings.word_embeddings.weight")
        types = self.node("Gather", self.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
        length = self.node("Shape", "input_ids", start=1, end=2)
        place = self.node("Range", self.ints("zero", 0), self.node("Squeeze", length), self.ints("one", 1))
        places = self.node("Gather", self.weight("embeddings.position_embeddings.weight"), place)
        total = self.node("Add", self.node("Add", words, types), places)
        return self.norm(total, "embeddings.LayerNorm")

    def _mask(self) -> str:
        """0 where a token may be looked at, a very low number where it is padding: (rows, 1, 1, length)."""
        numbers = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        lacking = self.node("Sub", self.floats("one.f", 1.0), numbers)
        low = self.node("Mul", lacking, self.floats("low", float(np.finfo(np.float32).min)))
        return self.node("Unsqueeze", low, self.ints("axes", [1, 2]))

    def _layer(self, hidden: str, mask: str, name: str) -> str:
        attended = self.linear(
            self._attention(hidden, mask, f"{name}.attention.self"), f"{name}.attention.output.dense"
        )
        hidden = self.norm(self.node("Add", attended, hidden), f"{name}.attention.output.LayerNorm")
        wide = self._activation(self.linear(hidden, f"{name}.intermediate.dense"))
        narrow = self.linear(wide, f"{name}.output.dense")
        return self.norm(self.node("Add", narrow, hidden), f"{name}.output.LayerNorm")

    def _attention(self, hidden: str, mask: str, name: str) -> str:
        heads = int(self._config["num_attention_heads"])
        size = len(self._bert.load(f"{name}.query.bias")) // heads
        query, key, value = (
            self._heads(self.linear(hidden, f"{name}.{part}"), heads, size, turned)
            for part, turned in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scores = self.node("Mul", self.node("MatMul", query, key), self.floats(f"scale.{size}", size**-0.5))
        shares = self.node("Softmax", self.node("Add", scores, mask), axis=-1)
        together = self.node("Transpose", self.node("MatMul", shares, value), perm=[0, 2, 1, 3])
        return self.node("Reshape", together, self.ints(f"flat.{heads * size}", [0, 0, heads * size]))

    def _heads(self, hidden: str, heads: int, size: int, turned: list[int]) -> str:
        split = self.node("Reshape", hidden, self.ints(f"heads.{heads}.{size}", [0, 0, heads, size]))
        return self.node("Transpose", split, perm=turned)

    def _activation(self, hidden: str) -> str:
        match self._config.get("hidden_act", "gelu"):
            case "gelu":
                return self.node("Gelu", hidden, approximate="none")
            case "gelu_new" | "gelu_pytorch_tanh":
                return self.node("Gelu", hidden, approximate="tanh")
            case "relu":
                return self.node("Relu", hidden)
            case other:
                raise RecipeError(f"onnx: the encoder's hidden_act is {other}; gelu, gelu_new and relu can be written")

    def pooled(self, hidden: str, pooling: Pooling) -> str:
        if pooling == "cls":
            return self.node("Gather", hidden, self.ints("first", 0), axis=1)
        mask = self.node("Unsqueeze", self.node("Cast", "attention_mask", to=TensorProto.FLOAT), self.ints("last", [2]))
        axis = self.ints("along", [1])
        if pooling == "max":
            low = self.node("Mul", self.node("Sub", mask, self.floats("one.f", 1.0)), self.floats("high", 1e9))
            return self.node("ReduceMax", self.node("Add", hidden, low), axis, keepdims=0)
        total = self.node("ReduceSum", self.node("Mul", hidden, mask), axis, keepdims=0)
        count = self.node("Max", self.node("ReduceSum", mask, axis, keepdims=0), self.floats("few", 1e-9))
        return self.node("Div", total, count)

    def normalized(self, vectors: str) -> str:
        length = self.node("ReduceL2", vectors, self.ints("along", [1]), keepdims=1)
        return self.node("Div", vectors, self.node("Max", length, self.floats("short", 1e-12)))

    # ---- what they are made of

    def _words(self, name: str) -> str:
        if not self._bert.int8:
            return self.node("Gather", self.weight(name), "input_ids")
        table = self._bert.load(name)
        codes, scales = _rounded(table, axis=1)
        codes_name, scales_name = self._add(f"{name}_Q8", codes), self._add(f"{name}_scales", scales[:, 0])
        found = self.node("Cast", self.node("Gather", codes_name, "input_ids"), to=TensorProto.FLOAT)
        centred = self.node("Sub", found, self.floats("middle.f", _MIDDLE))
        scale = self.node("Unsqueeze", self.node("Gather", scales_name, "input_ids"), self.ints("last", [2]))
        return self.node("Mul", centred, scale)

    def linear(self, hidden: str, name: str) -> str:
        matrix = f"{name}.weight"
        if self._bert.int8:
            product = self._in_eight_bits(hidden, matrix)
        else:
            product = self.node("MatMul", hidden, self._add(matrix, self._bert.load(matrix).T))
        return self.node("Add", product, self.weight(f"{name}.bias"))

    def _in_eight_bits(self, hidden: str, matrix: str) -> str:
        codes, scales = _rounded(self._bert.load(matrix).T, axis=0)
        rounded, scale = self._rounded_input(hidden)
        middle = self._constant("middle", np.asarray(_MIDDLE, dtype=np.uint8))
        whole = self.node("MatMulInteger", rounded, self._add(f"{matrix}_Q8", codes), middle, middle)
        product = self.node("Mul", self.node("Cast", whole, to=TensorProto.FLOAT), scale)
        return self.node("Mul", product, self._add(f"{matrix}_scales", scales[0]))

    def _rounded_input(self, hidden: str) -> tuple[str, str]:
        """The codes of an input and the scale of each token; made once for all that read it."""
        if hidden not in self._inputs:
            largest = self.node("ReduceMax", self.node("Abs", hidden), self.ints("columns", [-1]), keepdims=1)
            safe = self.node("Max", largest, self.floats("short", 1e-12))
            scale = self.node("Mul", safe, self.floats("step", 1 / 127))
            shifted = self.node("Add", self.node("Div", hidden, scale), self.floats("middle.f", _MIDDLE))
            self._inputs[hidden] = self.node("Cast", self.node("Round", shifted), to=TensorProto.UINT8), scale
        return self._inputs[hidden]

    def norm(self, hidden: str, name: str) -> str:
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        epsilon = float(self._config.get("layer_norm_eps", 1e-12))
        return self.node("LayerNormalization", hidden, scale, shift, axis=-1, epsilon=epsilon)

    def weight(self, name: str) -> str:
        return self._add(name, self._bert.load(name))

    def _add(self, name: str, array: NDArray[np.generic]) -> str:
        if name not in self._weights:
            self._weights[name] = self._bert.weights.add(name, array)
        return name

    def ints(self, name: str, value: int | list[int]) -> str:
        return self._constant(name, np.asarray(value, dtype=np.int64))

    def floats(self, name: str, value: float) -> str:
        return self._constant(name, np.asarray(value, dtype=np.float32))

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self._weights.setdefault(f"constant.{name}", onnx.numpy_helper.from_array(value, f"constant.{name}"))
        return f"constant.{name}"

    def node(self, kind: str, *inputs: str, **attributes: int | float | str | list[int]) -> str:
        name = f"{kind}.{len(self._nodes)}"
        node = helper.make_node(kind, list(inputs), [f"{name}.out"], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self._nodes.append(node)
        return f"{name}.out"

    def end(self, name: str, value: str) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))

    def model(self, output: str, width: int) -> onnx.ModelProto:
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"]) for name in names]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", width])]
        graph = helper.make_graph(self._nodes, "bert", inputs, outputs, list(self._weights.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="agentflow")


def _rounded(matrix: NDArray[np.float32], axis: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes about 128, and the scales along the other axis: both may be multiplied back, as (codes - 128) * scales."""
    scales = np.maximum(np.abs(matrix).max(axis=axis, keepdims=True), 1e-12) / 127
    return (np.rint(matrix / scales) + _MIDDLE).astype(np.uint8), scales.astype(np.float32)
