"""What each part of a model does to the hidden states, measured on calibration windows: layers, channels, groups.

    layer     1 − cosine of what goes in and what comes out: the block influence of ShortGPT (arXiv:2403.03853)
    channel   of the feed-forward part: the length of what it adds, |x| · ‖column of down_proj‖
    group     of attention heads:       the length of what it adds, ‖o_proj of these heads · what they say‖

The last two are the activation importance of Minitron (arXiv:2408.11796), weighed with the matrix that reads the
activation: a loud channel that nobody listens to is worth nothing. Root mean square over all tokens. Everything is
measured in one walk over the whole model, one layer in memory at a time (an encoder: the model in memory at once).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from agentflow.errors import ModelFolderError, RecipeError
from agentflow.mcp.compression.blocks import BATCH, Block, Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.pruning.cut import Shape
from agentflow.mcp.compression.work import Work

__all__ = ["Importance", "of_decoder", "of_encoder"]


@dataclass(frozen=True, slots=True)
class Importance:
    """`layers` has shape (layers,), `channels` (layers, channels), `groups` (layers, groups); an encoder has the
    first alone."""

    layers: torch.Tensor
    channels: torch.Tensor
    groups: torch.Tensor


def of_decoder(checkpoint: Checkpoint, shape: Shape, work: Work) -> Importance:
    """Raises RecipeError for what is quantised already."""
    layers: list[float] = []
    channels: list[torch.Tensor] = []
    groups: list[torch.Tensor] = []

    def visit(block: Block) -> None:
        seen = _Contributions(block, shape)
        with block.inputs_of(seen):
            after = block.run()
        layers.append(_influence(block.hidden, after))
        channels.append(seen.channels())
        groups.append(seen.groups())
        work.progress("prune: measuring layers", block.index + 1, shape.layers)

    Blocks(checkpoint, work.device).walk(work.calibration, visit, check=work.check)
    return Importance(torch.tensor(layers), torch.stack(channels), torch.stack(groups))


def of_encoder(checkpoint: Checkpoint, shape: Shape, work: Work) -> Importance:
    """Of layers alone. The windows have no padding.

    Raises RecipeError for what is quantised already, ModelFolderError where weights are not what config.json says.
    """
    if checkpoint.quantization is not None:
        raise RecipeError(f"{checkpoint.folder} is quantised already; give the model in full precision")
    model = _encoder(checkpoint).to(work.device).eval()
    total = torch.zeros(shape.layers)
    for batch in torch.split(work.calibration, BATCH):
        work.check()
        with torch.no_grad():
            states = model(batch.to(work.device), output_hidden_states=True).hidden_states
        total += len(batch) * torch.tensor([_influence(*pair) for pair in pairwise(states)])
    return Importance(total / len(work.calibration), torch.empty(0), torch.empty(0))


def _encoder(checkpoint: Checkpoint) -> Any:
    """The encoder without its head. What has no weights would get random ones, unasked: a layer must not."""
    import transformers

    kind = getattr(transformers, checkpoint.architecture)  # one of ENCODERS
    try:
        model, told = kind.from_pretrained(
            checkpoint.folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except RuntimeError as error:
        raise ModelFolderError(checkpoint.folder, f"its weights do not fit its config.json: {error}") from error
    missing = sorted(name for name in told["missing_keys"] if ".layer." in name)
    if missing:
        raise ModelFolderError(checkpoint.folder, f"it has no tensor {missing[0]}, which its config.json asks for")
    return model.base_model


def _influence(before: torch.Tensor, after: torch.Tensor) -> float:
    """Block influence, a mean over all tokens."""
    return 1 - float(torch.cosine_similarity(before.float(), after.float(), dim=-1).double().mean())


class _Contributions:
    """Sees the inputs of a layer's down_proj and o_proj, and says how much each channel and group adds."""

    def __init__(self, block: Block, shape: Shape) -> None:
        self._linears = block.linears()
        self._down = f"{block.name}.mlp.down_proj"
        self._out = f"{block.name}.self_attn.o_proj"
        self._groups = shape.groups
        self._squares = torch.zeros(())
        self._moments = torch.zeros(())
        self._tokens = 0

    def __call__(self, name: str, given: torch.Tensor) -> None:
        if name == self._down:
            self._tokens += len(given)
            self._squares = self._squares.to(given.device) + given.double().square().sum(0)
        elif name == self._out:
            heads = given.view(len(given), self._groups, -1).transpose(0, 1).double()  # (groups, tokens, size)
            self._moments = self._moments.to(given.device) + heads.transpose(1, 2) @ heads

    def channels(self) -> torch.Tensor:
        columns = self._linears[self._down].weight.double().square().sum(0)
        return (self._squares * columns / self._tokens).sqrt().cpu()

    def groups(self) -> torch.Tensor:
        weight = self._linears[self._out].weight.double()
        columns = weight.view(len(weight), self._groups, -1).transpose(0, 1)  # (groups, hidden, size)
        squares = ((columns @ self._moments) * columns).sum((1, 2))  # the trace of W · moments · Wᵀ
        return (squares.clamp(min=0) / self._tokens).sqrt().cpu()
