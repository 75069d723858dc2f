"""Everything that can be known to be wrong before the first hour is spent, found in seconds.

    model folder ─▶ is it one? its tokenizer? its architecture? each weight finite?
    recipe       ─▶ does each stage fit this model? is what its target needs installed?
    texts        ─▶ enough of them for each stage, and for measuring?
    machine      ─▶ memory, disk, the device

Each check raises a typed error that says what to do. The order is from cheap to dear: reading all weights comes last.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from agentflow.errors import CompressionError, ModelFolderError, RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint, matches
from agentflow.mcp.compression.recipe import Distill, Export, Prune, Quantize, Recipe, Sparsify, Stage
from agentflow.mcp.compression.scheme import Scheme

__all__ = ["finite_weights", "fits", "usable_device"]


def fits(recipe: Recipe, source: Checkpoint) -> None:
    """Whether the model can be treated so. Raises RecipeError with the stage's number."""
    if source.quantization is not None:
        raise ModelFolderError(source.folder, "it is quantised already; a recipe begins with full precision")
    layers = source.layers
    for number, stage in enumerate(recipe.stages, start=1):
        if not source.is_decoder:
            _fits_encoder(stage, source, number)
        layers = _fits(stage, source, layers, number)


def usable_device(device: str) -> None:
    """Raises CompressionError where PyTorch cannot use it."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CompressionError(
            f"PyTorch cannot use the device {device!r}: {error}; on a machine without a GPU say cpu"
        ) from error


def finite_weights(source: Checkpoint, check: Callable[[], None] = lambda: None) -> None:
    """Read every weight once. Raises ModelFolderError for NaN, infinity or a damaged file."""
    for name in source.tensors:
        check()
        source.load(name)
    source.close()


def _fits(stage: Stage, source: Checkpoint, layers: int, number: int) -> int:
    """The number of layers after the stage."""
    match stage:
        case Prune():
            kept = round(layers * stage.depth)
            if kept < 1:
                raise RecipeError(f"depth {stage.depth:g} of {layers} layers leaves none", stage=number)
            return kept
        case Distill() if stage.length > source.context_length:
            text = f"windows of {stage.length} tokens are longer than the model's context of {source.context_length}"
            raise RecipeError(text, stage=number)
        case Quantize():
            _groups_fit(stage, source, number)
    return layers


def _groups_fit(stage: Quantize, source: Checkpoint, number: int) -> None:
    group = Scheme.parse(stage.scheme).group
    if group is None:
        return
    for name, facts in source.tensors.items():
        module = name.removesuffix(".weight")
        linear = name.endswith(".weight") and len(facts.shape) == 2 and (".layers." in name or module == "lm_head")
        if linear and not matches(module, stage.ignore) and facts.shape[1] % group:
            text = f"groups of {group} do not divide the {facts.shape[1]} columns of {name}"
            raise RecipeError(f"{text}; take another, or ignore it", stage=number)


def _fits_encoder(stage: Stage, source: Checkpoint, number: int) -> None:
    name = source.architecture
    match stage:
        case Quantize() | Sparsify():
            text = f"{stage.kind} is for decoders; {name} becomes smaller by Prune(depth=…) and Export('onnx:int8')"
            raise RecipeError(text, stage=number)
        case Prune() if stage.width < 1 or stage.heads < 1:
            raise RecipeError(f"of {name} only layers can be taken out: Prune(depth=…)", stage=number)
        case Export() if stage.format in ("gguf", "compressed-tensors") or stage.type == "int4":
            raise RecipeError(f"{name} is exported as hf, onnx, onnx:fp32 or onnx:int8", stage=number)
