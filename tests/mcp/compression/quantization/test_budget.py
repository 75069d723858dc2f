"""Bits go where they are needed: within a size, or until the model differs by no more than was allowed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import CalibrationError, RecipeError
from agentflow.mcp.compression.blocks import Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization.allocation import Choice, cheapest, fitting
from agentflow.mcp.compression.quantization.layers import layers_of
from agentflow.mcp.compression.quantization.sensitivity import measured
from agentflow.mcp.compression.recipe import Quantize

TEXT = torch.randint(0, 300, (12, 32), generator=torch.Generator().manual_seed(5))
UNIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def uneven(folder: Path) -> Path:
    """A model in which one layer's down_proj says nearly all, and the last layer's feed-forward part nothing."""
    source = tiny_decoder(folder)
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] *= 20
    tensors["model.layers.1.mlp.up_proj.weight"] *= 3
    tensors["model.layers.2.mlp.down_proj.weight"] *= 1e-3
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    return source


def kl(source: Path, other: Path) -> float:
    one, two = (of_our_numbers(folder, TEXT).log_softmax(-1) for folder in (source, other))
    return float((one.exp() * (one - two)).sum(-1).mean())


# ---- the knapsack ------------------------------------------------------------------------------------------------


@st.composite
def knapsacks(draw: st.DrawFn) -> dict[tuple[str, ...], tuple[Choice, ...]]:
    units = draw(st.integers(1, 4))
    found: dict[tuple[str, ...], tuple[Choice, ...]] = {}
    for unit in range(units):
        weights = draw(st.integers(1, 9))
        losses = sorted(draw(st.lists(st.floats(0, 1), min_size=4, max_size=4)), reverse=True)
        found[(f"unit {unit}",)] = tuple(
            Choice(bits, bits * weights, loss) for bits, loss in zip((2, 3, 4, 8), losses, strict=True)
        )
    return found


@given(knapsacks(), st.floats(0, 1))
def test_what_is_chosen_fits_and_nothing_more_would(
    choices: dict[tuple[str, ...], tuple[Choice, ...]], share: float
) -> None:
    smallest = sum(each[0].size for each in choices.values())
    most = smallest + share * (sum(each[-1].size for each in choices.values()) - smallest)
    chosen = fitting(choices, most)
    used = sum(choice.size for choice in chosen.values())
    assert used <= most
    for unit, each in choices.items():
        for choice in each:
            if choice.size > chosen[unit].size and choice.loss < chosen[unit].loss:
                assert used - chosen[unit].size + choice.size > most


@given(knapsacks(), st.floats(0, 2))
def test_a_loss_that_is_allowed_is_kept_if_it_can_be(
    choices: dict[tuple[str, ...], tuple[Choice, ...]], most: float
) -> None:
    lost = sum(choice.loss for choice in cheapest(choices, most).values())
    assert lost <= most or lost == pytest.approx(sum(each[-1].loss for each in choices.values()))


@given(knapsacks(), st.floats(0.1, 1))
def test_the_greedy_choice_is_near_the_best_one(
    choices: dict[tuple[str, ...], tuple[Choice, ...]], share: float
) -> None:
    """Against all there are: it loses no more than one unit's step, which is the bound of greed in a knapsack."""
    smallest = sum(each[0].size for each in choices.values())
    most = smallest + share * (sum(each[-1].size for each in choices.values()) - smallest)
    lost = sum(choice.loss for choice in fitting(choices, most).values())
    best = min(
        sum(choice.loss for choice in all_of)
        for all_of in itertools.product(*choices.values())
        if sum(choice.size for choice in all_of) <= most
    )
    step = max(each[0].loss - each[-1].loss for each in choices.values())
    assert best - 1e-9 <= lost <= best + step + 1e-9


def test_a_budget_below_the_smallest_file_is_refused() -> None:
    with pytest.raises(RecipeError, match="less than the smallest"):
        fitting({("unit",): (Choice(2, 100, 1.0), Choice(8, 400, 0.0))}, 99)


# ---- what is measured --------------------------------------------------------------------------------------------


