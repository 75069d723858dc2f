"""llm-compressor, in an environment of its own, says what vLLM's authors would have written.

    our folder, layers, inputs ──▶ .venvs/llmcompressor/bin/python llmcompressor_program.py ──▶ their folder, layers

Rounding to nearest is the same to the last bit of the file. GPTQ adds up in an order that floating point does not fix:
a few codes differ at ties, and what follows makes up for them, so that the error is the same.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.programs import python_of, surroundings
from tests.support.tiny_models import tiny_decoder

from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization import quantize, read_quantized
from agentflow.mcp.compression.quantization.gptq import gptq
from agentflow.mcp.compression.quantization.grid import fit, rtn
from agentflow.mcp.compression.quantization.inputs import Inputs
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.scheme import Scheme
from agentflow.mcp.compression.work import Work

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]  # theirs takes long to import

RTN = ("w8", "w4g32", "w4g32-asym", "w3g16", "w3g16-asym", "w2g16", "w8a8")
GPTQ = ("w8", "w4g64", "w4g64-asym", "w3g64", "w2g32")
ORDERS = (True, False)


@dataclass(frozen=True, slots=True)
class Asked:
    """A layer as it was given to both."""

    weight: torch.Tensor
    inputs: Inputs
    folder: Path


def layer() -> tuple[torch.Tensor, Inputs]:
    """Weights with outliers, and inputs whose channels are correlated and of very different sizes, as real ones are."""
    generator = torch.Generator().manual_seed(11)
    weight = torch.randn(96, 256, generator=generator) * 0.05
    weight[torch.rand(weight.shape, generator=generator) < 0.01] *= 8
    mixing = torch.randn(256, 256, generator=generator) / 16 + torch.eye(256)
    sizes = torch.randn(256, generator=generator).exp()
    inputs = Inputs(256)
    inputs.see(torch.randn(2048, 256, generator=generator) @ mixing * sizes)
    return weight, inputs


def args_of(text: str) -> dict[str, object]:
    scheme = Scheme.parse(text)
    strategy: dict[str, object] = {"strategy": "channel"}
    if scheme.group:
        strategy = {"strategy": "group", "group_size": scheme.group}
    return {"num_bits": scheme.bits, "symmetric": scheme.symmetric, "type": "int", **strategy}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """One process of theirs for everything, as it takes long to start."""
    python = python_of("llmcompressor")
    folder = tmp_path_factory.mktemp("llmcompressor")
    tiny_decoder(folder / "model", "Qwen2ForCausalLM")
    weight, inputs = layer()
    tensors = {"layer.weight": weight, "layer.gram": inputs.gram}
    for text in GPTQ:
        grid = fit(weight, Scheme.parse(text), torch.float32)
        tensors[f"{text}.scales"] = grid.scales
        if grid.zeros is not None:
            tensors[f"{text}.zeros"] = grid.zeros
    save_file(tensors, folder / "layers.safetensors")
    token = {"num_bits": 8, "symmetric": True, "type": "int", "strategy": "token", "dynamic": True}
    task = {
        "rtn": [{"name": text, "weights": args_of(text), "inputs": token if text == "w8a8" else None} for text in RTN],
        "gptq": {
            f"{text} {order}": {
                "source": "layer",
                "scales": text,
                "weights": args_of(text) | {"actorder": "static" if order else None},
            }
            for text in GPTQ
            for order in ORDERS
        },
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    program = Path(__file__).with_name("llmcompressor_program.py")
    done = subprocess.run(
        [python, str(program), str(folder)], capture_output=True, text=True, timeout=280, check=False,
        cwd=folder, env=surroundings(HOME=str(folder), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Asked(weight, inputs, folder)


@pytest.mark.parametrize("text", RTN)
def test_rounded_to_nearest_the_codes_and_scales_are_theirs(asked: Asked, tmp_path: Path, text: str) -> None:
    """Every code, scale and zero point of every layer of a whole model, in tensors of the same names and types."""
    none = torch.empty(0, 0, dtype=torch.int64)
    work = Work(calibration=none, training=none, evaluation=none, scratch=tmp_path, teacher=asked.folder / "model")
    quantize(Quantize(text), asked.folder / "model", tmp_path / "ours", work)
    ours, theirs = (Checkpoint.open(folder) for folder in (tmp_path / "ours", asked.folder / "written" / text))
    assert set(read_quantized(ours)) == set(read_quantized(theirs))
    assert len(read_quantized(ours)) == 3 * 7
    assert set(ours.tensors) == set(theirs.tensors)
    for name in ours.tensors:
        assert ours.tensors[name].dtype == theirs.tensors[name].dtype
        assert torch.equal(ours.load(name), theirs.load(name)), name


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("text", GPTQ)
def test_gptq_errs_as_much_as_theirs_on_the_same_layer(asked: Asked, text: str, order: bool) -> None:
    """On the same weights, inputs and scales."""
    scheme = Scheme.parse(text)
    theirs = load_file(asked.folder / "gptq.safetensors")[f"{text} {order}"]
    ours = gptq(asked.weight, asked.inputs.gram, scheme, torch.float32, order=order).dequantize()
    assert (ours == theirs).float().mean() > 0.97
    assert asked.inputs.error(asked.weight, ours) == pytest.approx(asked.inputs.error(asked.weight, theirs), rel=0.02)
    plain = rtn(asked.weight, scheme, torch.float32).dequantize()
    assert asked.inputs.error(asked.weight, ours) < asked.inputs.error(asked.weight, plain)
