"""What will not work is said in seconds, with its reason, before hours are spent."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import CompressionError, ModelFolderError, RecipeError, ShortageError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.preflight import finite_weights, fits, usable_device
from agentflow.mcp.compression.recipe import Distill, Export, Prune, Quantize, Recipe
from agentflow.mcp.compression.resources import Needs, available_memory, enough, needs_of


@pytest.fixture
def model(tmp_path: Path) -> Checkpoint:
    return Checkpoint.open(tiny_decoder(tmp_path / "model"))


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (Recipe(Prune(depth=0.1)), "stage 1: depth 0.1 of 3 layers leaves none"),
        (Recipe(Prune(depth=0.4), Prune(depth=0.4)), "stage 2: depth 0.4 of 1 layers leaves none"),
        (Recipe(Distill(steps=1, length=200)), "stage 1: windows of 200 tokens are longer than .* context of 128"),
        (Recipe(Quantize("w4g48")), "stage 1: groups of 48 do not divide the .* columns of model.layers.0"),
        (Recipe(Quantize("w4g128")), "stage 1: groups of 128 do not divide the 64 columns of model.layers.0"),
        (Recipe(Quantize("w4g128", ignore=("lm_head", "[!d]*_proj"))), None),
    ],
)
def test_a_recipe_that_does_not_fit_the_model_names_the_stage(
    model: Checkpoint, recipe: Recipe, reason: str | None
) -> None:
    if reason is None:
        fits(recipe, model)
    else:
        with pytest.raises(RecipeError, match=reason):
            fits(recipe, model)


def test_a_quantised_model_is_no_beginning(model: Checkpoint) -> None:
    model.config = {**model.config, "quantization_config": {"bits": 4}}
    with pytest.raises(ModelFolderError, match="it is quantised already"):
        fits(Recipe(Export("onnx")), model)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (Recipe(Quantize("w8")), "quantize is for decoders; BertModel becomes smaller by"),
        (Recipe(Prune(width=0.5)), "of BertModel only layers can be taken out"),
        (Recipe(Export("gguf:q8_0")), "BertModel is exported as"),
        (Recipe(Prune(depth=0.5), Export("onnx:int8")), None),
    ],
)
def test_an_encoder_has_stages_of_its_own(model: Checkpoint, recipe: Recipe, reason: str | None) -> None:
    model.config = {**model.config, "architectures": ["BertModel"]}
    if reason is None:
        fits(recipe, model)
    else:
        with pytest.raises(RecipeError, match=reason):
            fits(recipe, model)


def test_a_device_that_is_not_there_is_named() -> None:
    usable_device("cpu")
    with pytest.raises(CompressionError, match="PyTorch cannot use the device 'cuda:7'"):
        usable_device("cuda:7")


def test_every_weight_is_looked_at(model: Checkpoint) -> None:
    finite_weights(model)
    (model.folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFolderError, match="is damaged"):
        finite_weights(Checkpoint(model.folder, model.config, model.tensors))


# ---- memory and disk ------------------------------------------------------------------------------------------


def test_the_stage_that_needs_the_most_is_named(model: Checkpoint, tmp_path: Path) -> None:
    needs = needs_of(Recipe(Distill(steps=1), Export("onnx")), model, windows=64, length=128)
    with pytest.raises(ShortageError, match="distill needs the most") as told:
        enough(needs, tmp_path, memory=1_000_000)
    assert told.value.resource == "memory"
    assert told.value.needed == needs.memory


def test_a_disk_that_is_too_small_is_told(tmp_path: Path) -> None:
    with pytest.raises(ShortageError, match="of disk are needed"):
        enough(Needs(memory=0, stage="export", disk=10**18), tmp_path / "not" / "there" / "yet")


def test_what_is_free_lets_a_small_recipe_run(model: Checkpoint, tmp_path: Path) -> None:
    assert (available_memory() or 1) > 0
    enough(needs_of(Recipe(Quantize("w4g64")), model, windows=8, length=64), tmp_path, memory=2_000_000_000)


def test_longer_texts_and_larger_batches_need_more(model: Checkpoint) -> None:
    def memory(recipe: Recipe, windows: int = 8) -> int:
        return needs_of(recipe, model, windows=windows, length=128).memory

    assert memory(Recipe(Quantize("w4g64")), windows=10_000) > memory(Recipe(Quantize("w4g64")))
    assert memory(Recipe(Distill(steps=1, batch=256))) > memory(Recipe(Distill(steps=1, batch=1)))