def test_a_units_loss_is_the_kl_of_the_model_with_it_alone_rounded(tmp_path: Path) -> None:
    """By quantising a folder in which all else is ignored."""
    source = uneven(tmp_path / "model")
    checkpoint = Checkpoint.open(source)
    stage = Quantize("w4g16")
    found = measured(Blocks(checkpoint), layers_of(checkpoint, stage), work_of(tmp_path, TEXT))
    assert len(found.losses) == 3 * 4
    for block, names, bits in ((0, UNIT, 2), (1, ("mlp.down_proj",), 4), (2, ("mlp.gate_proj", "mlp.up_proj"), 3)):
        full = tuple(f"model.layers.{block}.{name}" for name in names)
        others = tuple(name for name in layers_of(checkpoint, stage).schemes if name not in full)
        target = tmp_path / f"{block}"
        quantized(Quantize(f"w{bits}g16", ignore=("lm_head", *others)), source, target)
        assert found.losses[full][bits] == pytest.approx(kl(source, target), rel=1e-3, abs=1e-7)


def test_without_text_nothing_can_be_measured(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="measuring"):
        quantized(Quantize("w4g16", budget="4 bits"), tiny_decoder(tmp_path / "m"), tmp_path / "out", NO_TEXT)


# ---- what is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rtn", "hqq", "gptq", "awq"])
def test_a_size_is_kept_and_bits_go_where_they_are_needed(tmp_path: Path, method: str) -> None:
    source = uneven(tmp_path / "model")
    stage = Quantize("w4g16", method=method, budget="6 bits")  # type: ignore[arg-type]
    record = quantized(stage, source, tmp_path / "out", TEXT)
    stored, several = record.facts["stored_bits"], record.facts["layers_of_bits"]
    assert isinstance(stored, float)
    assert isinstance(several, dict)
    assert 5 < stored <= 6  # of which 2 are scales
    assert len(several) > 1
    weights = weights_of(tmp_path / "out")
    assert weights["model.layers.1.mlp.down_proj.weight"].bits > weights["model.layers.2.mlp.down_proj.weight"].bits
    torch.testing.assert_close(
        of_transformers(tmp_path / "out", TEXT[:3]), of_our_numbers(tmp_path / "out", TEXT[:3]), atol=1e-4, rtol=1e-4
    )


def test_the_same_size_loses_less_than_the_same_bits_everywhere(tmp_path: Path) -> None:
    source = uneven(tmp_path / "model")
    quantized(Quantize("w4g16"), source, tmp_path / "same")
    quantized(Quantize("w4g16", budget="6 bits"), source, tmp_path / "mixed", TEXT)
    assert kl(source, tmp_path / "mixed") < 0.7 * kl(source, tmp_path / "same")


def test_what_runs_together_gets_the_same_bits(tmp_path: Path) -> None:
    """vLLM joins q, k and v, and gate and up, and refuses different schemes in one."""
    quantized(Quantize("w4g16", budget="5.5 bits"), uneven(tmp_path / "model"), tmp_path / "out", TEXT)
    weights = weights_of(tmp_path / "out")
    for block in range(3):
        for together in (UNIT, ("mlp.gate_proj", "mlp.up_proj")):
            assert len({weights[f"model.layers.{block}.{name}.weight"].bits for name in together}) == 1
    groups = config_of(tmp_path / "out")["config_groups"]
    assert sum(len(group["targets"]) for group in groups.values()) == 3 * 7


@pytest.mark.parametrize("method", ["rtn", "gptq"])
@pytest.mark.parametrize("limit", [0.003, 0.0003])
def test_a_kl_is_kept_and_said(tmp_path: Path, method: str, limit: float) -> None:
    source = uneven(tmp_path / "model")
    stage = Quantize("w4g16", method=method, budget=f"kl {limit}")  # type: ignore[arg-type]
    record = quantized(stage, source, tmp_path / "out", TEXT)
    found = record.facts["calibration_kl"]
    assert isinstance(found, float)
    assert found <= limit
    assert found == pytest.approx(kl(source, tmp_path / "out"), rel=0.01)


def test_a_kl_that_no_bits_keep_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = uneven(tmp_path / "model")
    with pytest.raises(RecipeError, match="8 bits everywhere"):
        quantized(Quantize("w4g16", budget="kl 0.00000001"), source, tmp_path / "out", TEXT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_the_head_takes_part_where_it_is_not_ignored(tmp_path: Path) -> None:
    source = uneven(tmp_path / "model")
    record = quantized(Quantize("w4g16", budget="kl 0.002", ignore=()), source, tmp_path / "out", TEXT)
    assert record.facts["calibration_kl"] == pytest.approx(kl(source, tmp_path / "out"), rel=0.01)
    assert "lm_head.weight" in weights_of(tmp_path / "out")
