# mypy: ignore-errors
"""Quantises by llm-compressor in the environment that has it; run by `test_against_llmcompressor`, never imported.

    python llmcompressor_program.py FOLDER     reads FOLDER/task.json, FOLDER/layers.safetensors and FOLDER/model

Writes FOLDER/written/…, whole models rounded to nearest, and FOLDER/gptq.safetensors, what its GPTQ makes of the same
weights, inputs and scales.
"""

import json
import sys
from pathlib import Path

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import load_file, save_file


def main(folder: Path) -> None:
    """Everything of one task."""
    torch.set_num_threads(1)
    task = json.loads((folder / "task.json").read_text())
    for scheme in task["rtn"]:
        written(folder, **scheme)
    given = load_file(folder / "layers.safetensors")
    save_file({name: layer(given, **each) for name, each in task["gptq"].items()}, folder / "gptq.safetensors")


def written(folder: Path, name: str, weights: dict, inputs: dict | None) -> None:
    """A whole model, rounded to nearest."""
    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(observer="memoryless_minmax", **weights),
        input_activations=None if inputs is None else QuantizationArgs(**inputs),
    )
    recipe = QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"])
    oneshot(model=str(folder / "model"), recipe=recipe, output_dir=str(folder / "written" / name), pipeline="datafree")


def layer(given: dict, source: str, weights: dict, scales: str) -> torch.Tensor:
    """One layer by its GPTQ."""
    args = QuantizationArgs(**weights)
    scale = given[f"{scales}.scales"]
    zero = given.get(f"{scales}.zeros", torch.zeros_like(scale, dtype=torch.int8))
    decoded, _, _ = quantize_weight(
        weights=given[f"{source}.weight"].unsqueeze(0).clone(),
        hessians=given[f"{source}.gram"].unsqueeze(0).clone(),
        scale=scale.unsqueeze(0),
        zero_point=zero.unsqueeze(0),
        global_scale=None,
        quant_args=args,
    )
    return decoded[0].contiguous()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
