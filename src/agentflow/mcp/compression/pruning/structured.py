"""Whole layers, channels and groups of heads taken out: a model that is smaller and faster, and that anything loads.

    prune(Prune(depth=0.5, width=0.75), source, target, work)

    source ─▶ what each part does (importance) ─▶ what is kept (Cut) ─▶ tensors, one by one ─▶ target

Everything is measured once, on the model as it is. Of every layer as many channels and groups are kept, since
config.json has one number for all. Nothing is trained: a pruned model is worse than it was, and `Distill` mends that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Final

import torch

from agentflow.errors import CalibrationError, CompressionError, RecipeError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter, copy_companions, writing
from agentflow.mcp.compression.pruning.cut import Cut, Shape
from agentflow.mcp.compression.pruning.importance import Importance, of_decoder, of_encoder
from agentflow.mcp.compression.recipe import Prune
from agentflow.mcp.compression.work import Work

__all__ = ["prune"]

_STEP: Final = 64  # channels: what is quantised in groups, or multiplied on a GPU, likes multiples of this


def prune(stage: Prune, source: Path, target: Path, work: Work) -> StageRecord:
    """Keep the most important share of layers, channels and groups of heads.

    Raises RecipeError where a share leaves nothing, or everything, of this model, where transformers could not load
    what is left, for widths and heads of an encoder, and for a quantised model; CalibrationError without windows.
    """
    begun = monotonic()
    checkpoint = Checkpoint.open(source)
    shape = Shape.of(checkpoint)
    counts = _counts(stage, checkpoint, shape)
    if not work.calibration.numel():
        raise CalibrationError("pruning by importance", needed=1, found=0)
    importance = (of_decoder if checkpoint.is_decoder else of_encoder)(checkpoint, shape, work)
    cut = _chosen(counts, importance, shape)
    _write(cut, checkpoint, target, work)
    after = Checkpoint.open(target)
    return StageRecord(
        kind=stage.kind,
        settings=asdict(stage),
        seconds=monotonic() - begun,
        parameters=after.parameters,
        facts=_facts(cut, importance, checkpoint, after),
    )


# ---- how many ------------------------------------------------------------------------------------------------


def _counts(stage: Prune, checkpoint: Checkpoint, shape: Shape) -> tuple[int, int, int]:
    """Layers, channels and groups that are kept."""
    if checkpoint.quantization is not None:
        raise RecipeError(f"{checkpoint.folder} is quantised already; prune the model in full precision")
    if not checkpoint.is_decoder and (stage.width < 1 or stage.heads < 1):
        raise RecipeError(
            f"{checkpoint.architecture} is an encoder, which is pruned in depth alone: leave out width and heads"
        )
    step = _step(shape.channels)
    groups = _kept("heads", stage.heads, shape.groups, "groups of attention heads")
    _loads(groups, checkpoint, shape)
    return (
        _kept("depth", stage.depth, shape.layers, "layers"),
        step * _kept("width", stage.width, shape.channels // step, f"times {step} channels"),
        groups,
    )


def _kept(name: str, share: float, of: int, things: str) -> int:
    """Half of 3 is 2. Raises RecipeError where a share below 1 keeps none, or all."""
    count = math.floor(share * of + 0.5)
    if share < 1 and not 0 < count < of:
        fine = f"give between {1 / of:.3g} and {(of - 1) / of:.3g}" if of > 1 else "none can be taken out"
        raise RecipeError(f"Prune({name}={share:g}) keeps {count} of the {of} {things} of this model: {fine}")
    return count


def _step(channels: int) -> int:
    """A power of two that divides the channels, an eighth of them at most."""
    step = _STEP
    while step > 1 and (channels % step or step * 8 > channels):
        step //= 2
    return step


def _loads(groups: int, checkpoint: Checkpoint, shape: Shape) -> None:
    """transformers refuses a Llama whose hidden size is no multiple of its heads, though nothing needs that."""
    each = shape.heads // shape.groups
    if checkpoint.architecture != "LlamaForCausalLM" or shape.hidden % (groups * each) == 0:
        return
    fine = [f"{count / shape.groups:.3g}" for count in range(1, shape.groups) if shape.hidden % (count * each) == 0]
    raise RecipeError(
        f"Prune(heads=…) would leave {groups} of {shape.groups} groups, {groups * each} heads, and a Llama's hidden "
        f"size ({shape.hidden}) must be a multiple of its heads: give heads={' or '.join(fine) or '1'}"
    )


# ---- which ---------------------------------------------------------------------------------------------------


def _chosen(counts: tuple[int, int, int], importance: Importance, shape: Shape) -> Cut:
    layers = tuple(_best(importance.layers, counts[0]).tolist())
    return Cut(
        shape,
        layers,
        None if counts[1] == shape.channels else {at: _best(importance.channels[at], counts[1]) for at in layers},
        None if counts[2] == shape.groups else {at: _best(importance.groups[at], counts[2]) for at in layers},
    )


def _best(importance: torch.Tensor, count: int) -> torch.Tensor:
    """The places of the `count` highest, in order; of equals the first."""
    return importance.argsort(descending=True, stable=True)[:count].sort().values


# ---- written -------------------------------------------------------------------------------------------------


def _write(cut: Cut, checkpoint: Checkpoint, target: Path, work: Work) -> None:
    with writing(target) as folder:
        copy_companions(checkpoint.folder, folder)
        with ShardWriter(folder) as shards:
            for number, name in enumerate(checkpoint.tensors, start=1):
                work.check()
                kept = cut.name(name)
                if kept is not None:
                    shards.add(kept, cut.tensor(name, checkpoint.load(name)))
                work.progress("prune: writing tensors", number, len(checkpoint.tensors))
        config = json.dumps(cut.config(checkpoint.config), indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(config + "\n", encoding="utf-8")
        if Checkpoint.open(folder).parameters >= checkpoint.parameters:
            raise CompressionError(
                f"{checkpoint.folder} did not get smaller by pruning: its tensors have strange names"
            )


def _facts(cut: Cut, importance: Importance, before: Checkpoint, after: Checkpoint) -> Mapping[str, object]:
    """`multiplications` are those of one token with the weights: what decides the speed."""
    facts: dict[str, object] = {
        "parameters": [before.parameters, after.parameters],
        "multiplications": [_multiplications(before), _multiplications(after)],
        "layers_kept": list(cut.layers),
        "layer_importance": _rounded(importance.layers),
    }
    if cut.channels is not None:
        facts["channels_kept"] = [len(cut.channels[cut.layers[0]]), cut.shape.channels]
        facts["channel_importance_kept"] = [_share(importance.channels[at], cut.channels[at]) for at in cut.layers]
    if cut.groups is not None:
        facts["groups_kept"] = [cut.groups[at].tolist() for at in cut.layers]
        facts["group_importance"] = [_rounded(importance.groups[at]) for at in cut.layers]
    return facts


def _multiplications(checkpoint: Checkpoint) -> int:
    """Of a token with every matrix but the embeddings, which are looked up; a head that is tied to them multiplies."""
    matrices = [tensor for name, tensor in checkpoint.tensors.items() if len(tensor.shape) == 2]
    tied = checkpoint.is_decoder and "lm_head.weight" not in checkpoint.tensors
    return sum(t.count for t in matrices if "embed" not in t.name or (tied and "embed_tokens" in t.name))


def _share(importance: torch.Tensor, kept: torch.Tensor) -> float:
    """What is kept of all the importance in a layer: there are too many channels to name each."""
    total = float(importance.sum())
    return _rounded(importance[kept].sum(0, keepdim=True) / total)[0] if total else 1.0


def _rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
