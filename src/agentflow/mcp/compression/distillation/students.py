"""Where a student begins: with some of its teacher's layers, with narrower ones, or with nothing learnt at all.

copied(teacher, student, which_layers(12, 6))     every other layer, as DistilBERT began (Sanh et al., arXiv:1910.01108)
narrowed(teacher, student, channels=512)          the weightiest channels of each feed-forward part
fresh(teacher, student, seed=0)                   the same shape with random weights: what distillation is compared to

Each writes a whole model folder, tensor by tensor. `Prune` chooses by calibration texts and does better without further
training; these need no texts, and after training the difference is small.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch

from agentflow.errors import RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter, copy_companions, writing

__all__ = ["Choice", "copied", "fresh", "narrowed", "which_layers"]

Choice = Literal["even", "first", "last"]

# model.layers.3.mlp.up_proj.weight · encoder.layer.3.output.dense.weight · bert.encoder.layer.3. …
_LAYER: Final = re.compile(r"(?P<before>(?:.*\.)?(?:layers|layer)\.)(?P<number>\d+)(?P<after>\..*)")
# The feed-forward part: which of a tensor's two sides its channels are on.
_ROWS: Final = (".mlp.gate_proj.", ".mlp.up_proj.", ".intermediate.dense.")
_COLUMNS: Final = re.compile(r"\.mlp\.down_proj\.weight|\.\d+\.output\.dense\.weight")


def which_layers(total: int, keep: int, choice: Choice = "even") -> tuple[int, ...]:
    """`keep` of `total` layers, in order. "even" are spread from the first to the last, both among them.

    Raises RecipeError where there are fewer than that, or none is kept.
    """
    if not 0 < keep <= total:
        raise RecipeError(f"of {total} layers, 1 to {total} can be kept, not {keep}")
    match choice:
        case "first":
            return tuple(range(keep))
        case "last":
            return tuple(range(total - keep, total))
        case "even" if keep == 1:
            return (0,)
        case "even":
            return tuple(round(each * (total - 1) / (keep - 1)) for each in range(keep))
    raise RecipeError(f"layers are chosen first, last or even, not {choice!r}")


def copied(source: Path, target: Path, layers: Sequence[int]) -> None:
    """The model of `source` with these of its layers alone, in this order.

    Raises RecipeError for a layer that it does not have, or twice the same, or none.
    """
    with _opened(source) as checkpoint:
        if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(checkpoint.layers)):
            raise RecipeError(f"{list(layers)} are no layers of {source}, which has 0 to {checkpoint.layers - 1}")
        config = {**checkpoint.config, "num_hidden_layers": len(layers)}
        kinds = config.get("layer_types")  # full or sliding attention, one a layer
        if isinstance(kinds, list):
            config["layer_types"] = [kinds[layer] for layer in layers]
        if isinstance(config.get("max_window_layers"), int):
            config["max_window_layers"] = min(config["max_window_layers"], len(layers))
        _write(checkpoint, target, config, _of_layers(checkpoint, layers))


def narrowed(source: Path, target: Path, *, channels: int) -> None:
    """The model of `source` with `channels` of each layer's feed-forward channels: those of the largest weights,
    measured by the product of the norms of what goes into a channel and what comes out of it.

    Raises RecipeError where it has not more than that.
    """
    with _opened(source) as checkpoint:
        has = int(checkpoint.config["intermediate_size"])
        if not 0 < channels < has:
            raise RecipeError(f"{source} has {has} feed-forward channels a layer; fewer can be kept, not {channels}")
        config = {**checkpoint.config, "intermediate_size": channels}
        _write(checkpoint, target, config, _of_channels(checkpoint, channels))


def fresh(source: Path, target: Path, *, seed: int = 0) -> None:
    """A model of the shape of `source`, with its tokenizer, whose weights are drawn at random."""
    with _opened(source) as checkpoint:
        _write(checkpoint, target, checkpoint.config, _drawn(checkpoint, seed))


# ---- the tensors of each -------------------------------------------------------------------------------------

Tensors = Iterator[tuple[str, torch.Tensor]]


def _of_layers(checkpoint: Checkpoint, layers: Sequence[int]) -> Tensors:
    place = {layer: at for at, layer in enumerate(layers)}
    for name in checkpoint.tensors:
        found = _LAYER.fullmatch(name)
        if found is None:
            yield name, checkpoint.load(name)
        elif int(found["number"]) in place:
            yield f"{found['before']}{place[int(found['number'])]}{found['after']}", checkpoint.load(name)


def _of_channels(checkpoint: Checkpoint, channels: int) -> Tensors:
    kept: dict[str, torch.Tensor] = {}
    for name in checkpoint.tensors:
        tensor, found, side = checkpoint.load(name), _LAYER.fullmatch(name), _side(name)
        if found is not None and side is not None:
            layer = found["before"] + found["number"]
            if layer not in kept:
                kept[layer] = _weightiest(checkpoint, layer, channels)
            tensor = tensor.index_select(side, kept[layer])
        yield name, tensor


def _side(name: str) -> int | None:
    """Which side of the tensor the feed-forward channels are on; None where it has none."""
    if any(part in name for part in _ROWS):
        return 0
    return 1 if _COLUMNS.search(name) else None


def _weightiest(checkpoint: Checkpoint, layer: str, channels: int) -> torch.Tensor:
    """The indices of a layer's channels of the largest weights, in order."""
    into = torch.zeros(())
    out = torch.zeros(())
    for name in checkpoint.tensors:
        if name.startswith(f"{layer}.") and name.endswith(".weight"):
            if _side(name) == 0:
                into = into + checkpoint.load(name).float().square().sum(dim=1)
            elif _side(name) == 1:
                out = checkpoint.load(name).float().square().sum(dim=0)
    return (into * out).topk(channels).indices.sort().values


def _drawn(checkpoint: Checkpoint, seed: int) -> Tensors:
    import transformers

    config = transformers.AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, checkpoint.architecture)(config)
    state: Mapping[str, torch.Tensor] = model.state_dict()
    for name in checkpoint.tensors:
        if name in state:
            yield name, state[name].to(checkpoint.load(name).dtype)


# ---- reading and writing -------------------------------------------------------------------------------------


class _opened:  # noqa: N801 - reads as the function it is
    """A checkpoint in full precision, closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = Checkpoint.open(folder)
        if self.checkpoint.quantization is not None:
            raise RecipeError(f"{folder} is quantised already; a student is made of a model in full precision")

    def __enter__(self) -> Checkpoint:
        return self.checkpoint

    def __exit__(self, *error: object) -> None:
        self.checkpoint.close()


def _write(checkpoint: Checkpoint, target: Path, config: Mapping[str, Any], tensors: Tensors) -> None:
    with writing(target) as folder:
        copy_companions(checkpoint.folder, folder)
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        with ShardWriter(folder) as shards:
            for name, tensor in tensors:
                shards.add(name, tensor)
