"""A model walked layer by layer says what the whole model says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder

from agentflow.errors import ModelFolderError, RecipeError
from agentflow.mcp.compression.blocks import Block, Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.work import CancelledWork

WINDOWS = torch.randint(0, 300, (11, 20), generator=torch.Generator().manual_seed(1))


def whole(folder: Path, windows: torch.Tensor = WINDOWS) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(windows).logits
    return logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_walked_or_whole_the_logits_are_the_same(tmp_path: Path, architecture: str, tied: bool) -> None:
    folder = tiny_decoder(tmp_path / "model", architecture, tied=tied)
    blocks = Blocks(Checkpoint.open(folder))
    seen: list[str] = []
    hidden = blocks.walk(WINDOWS, lambda block: seen.append(block.name))
    assert seen == ["model.layers.0", "model.layers.1", "model.layers.2"]
    torch.testing.assert_close(blocks.logits(hidden), whole(folder), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_walked_in_single_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tiny_decoder(tmp_path / "model", dtype=dtype)
    blocks = Blocks(Checkpoint.open(folder))
    torch.testing.assert_close(
        blocks.logits(blocks.walk(WINDOWS, lambda block: None)), whole(folder), atol=1e-5, rtol=1e-4
    )


def test_a_window_of_attention_that_slides_is_kept(tmp_path: Path) -> None:
    folder = tiny_decoder(tmp_path / "model", "MistralForCausalLM", sliding_window=5)
    blocks = Blocks(Checkpoint.open(folder))
    torch.testing.assert_close(
        blocks.logits(blocks.walk(WINDOWS, lambda block: None)), whole(folder), atol=1e-5, rtol=1e-4
    )


def test_what_is_done_to_a_layer_is_what_the_next_ones_see(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_decoder(tmp_path / "model")
    blocks = Blocks(Checkpoint.open(folder))

    def halve(block: Block) -> None:
        for linear in block.linears().values():
            linear.weight.mul_(0.5)

    walked = blocks.logits(blocks.walk(WINDOWS, halve))
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_proj" in name:
                weight.mul_(0.5)
        torch.testing.assert_close(walked, model(WINDOWS).logits, atol=1e-5, rtol=1e-4)


def test_the_inputs_of_each_linear_layer_can_be_seen(tmp_path: Path) -> None:
    blocks = Blocks(Checkpoint.open(tiny_decoder(tmp_path / "model")))
    rows: dict[str, int] = {}

    def look(block: Block) -> None:
        def see(name: str, given: torch.Tensor) -> None:
            assert given.shape[1] == block.linears()[name].in_features
            rows[name] = rows.get(name, 0) + len(given)

        with block.inputs_of(see):
            block.run(batch=4)

    blocks.walk(WINDOWS, look)
    assert len(rows) == 3 * 7
    assert set(rows.values()) == {WINDOWS.numel()}


def test_only_one_layer_is_in_memory(tmp_path: Path) -> None:
    blocks = Blocks(Checkpoint.open(tiny_decoder(tmp_path / "model")))
    before: list[Block] = []

    def look(block: Block) -> None:
        assert all(weight.is_meta for old in before for weight in old.module.parameters())
        assert not any(weight.is_meta for weight in block.module.parameters())
        before.append(block)

    blocks.walk(WINDOWS, look)


def test_a_walk_can_be_called_off_before_any_layer(tmp_path: Path) -> None:
    blocks = Blocks(Checkpoint.open(tiny_decoder(tmp_path / "model")))
    visits: list[int] = []

    def check() -> None:
        if visits:
            raise CancelledWork

    with pytest.raises(CancelledWork):
        blocks.walk(WINDOWS, lambda block: visits.append(block.index), check=check)
    assert visits == [0]


def test_what_is_quantised_already_is_refused(tmp_path: Path) -> None:
    folder = tiny_decoder(tmp_path / "model")
    checkpoint = Checkpoint.open(folder)
    checkpoint.config = {**checkpoint.config, "quantization_config": {"bits": 4}}
    with pytest.raises(RecipeError, match="quantised already"):
        Blocks(checkpoint)


@pytest.mark.parametrize("length", [4, 16, 40])
@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn", "dynamic", "longrope"])
def test_stretched_positions_are_those_of_transformers(tmp_path: Path, kind: str, length: int) -> None:
    """On windows shorter and longer than what the model was trained on first."""
    stretched = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
    if kind == "llama3":
        stretched |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if kind == "longrope":
        stretched |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    if kind in ("linear", "dynamic"):
        del stretched["original_max_position_embeddings"]
    folder = tiny_decoder(tmp_path / "model", rope_parameters=stretched, max_position_embeddings=32)
    windows = WINDOWS[:2].repeat(1, 2)[:, :length]
    blocks = Blocks(Checkpoint.open(folder))
    found = blocks.logits(blocks.walk(windows, lambda block: None))
    torch.testing.assert_close(found, whole(folder, windows), atol=1e-5, rtol=1e-4)


def test_a_config_of_years_ago_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    """Its positions under other names, and what was not written yet then left out."""
    folder = tiny_decoder(tmp_path / "model", num_key_value_heads=4)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in ("rope_parameters", "head_dim", "num_key_value_heads"):
        del config[name]
    config |= {"rope_theta": 500_000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    blocks = Blocks(Checkpoint.open(folder))
    found = blocks.logits(blocks.walk(WINDOWS, lambda block: None))
    torch.testing.assert_close(found, whole(folder), atol=1e-5, rtol=1e-4)


def test_a_folder_whose_weights_are_not_what_its_config_says_is_named(tmp_path: Path) -> None:
    """Of another width, or without a head that nothing else stands for."""
    folder = tiny_decoder(tmp_path / "model", tied=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"model\.layers\.0 is of another shape than its config\.json says"):
        Blocks(Checkpoint.open(folder)).walk(WINDOWS, lambda block: None)
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"no lm_head\.weight, and its config\.json does not say tie_word"):
        Blocks(Checkpoint.open(folder))
