"""vLLM's own compressor, on the same layers of the trained model and the same inputs, drops the same weights.

this process ──weights and inputs (safetensors)──▶ .venvs/llmcompressor ──what became of the weights──▶ compared
"""

from __future__ import annotations

import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.programs import python_of, surroundings
from tests.support.pruned import layers_of_the_fixture

from agentflow.mcp.compression.pruning.pattern import Pattern, wanda
from agentflow.mcp.compression.pruning.sparsegpt import sparsegpt

PATTERNS = {"unstructured": Pattern(0.5), "2:4": Pattern(0.5, (2, 4))}
LAYERS = ("model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj")
PROGRAM = """
import sys, torch
from safetensors.torch import load_file, save_file
from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify as sgpt
from llmcompressor.modifiers.pruning.wanda import wanda_sparsify as wanda
torch.set_num_threads(1)
given, found = load_file(sys.argv[1]), {}
for name in sorted({key.rpartition("/")[0] for key in given}):
    weight, inputs = given[name + "/weight"], given[name + "/inputs"]
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    for pattern, (n, m) in {"unstructured": (0, 0), "2:4": (2, 4)}.items():
        hessian, _ = sgpt.accumulate_hessian(inputs, layer, sgpt.make_empty_hessian(layer), 0)
        _, new = sgpt.sparsify_weight(layer, {layer: hessian}, 0.5, n, m, 128, 0.01, False)
        found[f"{name}/sparsegpt/{pattern}"] = new.detach().contiguous()
        scalars, _ = wanda.accumulate_row_scalars(inputs, layer, wanda.make_empty_row_scalars(layer), 0)
        new = wanda.sparsify_weight(layer, {layer: scalars}, 0.5, n, m)
        found[f"{name}/wanda/{pattern}"] = new.detach().contiguous()
save_file(found, sys.argv[2])
"""

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]  # theirs takes long to import


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """By layer, method and pattern: all of them in one process, since it starts slowly."""
    folder = tmp_path_factory.mktemp("llmcompressor")
    python = python_of("llmcompressor")
    layers = {name: layers_of_the_fixture("calibration", 16)[name] for name in LAYERS}
    given = {
        f"{name}/{kind}": pair[at] for name, pair in layers.items() for at, kind in enumerate(("weight", "inputs"))
    }
    save_file({name: tensor.detach().clone() for name, tensor in given.items()}, folder / "given.safetensors")
    command = [python, "-c", PROGRAM, folder / "given.safetensors", folder / "found.safetensors"]
    environ = surroundings(OMP_NUM_THREADS="1", HOME=str(folder))
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(folder / "found.safetensors")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("layer", LAYERS)
def test_wanda_drops_the_same_weights(theirs: dict[str, torch.Tensor], layer: str, pattern: str) -> None:
    """Theirs adds up in single precision: of 100,000 weights one may be as good as equal to another and go for it."""
    weight, inputs = layers_of_the_fixture("calibration", 16)[layer]
    ours = weight * wanda(weight, inputs.double().square().sum(0).sqrt(), PATTERNS[pattern])
    different = int((ours != theirs[f"{layer}/wanda/{pattern}"]).sum())
    print(f"wanda {pattern} {layer}: {different} of {weight.numel()} differ")
    assert different <= 1e-5 * weight.numel()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("layer", LAYERS)
def test_sparsegpt_errs_no_more_than_theirs(theirs: dict[str, torch.Tensor], layer: str, pattern: str) -> None:
    """The same weights but for rounding (and theirs drops one more of each block: its threshold belongs to those that
    go), and the same error in the layer's output."""
    weight, inputs = layers_of_the_fixture("calibration", 16)[layer]
    ours = sparsegpt(weight, inputs.T @ inputs, PATTERNS[pattern])
    other = theirs[f"{layer}/sparsegpt/{pattern}"]
    masks = float(((ours == 0) != (other == 0)).double().mean())
    errors = [float((inputs @ (weight - new).T).square().sum()) for new in (ours, other)]
    print(f"sparsegpt {pattern} {layer}: {masks:.2e} of the mask differ; error {errors[0]:.6g}, theirs {errors[1]:.6g}")
    assert masks < 2e-3
    assert errors[0] == pytest.approx(errors[1], rel=5e-3)
