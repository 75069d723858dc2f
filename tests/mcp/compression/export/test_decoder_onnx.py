"""A decoder as ONNX says what transformers says, and codes come out of it exactly as they went in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.support.exported import (
    build_here,
    dequantized,
    greedy_onnx,
    hf_greedy,
    hf_logits,
    onnx_logits,
    quantized,
    work_of,
)
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder
from tests.support.trained import teacher_folder, texts

from agentflow.errors import BackendError, RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export.decoder_onnx import write_decoder
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.export.matmul_nbits import blocked
from agentflow.mcp.compression.export.readback import tensors_of
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.recipe import Export

TOKENS = [5, 9, 200, 31, 77, 4, 120, 8]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(source: Path, target: Path, precision: str = "fp32") -> Path:
    target.mkdir()
    write_decoder(Checkpoint.open(source), target, precision, work_of(target.parent / "scratch"), build_here)
    return target


def test_the_trained_model_as_fp32_is_written_in_its_own_process_and_has_full_greedy_parity(tmp_path: Path) -> None:
    """20 prompts of held-out text, 24 tokens each, by an unmodified onnxruntime-genai."""
    from transformers import AutoTokenizer

    work = work_of(tmp_path / "scratch")
    record = export(Export("onnx:fp32"), teacher_folder(), tmp_path / "out", work)
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder())
    prompts = [tokenizer(text[300:420])["input_ids"][:24] for text in texts("held_out")[:20]]
    model = dequantized(teacher_folder())
    assert greedy_onnx(tmp_path / "out", prompts, 24) == [hf_greedy(model, prompt, 24) for prompt in prompts]
    assert record.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert list(work.scratch.iterdir()) == []  # nothing is left behind
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.onnx", "genai_config.json", "tokenizer.json", "config.json", "LICENSE"} <= names


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_says_what_transformers_says(tmp_path: Path, architecture: str, tied: bool) -> None:
    source = tiny_decoder(tmp_path / "m", architecture, tied=tied)
    out = written(source, tmp_path / "out")
    np.testing.assert_allclose(onnx_logits(out, TOKENS), hf_logits(dequantized(source), TOKENS), atol=2e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_quantised_model_of_every_architecture_is_the_dequantised_one(tmp_path: Path, architecture: str) -> None:
    source = quantized(tiny_decoder(tmp_path / "m", architecture), "w4g32", tmp_path / "q")
    out = written(source, tmp_path / "out")
    np.testing.assert_allclose(onnx_logits(out, TOKENS, exact=True), hf_logits(dequantized(source), TOKENS), atol=2e-4)


@pytest.mark.parametrize("scheme", ["w8g64", "w8", "w4g16-asym", "w3g32-asym", "w2g32"])
def test_codes_of_every_width_are_carried_exactly(tmp_path: Path, scheme: str) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), scheme, tmp_path / "q")
    out = written(source, tmp_path / "out")
    np.testing.assert_allclose(onnx_logits(out, TOKENS, exact=True), hf_logits(dequantized(source), TOKENS), atol=2e-4)
    codes = FullPrecision(Checkpoint.open(source)).codes
    for name in codes:
        matrix = blocked(codes[name])
        assert np.array_equal(matrix.dequantized(), codes[name].dequantize(torch.float32).numpy()), name


def test_the_trained_model_of_four_bits_writes_what_the_dequantised_one_writes(tmp_path: Path) -> None:
    """With exact inputs every token is the same; as it is shipped, inputs are rounded, and nearly all are."""
    from transformers import AutoTokenizer

    source = quantized(teacher_folder(), "w4g64", tmp_path / "q")
    out = written(source, tmp_path / "out")
    tokenizer, model = AutoTokenizer.from_pretrained(source), dequantized(source)
    for text in texts("held_out")[:5]:
        tokens = tokenizer(text[300:700])["input_ids"][:96]
        said = hf_logits(model, tokens)
        exact = onnx_logits(out, tokens, exact=True)
        np.testing.assert_allclose(exact, said, atol=2e-3)
        assert np.array_equal(exact.argmax(-1), said.argmax(-1))
        assert (onnx_logits(out, tokens).argmax(-1) == said.argmax(-1)).mean() > 0.9
    record = {each.name: each for each in tensors_of(out)}["model.layers.0.mlp.up_proj.MatMul.weight"]
    assert record.bits == 4
    assert record.stored_bits == 4.5  # scales of 32 bits for 64 codes


def test_matrices_of_query_and_key_with_different_groups_stay_apart(tmp_path: Path) -> None:
    ignored = ("lm_head", "model.layers.1.self_attn.k_proj")
    source = quantized(tiny_decoder(tmp_path / "m"), "w4g32", tmp_path / "q", ignore=ignored)
    out = written(source, tmp_path / "out")
    np.testing.assert_allclose(onnx_logits(out, TOKENS, exact=True), hf_logits(dequantized(source), TOKENS), atol=2e-4)
    types = {each.name: each.type for each in tensors_of(out)}
    assert types["model.layers.1.attn.k_proj.MatMul.weight"] == "F32"
    assert types["model.layers.1.attn.q_proj.MatMul.weight"] == "int4 g32"


def test_a_quantised_head_is_carried_too(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), "w4g32", tmp_path / "q", ignore=())
    out = written(source, tmp_path / "out")
    np.testing.assert_allclose(onnx_logits(out, TOKENS, exact=True), hf_logits(dequantized(source), TOKENS), atol=2e-4)
    assert {each.name: each.type for each in tensors_of(out)}["lm_head.MatMul.weight"] == "int4 g32"


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("int4", 4)])
def test_a_model_in_full_precision_is_quantised_by_the_builder(tmp_path: Path, precision: str, bits: int) -> None:
    out = written(tiny_decoder(tmp_path / "m"), tmp_path / "out", precision)
    records = [each for each in tensors_of(out) if "_proj" in each.name]
    assert records
    assert {each.bits for each in records} == {float(bits)}
    assert np.isfinite(onnx_logits(out, TOKENS)).all()


def test_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), "w4g32", tmp_path / "q")
    first, second = written(source, tmp_path / "a"), written(source, tmp_path / "b")
    for name in ("model.onnx", "model.onnx.data"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_group_without_blocks_is_refused_by_name(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), "w4g8", tmp_path / "q")
    with pytest.raises(RecipeError, match="a group of 8 is no multiple of 16"):
        written(source, tmp_path / "out")


def test_rounded_activations_are_refused(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), "w8a8", tmp_path / "q")
    with pytest.raises(RecipeError, match="export it as compressed-tensors"):
        export(Export("onnx"), source, tmp_path / "out", work_of(tmp_path / "scratch"))
    assert not (tmp_path / "out").exists()


def test_a_graph_that_has_no_place_for_codes_is_an_error_and_not_a_loss(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), "w4g32", tmp_path / "q")

    def forgetful(job: dict[str, str], scratch: Path, check: object) -> None:
        build_here(job, scratch, lambda: None)
        path = Path(job["target"]) / "model.onnx"
        model = onnx.load(str(path), load_external_data=False)
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = name.replace("layers.0.mlp.up_proj.MatMul.weight", "renamed")
        for tensor in model.graph.initializer:
            tensor.name = tensor.name.replace("layers.0.mlp.up_proj.MatMul.weight", "renamed")
        path.write_bytes(model.SerializeToString())

    (tmp_path / "out").mkdir()
    with pytest.raises(BackendError, match=r"no place for the codes of model\.layers\.0\.mlp\.up_proj\.weight"):
        write_decoder(Checkpoint.open(source), tmp_path / "out", "fp32", work_of(tmp_path / "s"), forgetful)
