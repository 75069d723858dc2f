"""Which layers of a model are quantised, and which of them go together.

    q k v ─▶ o          gate up ─▶ down          one unit: the same input, the same bits
      │      │             │        │
    norm   (v's rows)    norm    (up's rows)     what stands before a unit: its output can be scaled for the unit

A runtime joins the weights of a unit into one, so vLLM refuses a model whose q and k differ in bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from agentflow.errors import RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint, matches
from agentflow.mcp.compression.quantization.grid import groups_of
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.scheme import Scheme

__all__ = ["HEAD", "Layers", "Unit", "layers_of", "units_of"]

HEAD = "lm_head"
# Of a decoder layer: the linear layers that share an input, and what makes that input.
_UNITS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm"),
    (("self_attn.o_proj",), "self_attn.v_proj"),
    (("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm"),
    (("mlp.down_proj",), "mlp.up_proj"),
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Linear layers with one input. `before` makes it: a norm, or a linear layer by whose rows it is scaled.

    `foldable`: all that read it are quantised, so that it may be scaled without touching what has to stay as it is.
    """

    names: tuple[str, ...]
    before: str
    foldable: bool

    @property
    def after_norm(self) -> bool:
        return self.before.endswith("layernorm")


@dataclass(frozen=True, slots=True)
class Layers:
    """The linear layers of a model by name, in the file's order: `schemes` of those to be quantised, `ignored` the
    rest, among them a head without a weight of its own."""

    schemes: Mapping[str, Scheme]
    shapes: Mapping[str, tuple[int, int]]
    ignored: tuple[str, ...]

    def given(self, bits: Mapping[str, int]) -> Layers:
        """The same with other bits for some."""
        schemes = {name: replace(scheme, bits=bits.get(name, scheme.bits)) for name, scheme in self.schemes.items()}
        return Layers(schemes, self.shapes, self.ignored)

    @property
    def weights(self) -> int:
        return sum(rows * columns for rows, columns in (self.shapes[name] for name in self.schemes))


def layers_of(checkpoint: Checkpoint, stage: Quantize) -> Layers:
    """Raises RecipeError where nothing is left to quantise, where the model is quantised already, and where groups do
    not fill a layer's channels: it names the layer."""
    if checkpoint.quantization is not None:
        raise RecipeError(f"{checkpoint.folder} is quantised already; give the model in full precision")
    scheme = Scheme.parse(stage.scheme)
    linear, absent = _linear(checkpoint)
    chosen = {name: scheme for name in linear if not matches(name, stage.ignore)}
    if not chosen:
        raise RecipeError(f"nothing is left to quantise: {', '.join(stage.ignore)} match all {len(linear)} layers")
    for name in chosen:
        groups_of(linear[name][1], scheme, name)
    return Layers(chosen, linear, (*(name for name in linear if name not in chosen), *absent))


def units_of(layers: Layers, block: str) -> tuple[Unit, ...]:
    """The units of the decoder layer `block` ("model.layers.3") that have something to quantise."""
    found = []
    for names, before in _UNITS:
        full = tuple(f"{block}.{name}" for name in names)
        chosen = tuple(name for name in full if name in layers.schemes)
        ahead = f"{block}.{before}"
        ready = ahead not in layers.ignored and chosen == full
        if chosen:
            found.append(Unit(chosen, ahead, ready))
    return tuple(found)


def _linear(checkpoint: Checkpoint) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    """Names and shapes (rows, columns) of the linear layers whose weights the folder has, and the names of those that
    it has not: a head that is tied to the embeddings."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = getattr(transformers, checkpoint.architecture)(config)
    modules = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    found = {name.removesuffix(".weight"): facts.shape for name, facts in checkpoint.tensors.items()}
    there = set(modules)
    shapes = {name: (shape[0], shape[1]) for name, shape in found.items() if name in there}
    return shapes, tuple(name for name in modules if name not in shapes)
