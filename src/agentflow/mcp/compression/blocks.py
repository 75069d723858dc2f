"""A decoder, layer by layer: one layer's weights in memory at a time, each given what the treated ones before say.

    windows ─▶ embed ─▶ hidden ─▶ [layer 0: visit, then run as it is now] ─▶ hidden ─▶ [layer 1 …] ─▶ … ─▶ final norm

This is how GPTQ, AWQ, SparseGPT and Wanda see a model (the block-sequential way of Frantar et al., arXiv:2210.17323):
the error of the layers before is in the inputs of the next. A model of any size needs the memory of its largest layer
and of the hidden states: windows × length × hidden size × 4 bytes, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agentflow.errors import ModelFolderError, RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint

__all__ = ["Block", "Blocks", "Visit"]

BATCH = 8  # windows that run through a layer together


@dataclass(slots=True)
class Block:
    """One decoder layer with its weights, in float32, and the hidden states that reach it.

    `name` is "model.layers.3". `hidden` has shape (windows, length, hidden size). What `visit` does to the weights of
    `module` is what the following layers see.
    """

    index: int
    name: str
    module: nn.Module
    hidden: torch.Tensor
    _positions: tuple[torch.Tensor, torch.Tensor]
    _mask: torch.Tensor | None

    def linears(self) -> dict[str, nn.Linear]:
        """Its linear layers by their full names, as in "model.layers.3.mlp.up_proj"."""
        return {f"{self.name}.{n}": m for n, m in self.module.named_modules() if isinstance(m, nn.Linear)}

    def run(self, batch: int = BATCH) -> torch.Tensor:
        """The hidden states after the layer, for all windows. Shape as `hidden`."""
        with torch.no_grad():
            return torch.cat([self.forward(self.hidden[at : at + batch]) for at in range(0, len(self.hidden), batch)])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The layer on some windows: (n, length, hidden size) in and out, causal, with no padding."""
        cos, sin = self._positions
        out: torch.Tensor = self.module(hidden, attention_mask=self._mask, position_embeddings=(cos, sin))
        return out

    @contextmanager
    def inputs_of(self, see: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
        """While open, `see(full name, input)` is called for each linear layer that runs; inputs are flattened to
        (rows, in_features)."""

        def hook(name: str) -> Callable[..., None]:
            def seen(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
                see(name, given[0].detach().flatten(0, -2))

            return seen

        handles = [linear.register_forward_hook(hook(name)) for name, linear in self.linears().items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


Visit = Callable[[Block], None]


class Blocks:
    """The layers of a decoder, walked in order. Raises RecipeError for an encoder, or for what is quantised already."""

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu") -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        if not checkpoint.is_decoder:
            raise RecipeError(f"{checkpoint.architecture} is no decoder, which is what this is for")
        if checkpoint.quantization is not None:
            raise RecipeError(f"{checkpoint.folder} is quantised already; give the model in full precision")
        self.checkpoint = checkpoint
        self.device = device
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        if "lm_head.weight" not in checkpoint.tensors and not config.tie_word_embeddings:
            problem = "it has no lm_head.weight, and its config.json does not say tie_word_embeddings"
            raise ModelFolderError(checkpoint.folder, problem)
        config._attn_implementation = "sdpa"
        with torch.device("meta"):
            self._model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]

    def walk(self, windows: torch.Tensor, visit: Visit, *, check: Callable[[], None] = lambda: None) -> torch.Tensor:
        """Visit every layer in turn; the hidden states after the last one, before the final norm.

        `windows` are token ids of shape (windows, length). `check` is called before each layer and may raise.
        """
        inner = self._model.model
        with torch.no_grad():
            hidden: torch.Tensor = self._filled(inner.embed_tokens, "model.embed_tokens")(windows.to(self.device))
            inner.embed_tokens.to("meta")
            positions = self._positions(hidden)
        for index in range(len(inner.layers)):
            check()
            block = self.block(index, hidden, positions)
            visit(block)
            hidden = block.run()
            inner.layers[index].to("meta")
        return hidden

    def block(self, index: int, hidden: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]) -> Block:
        name = f"model.layers.{index}"
        module = self._filled(self._model.model.layers[index], name)
        return Block(index, name, module, hidden, positions, self._mask(index, hidden.shape[1]))

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final norm of what the last layer says: what the head is given. Shape as `hidden`."""
        norm = self._filled(self._model.model.norm, "model.norm")
        with torch.no_grad():
            normed: torch.Tensor = norm(hidden)
        return normed

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """What follows the last layer: final norm and head. (…, hidden size) → (…, vocabulary)."""
        tied = "lm_head.weight" not in self.checkpoint.tensors
        weight = self.checkpoint.load("model.embed_tokens.weight" if tied else "lm_head.weight")
        with torch.no_grad():
            return torch.nn.functional.linear(self.normed(hidden), weight.to(self.device, torch.float32))

    def _mask(self, index: int, length: int) -> torch.Tensor | None:
        """What a layer whose attention slides may see, of shape (1, 1, length, length); None: all that came before."""
        config = self._model.config
        width = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None)
        if width is None or width >= length or (kinds is not None and kinds[index] != "sliding_attention"):
            return None
        ages = torch.arange(length, device=self.device)
        ages = ages.unsqueeze(1) - ages
        seen: torch.Tensor = (ages >= 0) & (ages < width)
        return seen.unsqueeze(0).unsqueeze(0)

    def _positions(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.device(self.device):
            rotary = type(self._model.model.rotary_emb)(config=self._model.config)
        places = torch.arange(hidden.shape[1], device=self.device).unsqueeze(0)
        cos, sin = rotary(hidden, places)
        return cos, sin

    def _filled(self, module: Any, name: str) -> Any:
        """`module` with its weights from the checkpoint, as float32 on the device."""
        state: Mapping[str, torch.Tensor] = {
            key: self.checkpoint.load(f"{name}.{key}").to(self.device, torch.float32) for key in module.state_dict()
        }
        try:
            module.load_state_dict(state, assign=True)
        except RuntimeError as error:
            problem = f"{name} is of another shape than its config.json says: {error}"
            raise ModelFolderError(self.checkpoint.folder, problem) from error
        return module.requires_grad_(False)
