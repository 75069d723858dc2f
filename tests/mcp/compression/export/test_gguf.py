"""A .gguf, read back by the gguf package: every tensor where llama.cpp looks for it, every code as it was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGUFReader, quants
from numpy.typing import NDArray
from tests.support.exported import quantized, work_of
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder
from tests.support.trained import teacher_folder

from agentflow.errors import ModelFolderError, RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.export.gguf_architecture import GgufArchitecture
from agentflow.mcp.compression.export.readback import tensors_of
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.recipe import Export

UP = "model.layers.0.mlp.up_proj.weight"


def written(source: Path, kind: str, target: Path) -> Path:
    export(Export(kind), source, target, work_of(target.parent / "scratch"))
    return target


def numbers_of(folder: Path) -> dict[str, NDArray[np.float32]]:
    reader = GGUFReader(str(folder / "model.gguf"))
    return {tensor.name: quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


def metadata_of(folder: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(str(folder / "model.gguf")).fields.items()}


def in_the_places_of_llama(source: Path) -> dict[str, NDArray[np.float32]]:
    """The weights under llama.cpp's names; the rows of query and key as it turns them, written out in loops."""
    checkpoint = Checkpoint.open(source)
    weights, config = FullPrecision(checkpoint), checkpoint.config
    names = GgufArchitecture.of(config)
    found = {}
    for name in weights:
        array = weights.load(name).numpy()
        part = name.split(".")[-2]
        if config["model_type"] in ("llama", "mistral") and part in ("q_proj", "k_proj"):
            heads = config["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
            half = len(array) // heads // 2
            rows = [array[head * 2 * half + side * half + place]
                    for head in range(heads) for place in range(half) for side in (0, 1)]  # fmt: skip
            array = np.stack(rows)
        found[names.tensor(name)] = array
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_of_every_architecture_is_there_bit_for_bit(tmp_path: Path, architecture: str, tied: bool) -> None:
    source = tiny_decoder(tmp_path / "m", architecture, tied=tied)
    found, expected = numbers_of(written(source, "gguf:f32", tmp_path / "out")), in_the_places_of_llama(source)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert np.array_equal(array, expected[name]), name
    assert {record.type for record in tensors_of(tmp_path / "out")} == {"F32"}


@pytest.mark.parametrize(("kind", "largest"), [("f16", 2e-3), ("q8_0", 1e-2), ("q4_0", 0.15)])
def test_fewer_bits_are_near(tmp_path: Path, kind: str, largest: float) -> None:
    found = numbers_of(written(teacher_folder(), f"gguf:{kind}", tmp_path / "out"))
    for name, array in in_the_places_of_llama(teacher_folder()).items():
        error = np.linalg.norm(found[name] - array) / np.linalg.norm(array)
        assert error <= (0 if array.ndim == 1 else largest), name  # vectors are never rounded


def test_llama_cpp_is_told_what_it_must_know(tmp_path: Path) -> None:
    told = metadata_of(written(teacher_folder(), "gguf:f16", tmp_path / "out"))
    config = json.loads((teacher_folder() / "config.json").read_text())
    assert told["general.architecture"] == "llama"
    assert told["llama.context_length"] == config["max_position_embeddings"]
    assert told["llama.attention.head_count"] == config["num_attention_heads"]
    assert told["llama.attention.head_count_kv"] == config["num_key_value_heads"]
    assert told["llama.rope.dimension_count"] == config["head_dim"]
    assert told["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(config["rms_norm_eps"])
    assert told["llama.rope.freq_base"] == 10000.0
    assert told["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert told["tokenizer.ggml.model"] == "gpt2"
    assert told["tokenizer.ggml.pre"] == "gpt-2"
    assert (told["tokenizer.ggml.bos_token_id"], told["tokenizer.ggml.eos_token_id"]) == (0, 1)
    assert told["tokenizer.ggml.add_bos_token"] is False  # the tokenizer puts nothing before a text


def test_tokens_merges_and_kinds_are_the_tokenizers(tmp_path: Path) -> None:
    told = metadata_of(written(teacher_folder(), "gguf:f16", tmp_path / "out"))
    found = json.loads((teacher_folder() / "tokenizer.json").read_text())
    vocabulary = sorted(found["model"]["vocab"], key=found["model"]["vocab"].get)
    assert told["tokenizer.ggml.tokens"] == vocabulary
    assert told["tokenizer.ggml.merges"] == [" ".join(merge) for merge in found["model"]["merges"]]
    kinds = told["tokenizer.ggml.token_type"]
    assert kinds[:3] == [gguf.TokenType.CONTROL] * 3
    assert set(kinds[3:]) == {gguf.TokenType.NORMAL}


def test_tokens_that_only_the_model_knows_are_unused(tmp_path: Path) -> None:
    told = metadata_of(written(tiny_decoder(tmp_path / "m", vocab_size=352), "gguf:f16", tmp_path / "out"))
    assert len(told["tokenizer.ggml.tokens"]) == 352
    assert told["tokenizer.ggml.token_type"][-1] == gguf.TokenType.UNUSED


def test_a_chat_template_comes_along(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "m")
    (source / "chat_template.jinja").write_text("{{ messages[0].content }} ✓", encoding="utf-8")
    told = metadata_of(written(source, "gguf:f16", tmp_path / "out"))
    assert told["tokenizer.chat_template"] == "{{ messages[0].content }} ✓"


# ---- codes that Quantize made


@pytest.mark.parametrize(("scheme", "kind", "type_"), [
    ("w4g32", "gguf:q4_0", "q4_0"),
    ("w4g64", "gguf", "q4_0"),
    ("w3g32", "gguf", "q4_0"),
    ("w4g32-asym", "gguf", "q4_1"),
    ("w8g32", "gguf:q8_0", "q8_0"),
    ("w8", "gguf", "q8_0"),
    ("w4g64", "gguf:q8_0", "q8_0"),
])  # fmt: skip
def test_codes_are_carried_over_one_by_one(tmp_path: Path, scheme: str, kind: str, type_: str) -> None:
    """What llama.cpp decodes is (code - zero) · scale with a scale of 16 bits, and nothing else is rounded."""
    source = quantized(tiny_decoder(tmp_path / "m"), scheme, tmp_path / "q")
    record = export(Export(kind), source, tmp_path / "out", work_of(tmp_path / "scratch"))
    codes = FullPrecision(Checkpoint.open(source)).codes
    found = numbers_of(tmp_path / "out")["blk.0.ffn_up.weight"]
    weight = codes[UP]
    scales = weight.scales.half().float()
    if weight.zeros is None:
        kept = weight.codes.view(*scales.shape, -1).float() * scales.unsqueeze(-1)
        assert np.array_equal(found, kept.view(weight.shape).numpy())
    else:
        np.testing.assert_allclose(found, weight.dequantize(torch.float32).numpy(), rtol=0, atol=8 * 2**-10 * 0.02)
    assert record.facts["carried"] == len(codes)
    assert record.facts["quantised_twice"] == 0
    assert any("are carried over" in note for note in record.notes)
    types = {each.name: each.type for each in tensors_of(tmp_path / "out")}
    assert types["blk.0.ffn_up.weight"] == type_


def test_scales_of_16_bits_are_carried_exactly(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m", dtype=torch.float16), "w4g32", tmp_path / "q")
    record = export(Export("gguf"), source, tmp_path / "out", work_of(tmp_path / "scratch"))
    assert record.facts["largest_change_of_a_scale"] == 0.0
    assert any(note.endswith("exactly") for note in record.notes)


def test_what_is_quantised_twice_is_called_so(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), "w8g32", tmp_path / "q")
    record = export(Export("gguf:q4_0"), source, tmp_path / "out", work_of(tmp_path / "scratch"))
    assert record.facts["carried"] == 0
    assert any(note.startswith("quantised twice") for note in record.notes)


def test_groups_that_no_block_holds_become_numbers_and_are_called_so(tmp_path: Path) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), "w4g16", tmp_path / "q")
    record = export(Export("gguf"), source, tmp_path / "out", work_of(tmp_path / "scratch"))
    assert any("stored as numbers" in note for note in record.notes)
    assert {each.type for each in tensors_of(tmp_path / "out")} == {"F16", "F32"}


# ---- what cannot be written


def test_a_row_that_no_block_divides_stays_in_16_bits(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "m", intermediate_size=120)
    types = {each.name: each.type for each in tensors_of(written(source, "gguf:q8_0", tmp_path / "out"))}
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert types["blk.0.ffn_up.weight"] == "q8_0"


def test_numbers_beyond_16_bits_are_refused_by_name(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    source = tiny_decoder(tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 1e5
    model.save_pretrained(source)
    with pytest.raises(RecipeError, match=r"layers\.1\.mlp\.up_proj\.weight holds numbers that 16 bits cannot"):
        written(source, "gguf:f16", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def edited(folder: Path, name: str, change: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change), encoding="utf-8")
    return folder


def split_by(regex: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    in_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, in_bytes]}


def test_a_split_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    source = edited(tiny_decoder(tmp_path / "m"), "tokenizer.json", {"pre_tokenizer": split_by("[a-z]+")})
    with pytest.raises(RecipeError, match="no name for how the tokenizer splits text"):
        written(source, "gguf:f16", tmp_path / "out")


_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize(("numbers", "name"), [(r"\p{N}{1,3}", "llama-bpe"), (r"\p{N}", "qwen2")])
def test_splits_of_known_families_have_their_name(tmp_path: Path, numbers: str, name: str) -> None:
    steps = split_by(_WORDS + numbers + _REST)
    source = edited(tiny_decoder(tmp_path / "m"), "tokenizer.json", {"pre_tokenizer": steps})
    assert metadata_of(written(source, "gguf:f16", tmp_path / "out"))["tokenizer.ggml.pre"] == name


def test_texts_that_are_changed_first_are_refused(tmp_path: Path) -> None:
    source = edited(tiny_decoder(tmp_path / "m"), "tokenizer.json", {"normalizer": {"type": "Lowercase"}})
    with pytest.raises(RecipeError, match="changes text first"):
        written(source, "gguf:f16", tmp_path / "out")


def test_positions_scaled_as_llama_3_1_does_get_their_factors(tmp_path: Path) -> None:
    """The factors are what transformers divides its frequencies by."""
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
    source = tiny_decoder(tmp_path / "m", rope_parameters=rope)
    factors = numbers_of(written(source, "gguf:f32", tmp_path / "out"))["rope_freqs.weight"]
    slowed = LlamaRotaryEmbedding(AutoConfig.from_pretrained(source)).inv_freq
    plain = LlamaRotaryEmbedding(AutoConfig.from_pretrained(tiny_decoder(tmp_path / "n"))).inv_freq
    np.testing.assert_allclose(factors, (plain / slowed).numpy(), rtol=1e-5)


def test_positions_scaled_in_another_way_are_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
    source = tiny_decoder(tmp_path / "m", rope_parameters=rope)
    with pytest.raises(RecipeError, match="positions scaled by yarn"):
        written(source, "gguf:f16", tmp_path / "out")


def test_a_window_that_is_left_out_is_noted(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "m", "MistralForCausalLM", sliding_window=64)
    record = export(Export("gguf:f16"), source, tmp_path / "out", work_of(tmp_path / "s"))
    assert any("sliding window of 64 tokens" in note for note in record.notes)


def test_a_model_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "m")
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelFolderError, match=r"no tokenizer\.json"):
        written(source, "gguf:f16", tmp_path / "out")
