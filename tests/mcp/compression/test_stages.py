"""Stages in order: what has ended is not done again, and what a reader must know is said."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
import torch
from tests.support.tiny_models import tiny_decoder

from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.recipe import Distill, Export, Prune, Quantize, Recipe
from agentflow.mcp.compression.settings import Settings
from agentflow.mcp.compression.stages import Made, Stages
from agentflow.mcp.compression.workspace import Workspace

TEXTS = tuple(f"the tide rises {number} times and the moon pulls the sea" for number in range(60))
HELD_OUT = tuple(f"and the tide falls {number} times" for number in range(40))
UNTRAINED = "nothing was trained after parts were taken out: let Distill follow"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    return tiny_decoder(tmp_path / "model")


def run(model: Path, recipe: Recipe, *, seed: int = 0) -> tuple[Made, list[str]]:
    """What was made, and what was told on the way: nothing is told of a stage that is not run."""
    settings = Settings(
        output=model.parent / "small", name="small", calibration=TEXTS, training=TEXTS, evaluation=HELD_OUT,
        length=32, calibration_windows=8, evaluation_windows=4, seed=seed,
    )  # fmt: skip
    workspace, told = Workspace(model.parent / ".small.work"), list[str]()
    with workspace.held():
        made = Stages(recipe, Checkpoint.open(model), settings).run(
            workspace, sha256="0", progress=lambda what, done, of: told.append(what), cancelled=Event()
        )
    return made, told


def test_a_model_that_was_cut_and_not_trained_says_so(model: Path) -> None:
    cut, _ = run(model, Recipe(Prune(depth=0.7), Export("hf")))
    assert cut.records[0].notes == (UNTRAINED,)
    trained, _ = run(model, Recipe(Prune(width=0.5), Distill(steps=1, batch=2, length=32), Export("hf")))
    assert UNTRAINED not in trained.records[0].notes


def test_stages_that_two_recipes_share_are_done_once(model: Path) -> None:
    _, told = run(model, Recipe(Prune(depth=0.7), Quantize("w8")))
    assert any("prun" in what for what in told)
    made, told = run(model, Recipe(Prune(depth=0.7), Quantize("w4g32")))
    assert not [what for what in told if "prun" in what]
    assert [record.kind for record in made.records] == ["prune", "quantize"]
    assert made.folder.is_dir()


def test_another_seed_is_another_result(model: Path) -> None:
    recipe = Recipe(Prune(depth=0.7))
    run(model, recipe)
    _, told = run(model, recipe, seed=1)
    assert told
