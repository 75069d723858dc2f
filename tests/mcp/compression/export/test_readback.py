"""What is really in a file: told from its bytes, whatever was claimed of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file
from tests.support.exported import quantized, work_of
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import ArtifactError, ModelFolderError
from agentflow.mcp.compression.artifact.manifest import TensorRecord
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.export.matmul_nbits import blocked, node_of
from agentflow.mcp.compression.export.onnx_file import OPSET, Weights, save
from agentflow.mcp.compression.export.readback import tensors_of
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.quantization.packed import QuantizedWeight
from agentflow.mcp.compression.recipe import Export

UP = "model.layers.0.mlp.up_proj.weight"


def records(folder: Path) -> dict[str, TensorRecord]:
    return {record.name: record for record in tensors_of(folder)}


def test_full_precision_is_what_it_is(tmp_path: Path) -> None:
    found = records(tiny_decoder(tmp_path / "m", dtype=torch.bfloat16))
    assert found[UP] == TensorRecord(name=UP, shape=(128, 64), type="BF16", bits=16, stored_bits=16, sparsity=0)


def test_zeros_are_counted(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "m")
    tensors = load_file(source / "model.safetensors")
    tensors[UP][:, :16] = 0
    save_file(tensors, source / "model.safetensors")
    assert records(source)[UP].sparsity == 0.25
    export(Export("gguf:q8_0"), source, tmp_path / "g", work_of(tmp_path / "s"))
    assert 0.25 <= records(tmp_path / "g")["blk.0.ffn_up.weight"].sparsity < 0.27  # small ones become nothing, too


@pytest.mark.parametrize(("scheme", "type_", "bits", "stored"), [
    ("w4g32", "int4 g32", 4, 5.0),  # a scale of 32 bits for 32 codes
    ("w4g32-asym", "int4 g32 asym", 4, 5.125),
    ("w2g64", "int2 g64", 2, 2.5),
    ("w8a8", "int8 a8", 8, 8.5),
])  # fmt: skip
def test_codes_have_the_bits_that_they_take(
    tmp_path: Path, scheme: str, type_: str, bits: float, stored: float
) -> None:
    record = records(quantized(tiny_decoder(tmp_path / "m"), scheme, tmp_path / "q"))[UP]
    assert (record.type, record.bits) == (type_, bits)
    assert record.stored_bits == pytest.approx(stored, abs=0.02)  # the shape is written beside them
    assert record.shape == (128, 64)


def test_ignored_layers_are_told_apart(tmp_path: Path) -> None:
    found = records(quantized(tiny_decoder(tmp_path / "m"), "w4g32", tmp_path / "q"))
    assert found["lm_head.weight"].type == "F32"


def test_four_bits_that_are_stored_as_bytes_have_eight(tmp_path: Path) -> None:
    """The settings say num_bits 4; each code lies there as an int8."""
    source = quantized(tiny_decoder(tmp_path / "m"), "w4g32", tmp_path / "q")
    codes = FullPrecision(Checkpoint.open(source)).codes
    tensors = load_file(source / "model.safetensors")
    for name in codes:
        module = name.removesuffix(".weight")
        del tensors[f"{module}.weight_packed"], tensors[f"{module}.weight_shape"]
        tensors[name] = codes[name].codes
    (source / "model.safetensors").unlink()
    save_file(tensors, source / "model.safetensors")
    assert '"num_bits": 4' in (source / "config.json").read_text()
    record = records(source)[UP]
    assert record.bits == 8
    assert record.type.startswith("int8")
    assert record.stored_bits == pytest.approx(9.0)


def test_what_claims_to_be_quantised_and_is_not_is_called_f32(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), "w4g32", tmp_path / "q")
    claimed = json.loads((source / "config.json").read_text())["quantization_config"]
    plain = tmp_path / "m"
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | {"quantization_config": claimed}))
    assert {record.bits for record in tensors_of(plain)} == {32}


# ---- ONNX


def one_matrix(folder: Path, bits: int, *, claimed: int | None = None, zeros: bool = False) -> Path:
    """A graph of one MatMulNBits."""
    generator = torch.Generator().manual_seed(0)
    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, (24, 64), generator=generator, dtype=torch.int8)
    points = torch.randint(-half, half, (24, 2), generator=generator, dtype=torch.int8) if zeros else None
    weight = QuantizedWeight(codes, torch.rand(24, 2, generator=generator) + 0.1, points, bits, 32)
    folder.mkdir()
    with Weights(folder) as weights:
        plain = helper.make_node("MatMul", ["x", "matrix"], ["y"], name="matmul")
        node, tensors = node_of(plain, blocked(weight), weights)
    for attribute in node.attribute:
        if attribute.name == "bits" and claimed is not None:
            attribute.i = claimed
    shape = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 64), ("y", 24))
    ]
    graph = helper.make_graph([node], "g", shape[:1], shape[1:], tensors)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder)
    return folder


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_bits_of_blocks_are_counted_and_zeros_found(tmp_path: Path, bits: int, zeros: bool) -> None:
    (record,) = tensors_of(one_matrix(tmp_path / "o", bits, zeros=zeros))
    assert (record.name, record.shape, record.bits, record.type) == ("matrix", (24, 64), bits, f"int{bits} g32")
    assert record.stored_bits >= bits + 1
    assert 0 < record.sparsity < 0.4


def test_four_bits_claimed_of_eight_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="matrix_Q8 has 8 bits a code, and its node reads 4"):
        tensors_of(one_matrix(tmp_path / "o", 8, claimed=4))


def test_what_onnxruntime_quantises_dynamically_is_read(tmp_path: Path) -> None:
    """By quantize_dynamic, whose names are its own."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((64, 24)).astype(np.float32)
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, size]) for name, size in (("x", 64), ("y", 24))]
    node = helper.make_node("MatMul", ["x", "matrix"], ["y"], name="matmul")
    graph = helper.make_graph([node], "g", shape[:1], shape[1:], [onnx.numpy_helper.from_array(matrix, "matrix")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.save(model, str(tmp_path / "plain"))
    (tmp_path / "o").mkdir()
    quantize_dynamic(tmp_path / "plain", tmp_path / "o" / "model.onnx", per_channel=True, weight_type=QuantType.QInt8)
    (record,) = tensors_of(tmp_path / "o")
    assert (record.name, record.shape, record.bits, record.type) == ("matrix", (64, 24), 8, "int8")
    assert 8 < record.stored_bits < 9.0


def test_codes_of_four_bits_as_a_type_of_their_own_are_read(tmp_path: Path) -> None:
    codes = helper.make_tensor("matrix", TensorProto.INT4, [64, 24], np.zeros(64 * 24, dtype=np.int8))
    scale = onnx.numpy_helper.from_array(np.float32(0.5), "matrix_scale")
    node = helper.make_node("DequantizeLinear", ["matrix", "matrix_scale"], ["y"])
    shape = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 24])]
    model = helper.make_model(helper.make_graph([node], "g", [], shape, [codes, scale]))
    (tmp_path / "o").mkdir()
    onnx.save(model, str(tmp_path / "o" / "model.onnx"))
    (record,) = tensors_of(tmp_path / "o")
    assert (record.bits, record.sparsity) == (4, 1.0)
    assert record.stored_bits == pytest.approx(4.0, abs=0.03)


