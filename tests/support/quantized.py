"""What tests of quantisation ask: a folder quantised, and what its model says, by transformers and by our own numbers.

quantized(Quantize("w4g16"), source, target, calibration)     the stage's record
of_transformers(folder, windows)                              logits of the unmodified library
of_our_numbers(folder, windows)                               logits of a dense model with the weights that we decode
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization import QuantizedWeight, quantize, read_quantized
from agentflow.mcp.compression.quantization.smoothquant import round_inputs
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.work import Work

NO_TEXT = torch.empty(0, 16, dtype=torch.int64)


def work_of(scratch: Path, calibration: torch.Tensor = NO_TEXT, **more: Any) -> Work:
    return Work(calibration=calibration, training=NO_TEXT, evaluation=NO_TEXT, scratch=scratch, teacher=scratch, **more)


def quantized(stage: Quantize, source: Path, target: Path, calibration: torch.Tensor = NO_TEXT) -> StageRecord:
    return quantize(stage, source, target, work_of(target.parent, calibration))


def of_transformers(folder: Path, windows: torch.Tensor, *, dequantize: bool = False) -> torch.Tensor:
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    more: dict[str, Any] = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if dequantize else {}
    with warnings.catch_warnings():
        # transformers says that the folder has a configuration of its own, which is what is wanted
        warnings.filterwarnings("ignore", message="You passed `quantization_config`")
        model = AutoModelForCausalLM.from_pretrained(folder, **more)
    return _logits(model, windows)


def of_our_numbers(folder: Path, windows: torch.Tensor) -> torch.Tensor:
    from transformers import AutoConfig, AutoModelForCausalLM

    checkpoint = Checkpoint.open(folder)
    weights = read_quantized(checkpoint)
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    state = {name: checkpoint.load(name) for name in checkpoint.tensors if name in model.state_dict()}
    missing = model.load_state_dict(state | {n: w.dequantize() for n, w in weights.items()}, strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"}, missing
    model.tie_weights()
    for name, weight in weights.items():
        if weight.activation_bits is not None:
            round_inputs(model.get_submodule(name.removesuffix(".weight")), weight.input_scale)
    return _logits(model, windows)


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    return found


def weights_of(folder: Path) -> dict[str, QuantizedWeight]:
    return dict(read_quantized(Checkpoint.open(folder)))


def _logits(model: Any, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = [model.eval()(windows[at : at + 8]).logits for at in range(0, len(windows), 8)]
    return torch.cat(found).to(torch.float32)
