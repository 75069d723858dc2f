"""A quantised folder is a whole model: others load it, and what it says is what its codes say."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import pytest
import torch
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file, save_file
from tests.support.quantized import (
    NO_TEXT,
    config_of,
    of_our_numbers,
    of_transformers,
    quantized,
    weights_of,
    work_of,
)
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder

from agentflow.errors import CalibrationError, ModelFolderError, RecipeError, ShortageError
from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter
from agentflow.mcp.compression.quantization import quantize
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.work import CancelledWork

GENERATOR = torch.Generator().manual_seed(5)
TEXT = torch.randint(0, 300, (18, 32), generator=GENERATOR)
ASKED = torch.randint(0, 300, (3, 24), generator=GENERATOR)
METHODS = ("rtn", "hqq", "gptq", "awq")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# ---- what is written is read by others ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_says_what_our_numbers_say(tmp_path: Path, architecture: str, method: str) -> None:
    """Unmodified, on every architecture, tied or not, with biases and norms of queries where it has them."""
    source = tiny_decoder(tmp_path / "model", architecture, tied=architecture == "Qwen3ForCausalLM")
    quantized(Quantize("w4g16", method=method), source, tmp_path / "out", TEXT)  # type: ignore[arg-type]
    theirs = of_transformers(tmp_path / "out", ASKED)
    torch.testing.assert_close(theirs, of_our_numbers(tmp_path / "out", ASKED), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "method"),
    [("w8", "gptq"), ("w8g16", "awq"), ("w3g16", "rtn"), ("w2g16", "hqq"), ("w8a8", "rtn"), ("w8a8", "gptq"),
     ("w8a8", "smoothquant"), ("w8a8-static", "smoothquant"), ("w8a8-static", "rtn")],
)  # fmt: skip
def test_every_scheme_is_read_by_transformers(tmp_path: Path, scheme: str, method: str) -> None:
    source = tiny_decoder(tmp_path / "model")
    quantized(Quantize(scheme, method=method), source, tmp_path / "out", TEXT)  # type: ignore[arg-type]
    theirs = of_transformers(tmp_path / "out", ASKED)
    torch.testing.assert_close(theirs, of_our_numbers(tmp_path / "out", ASKED), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_zero_points_are_read_by_transformers_when_it_decodes_them_first(tmp_path: Path, method: str) -> None:
    """Its other way expects zero points that are not packed, which compressed-tensors never writes."""
    source = tiny_decoder(tmp_path / "model")
    record = quantized(Quantize("w4g16-asym", method=method), source, tmp_path / "out", TEXT)  # type: ignore[arg-type]
    theirs = of_transformers(tmp_path / "out", ASKED, dequantize=True)
    torch.testing.assert_close(theirs, of_our_numbers(tmp_path / "out", ASKED), atol=1e-5, rtol=1e-5)
    assert any("dequantize=True" in note for note in record.notes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_keep_their_type(tmp_path: Path, dtype: torch.dtype) -> None:
    """Scales, norms and embeddings are what they were; so is what transformers computes with."""
    source = tiny_decoder(tmp_path / "model", dtype=dtype)
    quantized(Quantize("w4g16", method="awq"), source, tmp_path / "out", TEXT)
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        dtype, torch.int32, torch.int64,
    }  # fmt: skip
    theirs = of_transformers(tmp_path / "out", ASKED)
    torch.testing.assert_close(theirs, of_our_numbers(tmp_path / "out", ASKED), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_with_eight_bits_the_model_says_what_it_said(tmp_path: Path, method: str) -> None:
    """What is folded into norms and rows is made up for, in grouped heads and biases too."""
    source = tiny_decoder(tmp_path / "model", "Qwen2ForCausalLM")
    quantized(Quantize("w8g16", method=method), source, tmp_path / "out", TEXT)  # type: ignore[arg-type]
    torch.testing.assert_close(
        of_our_numbers(tmp_path / "out", ASKED), of_our_numbers(source, ASKED), atol=0.01, rtol=0.02
    )


# ---- what stays as it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_ignored_layers_are_the_sources_to_the_byte(tmp_path: Path, method: str) -> None:
    """Also those whose input could have been scaled, and by which another could have been."""
    source = tiny_decoder(tmp_path / "model", "Qwen2ForCausalLM")
    ignore = ("lm_head", "v_proj", "model.layers.1.mlp.*", "up_proj")
    record = quantized(Quantize("w4g16", method=method, ignore=ignore), source, tmp_path / "out", TEXT)  # type: ignore[arg-type]
    before, after = (Checkpoint.open(folder) for folder in (source, tmp_path / "out"))
    ignored = record.facts["ignored"]
    assert isinstance(ignored, list)
    assert len(ignored) == 1 + 3 + 3 + 2
    for name in before.tensors:
        if name.rpartition(".")[0] in ignored or "embed" in name:
            assert before.load(name).numpy().tobytes() == after.load(name).numpy().tobytes(), name
    assert config_of(tmp_path / "out")["ignore"] == ignored
    torch.testing.assert_close(
        of_transformers(tmp_path / "out", ASKED), of_our_numbers(tmp_path / "out", ASKED), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("method", ["rtn", "hqq", "gptq"])
def test_methods_that_scale_nothing_leave_all_else_alone(tmp_path: Path, method: str) -> None:
    source = tiny_decoder(tmp_path / "model", "Qwen3ForCausalLM")
    quantized(Quantize("w4g16", method=method), source, tmp_path / "out", TEXT)  # type: ignore[arg-type]
    before, after = (Checkpoint.open(folder) for folder in (source, tmp_path / "out"))
    same = [name for name in before.tensors if name in after.tensors]
    assert {name for name in before.tensors if "norm" in name or "embed" in name or "lm_head" in name} == set(same)
    assert all(torch.equal(before.load(name), after.load(name)) for name in same)


def test_the_head_can_be_quantised(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    quantized(Quantize("w4g16", method="gptq", ignore=()), source, tmp_path / "out", TEXT)
    assert "lm_head.weight" in weights_of(tmp_path / "out")
    torch.testing.assert_close(
        of_transformers(tmp_path / "out", ASKED), of_our_numbers(tmp_path / "out", ASKED), atol=1e-5, rtol=1e-5
    )


def test_a_tied_head_stays_with_the_embeddings(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model", tied=True)
    record = quantized(Quantize("w4g16", ignore=()), source, tmp_path / "out")
    assert len(weights_of(tmp_path / "out")) == 3 * 7
    assert config_of(tmp_path / "out")["ignore"] == ["lm_head"]
    assert any("tied" in note for note in record.notes)


def test_what_goes_with_the_weights_comes_along(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    (source / "LICENSE").write_text("Ünïcode: free", encoding="utf-8")
    quantized(Quantize("w4g16"), source, tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert Checkpoint.open(tmp_path / "out").tokenizer("the sea")["input_ids"]


def test_tensors_that_no_layer_knows_are_kept(tmp_path: Path) -> None:
    """As old checkpoints have them (rotary_emb.inv_freq)."""
    source = tiny_decoder(tmp_path / "model")
    odd = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.rand(8)}
    save_file({**load_file(source / "model.safetensors"), **odd}, source / "model.safetensors", {"format": "pt"})
    quantized(Quantize("w4g16", method="gptq"), source, tmp_path / "out", TEXT)
    (name,) = odd
    assert torch.equal(Checkpoint.open(tmp_path / "out").load(name), odd[name])


# ---- what is said of it ------------------------------------------------------------------------------------------


def test_the_configuration_is_one_of_compressed_tensors(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    quantized(Quantize("w8a8-static"), source, tmp_path / "out", TEXT)
    config = config_of(tmp_path / "out")
    group = QuantizationConfig.model_validate({k: v for k, v in config.items() if k != "version"}).config_groups
    assert config["format"] == "int-quantized"
    assert config["quant_method"] == "compressed-tensors"
    assert list(group) == ["group_0"]


def test_the_record_says_how_each_layer_fared(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    record = quantized(Quantize("w3g16", method="gptq"), source, tmp_path / "out", TEXT)
    layers = record.facts["layers"]
    assert isinstance(layers, dict)
    assert len(layers) == 3 * 7
    for facts in layers.values():
        assert 0 < facts["error"] <= facts["rtn_error"]
        assert facts["bits"] == 3
    assert record.facts["bits"] == 3
    assert record.facts["stored_bits"] == 3 + 32 / 16
    assert record.parameters == Checkpoint.open(source).parameters
    assert record.kind == "quantize"
    json.dumps(record.facts)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_the_same_work_writes_the_same_bytes(tmp_path: Path, method: str) -> None:
    source = tiny_decoder(tmp_path / "model")
    found = []
    for name in ("one", "two"):
        quantized(Quantize("w4g16", method=method), source, tmp_path / name, TEXT)  # type: ignore[arg-type]
        found.append(hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest())
    assert found[0] == found[1]


def test_progress_is_told_and_the_source_is_left_alone(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    before = Checkpoint.open(source).sha256()
    told: list[tuple[str, int, int]] = []
    quantize(
        Quantize("w4g16", method="gptq"), source, tmp_path / "out",
        work_of(tmp_path, TEXT, progress=lambda *step: told.append(step)),
    )  # fmt: skip
    assert ("quantize", 2, 3) in told
    assert Checkpoint.open(source).sha256() == before


def test_shards_hold_what_one_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_decoder(tmp_path / "model")
    monkeypatch.setattr(ShardWriter.__init__, "__defaults__", (20_000,))
    quantized(Quantize("w4g16", method="gptq"), source, tmp_path / "out", TEXT)
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    torch.testing.assert_close(
        of_transformers(tmp_path / "out", ASKED), of_our_numbers(tmp_path / "out", ASKED), atol=1e-5, rtol=1e-5
    )


# ---- what cannot be done -----------------------------------------------------------------------------------------


def test_groups_that_do_not_fill_a_layer_are_refused_by_its_name(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model", intermediate_size=72)
    with pytest.raises(RecipeError, match=r"model\.layers\.0\.mlp\.down_proj has 72 .*groups of 16.*groups of 8 fit"):
        quantized(Quantize("w4g16"), source, tmp_path / "out")
    quantized(Quantize("w4g16", ignore=("lm_head", "down_proj")), source, tmp_path / "out")


def test_a_model_of_which_all_is_ignored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nothing is left"):
        quantized(Quantize("w4g16", ignore=("*",)), tiny_decoder(tmp_path / "model"), tmp_path / "out")


def test_what_is_quantised_is_not_quantised_again(tmp_path: Path) -> None:
    quantized(Quantize("w4g16"), tiny_decoder(tmp_path / "model"), tmp_path / "out")
    with pytest.raises(RecipeError, match="already"):
        quantized(Quantize("w4g16"), tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize(("scheme", "method"), [("w4g16", "gptq"), ("w4g16", "awq"), ("w8a8", "smoothquant"),
                                                ("w8a8-static", "rtn")])  # fmt: skip
@pytest.mark.parametrize("text", [NO_TEXT, TEXT[:3]])
def test_too_little_text_is_refused_before_anything_is_written(
    tmp_path: Path, scheme: str, method: str, text: torch.Tensor
) -> None:
    source = tiny_decoder(tmp_path / "model")
    with pytest.raises(CalibrationError, match="256"):
        quantized(Quantize(scheme, method=method), source, tmp_path / "out", text)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_gptq_wants_as_many_tokens_as_a_layer_has_channels(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model", intermediate_size=512)
    with pytest.raises(CalibrationError, match=r"512.*384"):
        quantized(Quantize("w4g16", method="gptq"), source, tmp_path / "out", TEXT[:12])


def test_a_damaged_weight_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    for method in METHODS:
        with pytest.raises(ModelFolderError, match=r"layers\.2\.mlp\.up_proj"):
            quantized(Quantize("w4g16", method=method), source, tmp_path / "out", TEXT)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_cancelled_in_the_middle_nothing_is_left(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    work = work_of(tmp_path, TEXT)

    def cancel(what: str, done: int, of: int) -> None:
        if done == 1:
            work.cancelled.set()

    again = work_of(tmp_path, TEXT, progress=cancel, cancelled=work.cancelled)
    with pytest.raises(CancelledWork):
        quantize(Quantize("w4g16", method="gptq"), source, tmp_path / "out", again)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_decoder(tmp_path / "model")

    def full(writer: ShardWriter) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(ShardWriter, "_flush", full)
    with pytest.raises(ShortageError):
        quantized(Quantize("w4g16", method="gptq"), source, tmp_path / "out", TEXT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_weights_that_are_all_zero_stay_zero(tmp_path: Path) -> None:
    """And channels that no text ever uses do no harm."""
    source = tiny_decoder(tmp_path / "model")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"].zero_()
    tensors["model.layers.1.input_layernorm.weight"][:8] = 0
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    for method, scheme in (("hqq", "w4g16"), ("hqq", "w2g16-asym"), ("gptq", "w2g16-asym"), ("awq", "w4g16")):
        target = tmp_path / f"{method}-{scheme}"
        quantized(Quantize(scheme, method=method), source, target, TEXT)  # type: ignore[arg-type]
        weights = weights_of(target)
        assert not weights["model.layers.0.mlp.up_proj.weight"].dequantize().any()
        assert all(weight.dequantize().isfinite().all() for weight in weights.values())
        assert of_our_numbers(target, ASKED).isfinite().all()