def test_weights_beside_the_graph_that_are_cut_off_are_an_error(tmp_path: Path) -> None:
    folder = one_matrix(tmp_path / "o", 4)
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    assert not any(tensor.external_data for tensor in graph.initializer)  # what is small lies within the graph
    source = tiny_decoder(tmp_path / "m")
    large = FullPrecision(Checkpoint.open(source)).load(UP).numpy()
    with Weights(folder) as weights:
        tensor = weights.add("large", large)
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    model.graph.initializer.append(tensor)
    save(model, folder)
    assert "large" in records(folder)
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="large cannot be read"):
        tensors_of(folder)
    data.unlink()
    with pytest.raises(ArtifactError, match="large cannot be read"):
        tensors_of(folder)


# ---- what is no model


@pytest.mark.parametrize("name", ["model.onnx", "model.gguf"])
@pytest.mark.parametrize("content", [b"", b"no such thing", b"GGUF\x03\x00\x00\x00"])
def test_a_damaged_file_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    if name == "model.onnx" and not content:
        assert tensors_of(tmp_path) == ()  # no bytes are a graph of nothing
    else:
        with pytest.raises(ArtifactError, match="cannot be read as"):
            tensors_of(tmp_path)


def test_a_folder_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError):
        tensors_of(tmp_path)
