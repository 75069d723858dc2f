"""Codes and scales survive the file: what is written as compressed-tensors is what is read back, by others too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from agentflow.errors import ModelFolderError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization.packed import QuantizedWeight, read_quantized

NAME = "model.layers.0.mlp.up_proj"


def weight_of(rows: int, groups: int, group: int, bits: int, *, symmetric: bool, seed: int = 0) -> QuantizedWeight:
    """Random codes over the whole range, the ends included."""
    generator = torch.Generator().manual_seed(seed)
    lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    codes = torch.randint(lowest, highest + 1, (rows, groups * group), generator=generator, dtype=torch.int8)
    codes[0, 0], codes[-1, -1] = lowest, highest
    scales = torch.rand(rows, groups, generator=generator) + 0.01
    zeros = torch.randint(lowest, highest + 1, (rows, groups), generator=generator, dtype=torch.int8)
    return QuantizedWeight(codes, scales, None if symmetric else zeros, bits, group)


def config(bits: int, group: int, *, symmetric: bool) -> dict[str, object]:
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "version": "0.20.0",
    }


def folder_of(path: Path, tensors: dict[str, torch.Tensor], quantization: dict[str, object]) -> Path:
    path.mkdir(exist_ok=True)
    facts = {"architectures": ["LlamaForCausalLM"], "quantization_config": quantization}
    (path / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    save_file(tensors, path / "model.safetensors")
    return path


@settings(max_examples=40)
@given(
    rows=st.integers(1, 40),
    groups=st.integers(1, 5),
    group=st.sampled_from([8, 16, 24, 40, 64]),
    bits=st.sampled_from([2, 3, 4, 8]),
    symmetric=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(rows=1, groups=2, group=8, bits=4, symmetric=False, seed=0)  # zeros that fill one word a column
def test_codes_scales_and_zeros_survive_being_packed(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    groups: int,
    group: int,
    bits: int,
    symmetric: bool,
    seed: int,
) -> None:
    """Any shape, any width, also rows and columns that fill no whole number of words."""
    weight = weight_of(rows, groups, group, bits, symmetric=symmetric, seed=seed)
    folder = folder_of(
        tmp_path_factory.mktemp("packed"), dict(weight.tensors(NAME)), config(bits, group, symmetric=symmetric)
    )
    back = read_quantized(Checkpoint.open(folder))[f"{NAME}.weight"]
    assert torch.equal(back.codes, weight.codes)
    assert torch.equal(back.scales, weight.scales)
    assert (back.zeros is None) == symmetric
    assert weight.zeros is None or (back.zeros is not None and torch.equal(back.zeros, weight.zeros))
    assert (back.bits, back.group) == (bits, group)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_library_decodes_what_we_decode(bits: int, symmetric: bool, dtype: torch.dtype) -> None:
    """To the last bit, in each type that scales are stored in."""
    weight = weight_of(24, 3, 32, bits, symmetric=symmetric)
    weight = QuantizedWeight(weight.codes, weight.scales.to(dtype), weight.zeros, bits, 32)
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=32)
    library = BaseCompressor.get_value_from_registry("pack-quantized")
    state = {name.rpartition(".")[2]: tensor for name, tensor in weight.tensors(NAME)}
    theirs = library.decompress(state, QuantizationScheme(targets=["Linear"], weights=args))["weight"]
    assert theirs.dtype == dtype
    assert torch.equal(theirs, weight.dequantize())


def test_a_model_in_full_precision_has_no_quantized_weights(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", {f"{NAME}.weight": torch.zeros(4, 4)}, {})
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    assert len(read_quantized(Checkpoint.open(folder))) == 0


def test_weights_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    """Names are known without a tensor being read; what is damaged is found when it is read."""
    weight = weight_of(8, 2, 16, 4, symmetric=True)
    tensors = dict(weight.tensors(NAME)) | {f"{NAME}.weight_scale": torch.full((8, 2), float("nan"))}
    found = read_quantized(Checkpoint.open(folder_of(tmp_path / "model", tensors, config(4, 16, symmetric=True))))
    assert list(found) == [f"{NAME}.weight"]
    assert f"{NAME}.weight" in found
    with pytest.raises(ModelFolderError, match="NaN"):
        found[f"{NAME}.weight"]


def test_a_folder_packed_with_gaps_is_refused(tmp_path: Path) -> None:
    """Ten codes of 3 bits in a word, as older versions of the library wrote them."""
    weight = weight_of(8, 2, 32, 3, symmetric=True)
    tensors = dict(weight.tensors(NAME)) | {f"{NAME}.weight_packed": torch.zeros(8, 7, dtype=torch.int32)}
    found = read_quantized(Checkpoint.open(folder_of(tmp_path / "model", tensors, config(3, 32, symmetric=True))))
    with pytest.raises(ModelFolderError, match=r"up_proj.*older version"):
        found[f"{NAME}.weight"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quant_method": "gptq"}, "quantised by gptq"),
        ({"config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}}}, "integ"),
        ({"config_groups": {"group_0": {"targets": 3}}}, "no such thing"),
    ],
)
def test_another_quantisation_is_refused_by_name(tmp_path: Path, change: dict[str, object], says: str) -> None:
    weight = weight_of(8, 2, 16, 4, symmetric=True)
    folder = folder_of(tmp_path / "model", dict(weight.tensors(NAME)), config(4, 16, symmetric=True) | change)
    with pytest.raises(ModelFolderError, match=says):
        read_quantized(Checkpoint.open(folder))


def test_a_group_size_that_is_not_the_scales_is_refused(tmp_path: Path) -> None:
    weight = weight_of(8, 2, 16, 4, symmetric=True)
    folder = folder_of(tmp_path / "model", dict(weight.tensors(NAME)), config(4, 8, symmetric=True))
    with pytest.raises(ModelFolderError, match="2 groups of 8 are not its 32 columns"):
        read_quantized(Checkpoint.open(folder))[f"{NAME}.weight"]


def test_stored_bits_count_scales_and_zero_points() -> None:
    weight = weight_of(8, 2, 64, 4, symmetric=False)
    assert weight.stored_bits == 4 + (32 + 4) / 64
