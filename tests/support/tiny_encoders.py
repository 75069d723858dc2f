"""Encoders of one matrix, as ONNX folders with their encoder.json: enough to be called as real ones are.

encoder(folder, "embed")        vectors of 4 numbers: the mean of the tokens' rows, of length 1
encoder(folder, "classify")     logits of the labels good, bad, neither
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.support.trained import teacher_folder

__all__ = ["LABELS", "encoder"]

LABELS = ("good", "bad", "neither")
_VOCABULARY = 2048


def encoder(folder: Path, task: str, *, multi_label: bool = False) -> Path:
    """The folder, which is not there yet."""
    folder.mkdir()
    width, output = (4, "embedding") if task == "embed" else (len(LABELS), "logits")
    table = np.random.default_rng(5).normal(size=(_VOCABULARY, width)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization" if task == "embed" else "Identity", ["sum"], [output]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", width])]
    weights = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([2]), "last"),
        numpy_helper.from_array(np.array([1]), "middle"),
    ]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    card = {
        "version": 1,
        "task": task,
        "model": "model.onnx",
        "inputs": ["input_ids", "attention_mask"],
        "output": output,
        "max_length": 16,
        "pad_token_id": 2,
        "dimensions": 4 if task == "embed" else 0,
        "pooling": "mean" if task == "embed" else None,
        "normalize": task == "embed",
        "labels": [] if task == "embed" else list(LABELS),
        "multi_label": multi_label,
    }
    (folder / "encoder.json").write_text(json.dumps(card))
    shutil.copy(teacher_folder() / "tokenizer.json", folder)
    return folder
