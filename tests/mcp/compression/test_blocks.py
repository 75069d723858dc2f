"""A model walked layer by layer says what the whole model says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder

from agentflow.errors import RecipeError
from agentflow.mcp.compression.blocks import Block, Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.work import CancelledWork

WINDOWS = torch.randint(0, 300, (11, 20), generator=torch.Generator().manual_seed(1))


def whole(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(WINDOWS).logits
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
