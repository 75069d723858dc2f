"""Single weights set to zero, layer by layer, and counted afterwards in the file that was written.

    sparsify(Sparsify(0.5, "wanda"), source, target, work)

    magnitude                needs no text: one matrix at a time
    wanda, sparsegpt         one layer at a time, each given what the treated ones before it say (`Blocks`)
    ignored, norms, …        copied, byte for byte

This is for research: no file gets smaller and no runtime faster by zeros. (vLLM ran 2:4 on some GPUs, and no longer
does.) What makes a model smaller is `Prune` and `Quantize`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Final

import torch

from agentflow.errors import CalibrationError, CompressionError, RecipeError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.blocks import BATCH, Block, Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter, copy_companions, matches, writing
from agentflow.mcp.compression.pruning.pattern import Pattern, magnitude, wanda
from agentflow.mcp.compression.pruning.sparsegpt import sparsegpt
from agentflow.mcp.compression.recipe import Sparsify
from agentflow.mcp.compression.work import Work

__all__ = ["sparsify"]

_NO_GAIN: Final = "zeros make neither the file smaller nor the model faster: every weight is stored, and multiplied"
_FEW: Final = "{found:,} calibration tokens for layers of {needed:,} inputs: what is rare in them was not seen"
_LINEAR: Final = re.compile(r"(model\.layers\.\d+\..+)\.weight")


def sparsify(stage: Sparsify, source: Path, target: Path, work: Work) -> StageRecord:
    """Set the share `stage.sparsity` of each linear layer's weights to zero, but for what `stage.ignore` names.

    Raises RecipeError for an encoder, a quantised model, a pattern that does not divide a layer's inputs, and where
    `ignore` names what is not there, or everything; CalibrationError where a method needs text and there is none;
    CompressionError where the written file does not hold the zeros that were asked for.
    """
    begun = monotonic()
    checkpoint = Checkpoint.open(source)
    pattern = Pattern.of(stage)
    names = _treated(checkpoint, stage, pattern)
    if stage.method != "magnitude" and not work.calibration.numel():
        raise CalibrationError(stage.method, needed=1, found=0)
    treat = _by_magnitude if stage.method == "magnitude" else _by_activations
    with writing(target) as folder:
        copy_companions(source, folder)
        shutil.copyfile(source / "config.json", folder / "config.json")
        with ShardWriter(folder) as shards:
            errors = treat(names, checkpoint, stage, work, lambda name, new: shards.add(f"{name}.weight", new))
            for name in checkpoint.tensors:
                work.check()
                if name.removesuffix(".weight") not in names:
                    shards.add(name, checkpoint.load(name))
        found = _verified(Checkpoint.open(folder), checkpoint, names, pattern)
    return StageRecord(
        kind=stage.kind,
        settings=asdict(stage),
        seconds=monotonic() - begun,
        parameters=checkpoint.parameters,
        facts={"sparsity": found} | ({"layer_errors": errors} if errors else {}),
        notes=_notes(checkpoint, stage, names, work),
    )


Add = Callable[[str, torch.Tensor], None]  # the name of a linear layer, and its new weights


# ---- which ---------------------------------------------------------------------------------------------------


def _treated(checkpoint: Checkpoint, stage: Sparsify, pattern: Pattern) -> list[str]:
    """The linear layers that get zeros."""
    if not checkpoint.is_decoder:
        raise RecipeError(f"Sparsify is for decoders; {checkpoint.architecture} is none")
    if checkpoint.quantization is not None:
        raise RecipeError(f"{checkpoint.folder} is quantised already; sparsify the model in full precision")
    linears = [*_linears(checkpoint), "lm_head"]
    for each in stage.ignore:
        if not any(matches(name, (each,)) for name in linears):
            raise RecipeError(f"Sparsify(ignore=…): {each!r} matches no linear layer of this model; a slip of the pen?")
    names = [name for name in linears if not matches(name, stage.ignore) and f"{name}.weight" in checkpoint.tensors]
    if not names:
        raise RecipeError("Sparsify(ignore=…) matches every linear layer: nothing is left to be done")
    for name in names:
        columns = checkpoint.tensors[f"{name}.weight"].shape[1]
        if pattern.among is not None and columns % pattern.among[1]:
            raise RecipeError(f"Sparsify(pattern={stage.pattern!r}): {name} has {columns} inputs, which do not divide")
    return names


def _linears(checkpoint: Checkpoint) -> Iterable[str]:
    for name, tensor in checkpoint.tensors.items():
        found = _LINEAR.fullmatch(name)
        if found is not None and len(tensor.shape) == 2:
            yield found[1]


def _notes(checkpoint: Checkpoint, stage: Sparsify, names: list[str], work: Work) -> tuple[str, ...]:
    notes = [_NO_GAIN]
    widest = max(checkpoint.tensors[f"{name}.weight"].shape[1] for name in names)
    if stage.method != "magnitude" and work.calibration.numel() < widest:
        notes.append(_FEW.format(found=work.calibration.numel(), needed=widest))
    if "lm_head.weight" not in checkpoint.tensors and not matches("lm_head", stage.ignore):
        notes.append("lm_head is the embedding, and was left as it is")
    return tuple(notes)


# ---- treated -------------------------------------------------------------------------------------------------


def _by_magnitude(names: list[str], checkpoint: Checkpoint, stage: Sparsify, work: Work, add: Add) -> list[float]:
    pattern = Pattern.of(stage)
    for number, name in enumerate(names, start=1):
        work.check()
        weight = checkpoint.load(f"{name}.weight")
        add(name, weight.where(magnitude(weight.to(work.device), pattern).to(weight.device), 0))
        work.progress("sparsify: layers", number, len(names))
    return []


def _by_activations(names: list[str], checkpoint: Checkpoint, stage: Sparsify, work: Work, add: Add) -> list[float]:
    """How far the output of each layer is from what it was, relative to it: ‖after − before‖² / ‖before‖²."""
    errors: list[float] = []
    blocks = Blocks(checkpoint, work.device)
    pattern = Pattern.of(stage)

    def replace(name: str, module: torch.nn.Linear, inputs: _Inputs) -> None:
        stored = checkpoint.load(f"{name}.weight")
        new = inputs.sparse(module.weight, pattern).to(stored.dtype)  # those behind see what is written, not more
        module.weight.data = new.to(module.weight.dtype)
        add(name, new)

    def visit(block: Block) -> None:
        linears = {name: module for name, module in block.linears().items() if name in names}
        inputs = {name: _Inputs(stage.method) for name in linears}
        with block.inputs_of(lambda name, given: inputs[name].see(given) if name in inputs else None):
            before = block.run()
        for name, module in linears.items():
            work.check()
            replace(name, module, inputs.pop(name))
        errors.append(float((block.run() - before).square().sum() / before.square().sum()))
        work.progress("sparsify: layers", block.index + 1, checkpoint.layers)

    hidden = blocks.walk(work.calibration, visit, check=work.check)
    if "lm_head" in names:
        head = torch.nn.Linear(1, 1, bias=False)
        head.weight.data = checkpoint.load("lm_head.weight").to(work.device, torch.float32)
        inputs = _Inputs(stage.method)
        for windows in torch.split(hidden, BATCH):
            inputs.see(blocks.normed(windows).flatten(0, -2))
        replace("lm_head", head, inputs)
    return errors


class _Inputs:
    """What has to be known of a layer's inputs: X·Xᵀ for SparseGPT, of which Wanda needs the diagonal alone."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._sums = torch.zeros(())

    def see(self, given: torch.Tensor) -> None:
        """(tokens, in_features)"""
        more = given.T @ given if self._method == "sparsegpt" else given.double().square().sum(0)
        self._sums = self._sums.to(given.device) + more

    def sparse(self, weight: torch.Tensor, pattern: Pattern) -> torch.Tensor:
        if self._method == "sparsegpt":
            return sparsegpt(weight, self._sums, pattern)
        return weight.where(wanda(weight, self._sums.sqrt(), pattern), 0)


# ---- verified ------------------------------------------------------------------------------------------------


def _verified(written: Checkpoint, source: Checkpoint, names: list[str], pattern: Pattern) -> Mapping[str, float]:
    """The share of zeros in each treated layer, as found in the file; and that all others are what they were."""
    treated = {f"{name}.weight" for name in names}
    found: dict[str, float] = {}
    for name in source.tensors:
        weight = written.load(name)
        if name not in treated:
            if weight.dtype != source.load(name).dtype or not torch.equal(weight, source.load(name)):
                raise CompressionError(f"{name} was not to be touched, and is another in the file that was written")
            continue
        if missing := pattern.shortfall(weight):
            raise CompressionError(f"{name} lacks {missing:,} of the zeros asked for in the file that was written")
        found[name.removesuffix(".weight")] = round(float((weight == 0).double().mean()), 6)
    return found
