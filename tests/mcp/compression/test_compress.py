"""From a model folder to an artifact in one call; killed, cancelled or below its gate, and what then stands where."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import (
    CalibrationError,
    CompressionError,
    ModelFolderError,
    QualityGateError,
    RecipeError,
    ShortageError,
)
from agentflow.mcp.compression import resources
from agentflow.mcp.compression.artifact.artifact import Artifact
from agentflow.mcp.compression.artifact.gate import Gate
from agentflow.mcp.compression.compress import compress
from agentflow.mcp.compression.measurement.speed import SpeedPlan
from agentflow.mcp.compression.recipe import Distill, Export, Prune, Quantize, Recipe

TEXTS = [f"the tide rises {number} times and the moon pulls the sea" for number in range(60)]
HELD_OUT = [f"and the tide falls {number} times" for number in range(40)]
QUICK = SpeedPlan(output_tokens=4, repeats=1, starts=1, threads=1)
WHOLE = Recipe(
    Prune(depth=0.7, width=0.5),
    Distill(steps=3, batch=4, length=32, evaluate_every=2),
    Quantize("w4g32", method="gptq"),
    Export("onnx"),
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tiny_decoder(tmp_path / "model")
    (folder / "LICENSE").write_text("Free to use.\n")
    return folder


async def compressed(model: Path, recipe: Recipe, **changes: Any) -> Artifact:
    given: dict[str, Any] = {
        "calibration": TEXTS,
        "evaluation": HELD_OUT,
        "output": model.parent / "small",
        "length": 32,
        "calibration_windows": 8,
        "evaluation_windows": 4,
        "plan": QUICK,
    }
    return await compress(model, recipe, **{**given, **changes})


@pytest.mark.timeout(400)  # several processes start, each of which loads PyTorch
async def test_one_call_prunes_distils_quantises_exports_measures_and_says_what_was_lost(model: Path) -> None:
    told: list[str] = []
    artifact = await compressed(
        model, WHOLE, notes=["our own"], gate=Gate(kl=50), progress=lambda what, done, of: told.append(what)
    )
    manifest = Artifact.open(artifact.folder).manifest
    assert [stage.kind for stage in manifest.recipe] == ["prune", "distill", "quantize", "export"]
    assert manifest.source.notes == ("our own",)
    assert manifest.source.licence == "Free to use."
    assert (manifest.task, manifest.format) == ("generate", "onnx")
    assert manifest.parameters < manifest.source.parameters
    assert manifest.bytes < manifest.source.bytes
    [after] = manifest.after
    assert manifest.before is not None
    assert manifest.before.perplexity is not None
    assert after.perplexity is not None
    assert after.kl
    assert after.speed is not None
    assert after.speed.tokens_per_second > 0
    assert set(manifest.loaded_by) == {"onnxruntime", "onnxruntime-genai"}
    assert {tensor.bits for tensor in manifest.tensors} >= {4.0}
    assert told
    assert not [path for path in model.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.timeout(400)
async def test_an_artifact_below_its_gate_stands_there_with_the_verdict_and_is_refused(model: Path) -> None:
    with pytest.raises(QualityGateError, match=r"kl .* is above 1e-09") as told:
        await compressed(model, Recipe(Quantize("w4g32"), Export("compressed-tensors")), gate=Gate(kl=1e-9))
    manifest = Artifact.open(model.parent / "small").manifest
    assert manifest.gate is not None
    assert manifest.gate.failures == told.value.failures


# ---- cut off --------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from tests.mcp.compression import test_compress as this
def progress(what, done, of):
    print(what, flush=True)
    if {where!r} in what:
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(this.compressed(Path({model!r}), this.WHOLE, progress=progress))
"""


@pytest.mark.timeout(400)
def test_a_run_that_was_killed_goes_on_after_the_last_stage_that_ended(model: Path) -> None:
    root = str(Path(__file__).resolve().parents[3])
    program = PROGRAM.format(root=root, model=str(model), where="quanti")
    killed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ended = [path.name for path in (model.parent / ".small.work").glob("*.json")]
    assert sorted(name.split("-")[1] for name in ended) == ["distill", "prune"]
    told: list[str] = []
    artifact = asyncio.run(compressed(model, WHOLE, progress=lambda what, done, of: told.append(what)))
    assert len(artifact.manifest.recipe) == 4
    assert not [what for what in told if "distil" in what]


async def test_who_cancels_gets_his_thread_back_and_can_go_on(model: Path) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    told: list[str] = []

    def progress(what: str, done: int, of: int) -> None:
        told.append(what)
        loop.call_soon_threadsafe(begun.set)

    recipe = Recipe(Distill(steps=100_000, batch=4, length=32, evaluate_every=10), Export("hf"))
    task = asyncio.ensure_future(compressed(model, recipe, progress=progress))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (model.parent / "small").exists()
    told.clear()
    await asyncio.sleep(0)
    assert told == []


# ---- said beforehand ------------------------------------------------------------------------------------------


def no_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()


def another_tokenizer(model: Path) -> None:
    import json

    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 200}))


def not_a_number(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def nothing(model: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("harm", "changes", "error", "reason"),
    [
        (no_tokenizer, {}, ModelFolderError, "it has no tokenizer"),
        (another_tokenizer, {}, ModelFolderError, "its tokenizer has a token .*, and the model knows 200"),
        (not_a_number, {}, ModelFolderError, "model.norm.weight holds NaN"),
        (nothing, {"calibration": ["short"]}, CalibrationError, "calibration needs at least 32 tokens"),
        (nothing, {"evaluation": ["short"]}, CalibrationError, "evaluation needs at least 32 tokens"),
        (nothing, {"training": ["a few words to learn from"]}, CalibrationError, "training needs at least 128 tokens"),
        (nothing, {"evaluation": TEXTS}, CompressionError, "60 texts of `evaluation` are in"),
        (nothing, {"calibration": "one text"}, CompressionError, "calibration is a list of texts"),
        (nothing, {"device": "cuda:9"}, CompressionError, "cannot use the device 'cuda:9'"),
        (nothing, {"length": 4}, CompressionError, "too short"),
    ],
)
async def test_what_cannot_work_is_said_before_any_stage(
    model: Path, harm: Callable[[Path], None], changes: dict[str, Any], error: type[Exception], reason: str
) -> None:
    harm(model)
    told: list[str] = []
    with pytest.raises(error, match=reason):
        await compressed(model, WHOLE, progress=lambda what, done, of: told.append(what), **changes)
    assert told == []
    assert not (model.parent / "small").exists()


async def test_too_little_memory_is_predicted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 10_000_000)
    with pytest.raises(ShortageError, match="of memory are needed"):
        await compressed(model, WHOLE)


async def test_an_output_that_is_there_is_left_alone(model: Path) -> None:
    (model.parent / "small").mkdir()
    with pytest.raises(CompressionError, match="exists already; nothing is ever written over"):
        await compressed(model, WHOLE)


async def test_a_recipe_that_does_not_fit_names_its_stage(model: Path) -> None:
    with pytest.raises(RecipeError, match="stage 1: groups of 48"):
        await compressed(model, Recipe(Quantize("w4g48")))
