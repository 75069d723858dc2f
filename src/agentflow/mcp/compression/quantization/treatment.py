"""Quantises a model and hands its tensors on, one after the other: tensor by tensor, or layer by layer with inputs.

    Treatment(…).by_tensor()   rtn, hqq, w8a8 dynamic by rtn: the weights say all      memory of one tensor
    Treatment(…).by_block()    gptq, awq, smoothquant, static scales: texts run through what is quantised already

In a layer the units are treated in turn (q k v, o, gate up, down), each on inputs that the ones before it have made as
they are now, as GPTQ's authors do it. `put(name, tensor)` gets every tensor of the file; what is neither quantised nor
scaled for a unit comes as the source has it, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch

from agentflow.errors import CalibrationError
from agentflow.mcp.compression.blocks import Block, Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization.awq import clipped, searched
from agentflow.mcp.compression.quantization.folding import fold, shared
from agentflow.mcp.compression.quantization.gptq import gptq
from agentflow.mcp.compression.quantization.grid import rtn
from agentflow.mcp.compression.quantization.hqq import hqq
from agentflow.mcp.compression.quantization.inputs import Inputs
from agentflow.mcp.compression.quantization.layers import HEAD, Layers, Unit, units_of
from agentflow.mcp.compression.quantization.packed import QuantizedWeight
from agentflow.mcp.compression.quantization.smoothquant import input_scale, round_inputs, smoothing
from agentflow.mcp.compression.recipe import QuantizationMethod
from agentflow.mcp.compression.work import Work

__all__ = ["LayerFacts", "Treatment", "needs_text"]

Put = Callable[[str, torch.Tensor], None]
FEWEST = 256  # tokens for the range of inputs
BATCH = 8
_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What became of a layer. With texts, `error` is ‖(W − Ŵ) X‖² / ‖W X‖² on the inputs that reach it, else
    ‖W − Ŵ‖² / ‖W‖²; `rtn_error` the same of rounding to nearest, where another method was asked for."""

    bits: int
    stored_bits: float
    error: float
    rtn_error: float | None = None

    def facts(self) -> dict[str, object]:
        found: dict[str, object] = {"bits": self.bits, "stored_bits": round(self.stored_bits, 4), "error": self.error}
        return found if self.rtn_error is None else found | {"rtn_error": self.rtn_error}


def needs_text(method: QuantizationMethod, layers: Layers) -> bool:
    return method in ("gptq", "awq", "smoothquant") or any(scheme.static for scheme in layers.schemes.values())


@dataclass(slots=True)
class Treatment:
    """One way through one model. `found` holds the facts of each layer that was quantised."""

    checkpoint: Checkpoint
    layers: Layers
    method: QuantizationMethod
    work: Work
    put: Put
    found: dict[str, LayerFacts] = field(default_factory=dict)
    head: QuantizedWeight | None = None  # as it was written, where it was quantised
    _written: set[str] = field(default_factory=set)

    def by_tensor(self) -> None:
        """Methods that read no text."""
        names = list(self.checkpoint.tensors)
        for done, name in enumerate(names):
            self.work.check()
            self.work.progress("quantize", done, len(names))
            module = name.removesuffix(".weight")
            if name.endswith(".weight") and module in self.layers.schemes:
                weight = self.checkpoint.load(name).to(self.work.device, torch.float32)
                self._keep(module, weight, self._rounded(module, weight), None)
        self._rest()

    def by_block(self) -> torch.Tensor:
        """The hidden states of the calibration windows after the last layer of the quantised model. Raises
        CalibrationError for too little text, RecipeError for what is no decoder."""
        blocks = Blocks(self.checkpoint, self.work.device)
        self._enough()
        hidden = blocks.walk(self.work.calibration, self._block, check=self.work.check)
        if HEAD in self.layers.schemes:
            self._head(blocks, hidden)
        self._rest()
        return hidden

    # ---- a layer ---------------------------------------------------------------------------------------------

    def _block(self, block: Block) -> None:
        self.work.progress("quantize", block.index, self.checkpoint.layers)
        units = units_of(self.layers, block.name)
        scales = self._folded(block, units) if self.method in ("awq", "smoothquant") else {}
        linears = block.linears()
        for unit in units:
            self.work.check()
            inputs = _seen(block, (unit,))[unit]
            for name in unit.names:
                weight = linears[name].weight.data
                made = self._given(name, weight, inputs)
                self._keep(name, weight, made, inputs, scales.get(unit))
                linears[name].weight.data = made.dequantize(torch.float32)
                if made.activation_bits is not None:
                    round_inputs(linears[name], made.input_scale)
        self._others(block)

    def _folded(self, block: Block, units: tuple[Unit, ...]) -> dict[Unit, torch.Tensor]:
        """Scale the inputs of the units that can be, by what the method finds; the scales that were taken."""
        taken: dict[Unit, torch.Tensor] = {}
        seen = _seen(block, units)
        linears = block.linears()
        for unit in units:
            self.work.check()
            weights = [linears[name].weight.data for name in unit.names]
            scales = self._scales(block, unit, weights, seen[unit]) if unit.foldable else None
            if scales is not None:
                taken[unit] = fold(scales, block, unit, self._type(f"{unit.before}.weight"))
                self._scaled(block, unit.before)
        return taken

    def _scales(self, block: Block, unit: Unit, weights: list[torch.Tensor], inputs: Inputs) -> torch.Tensor | None:
        if self.method == "smoothquant":
            return smoothing(weights, inputs) if unit.after_norm else None
        schemes = [self.layers.schemes[name] for name in unit.names]
        dtype = self._type(f"{unit.names[0]}.weight")
        return searched(weights, inputs, schemes, dtype, lambda scales: shared(scales, block, unit))

    def _scaled(self, block: Block, before: str) -> None:
        """Write what was scaled, unless it is a weight that will be written as codes."""
        state = block.module.get_submodule(before.removeprefix(f"{block.name}.")).state_dict()
        for key, tensor in state.items():
            if key != "weight" or before not in self.layers.schemes:
                name = f"{before}.{key}"
                self._put(name, tensor.to(self._type(name)))

    def _others(self, block: Block) -> None:
        for name in (f"{block.name}.{key}" for key in block.module.state_dict()):
            if name.removesuffix(".weight") not in self.layers.schemes:
                self._copy(name)

    def _head(self, blocks: Blocks, hidden: torch.Tensor) -> None:
        weight = self.checkpoint.load(f"{HEAD}.weight").to(self.work.device, torch.float32)
        inputs = Inputs(weight.shape[1], weight.device)
        for at in range(0, len(hidden), BATCH):
            inputs.see(blocks.normed(hidden[at : at + BATCH]).flatten(0, -2))
        made = self._given(HEAD, weight, inputs)
        self.head = made
        self._keep(HEAD, weight, made, inputs)

    # ---- a weight --------------------------------------------------------------------------------------------

    def _given(self, name: str, weight: torch.Tensor, inputs: Inputs) -> QuantizedWeight:
        scheme, dtype = self.layers.schemes[name], self._type(f"{name}.weight")
        if self.method == "gptq":
            made = _better(weight, inputs, gptq(weight, inputs.gram, scheme, dtype), rtn(weight, scheme, dtype))
        elif self.method == "awq":
            made = clipped(weight, inputs, scheme, dtype)
        else:
            made = self._rounded(name, weight)
        return replace(made, input_scale=input_scale(inputs, dtype)) if scheme.static else made

    def _rounded(self, name: str, weight: torch.Tensor) -> QuantizedWeight:
        rounding = hqq if self.method == "hqq" else rtn
        return rounding(weight, self.layers.schemes[name], self._type(f"{name}.weight"))

    def _keep(
        self,
        name: str,
        weight: torch.Tensor,
        made: QuantizedWeight,
        inputs: Inputs | None,
        scales: torch.Tensor | None = None,
    ) -> None:
        """Write a weight and say how it is. `scales` are those that its input was divided by."""
        plain, reaching = weight, inputs
        if scales is not None and inputs is not None:
            plain, reaching = weight / scales, inputs.divided(1 / scales)
        against = rtn(plain, self.layers.schemes[name], self._type(f"{name}.weight"))
        self.found[name] = LayerFacts(
            bits=made.bits,
            stored_bits=made.stored_bits,
            error=_error(weight, made, inputs),
            rtn_error=None if self.method == "rtn" else _error(plain, against, reaching),
        )
        self._written.add(f"{name}.weight")
        for key, tensor in made.tensors(name):
            self._put(key, tensor)

    # ---- the file --------------------------------------------------------------------------------------------

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        self.put(name, tensor)
        self._written.add(name)

    def _copy(self, name: str) -> None:
        if name not in self._written and name in self.checkpoint.tensors:
            self._put(name, self.checkpoint.load(name))

    def _rest(self) -> None:
        for name in self.checkpoint.tensors:
            self.work.check()
            self._copy(name)

    def _type(self, name: str) -> torch.dtype:
        """Of a tensor in the source, which its scales and what replaces it keep; float32 for double precision."""
        return _TYPES.get(self.checkpoint.tensors[name].dtype, torch.float32)

    def _enough(self) -> None:
        """GPTQ and AWQ take as many tokens as a layer has input channels: with fewer, Σ x xᵀ says nothing of some
        directions, and errors hide there."""
        found = self.work.calibration.numel()
        needed = FEWEST
        if self.method in ("gptq", "awq"):
            needed = max(FEWEST, *(self.layers.shapes[name][1] for name in self.layers.schemes))
        if found < needed:
            raise CalibrationError(f"{self.method} of {self.checkpoint.folder.name}", needed=needed, found=found)


class _EnoughError(Exception):
    """All that was asked for has been seen: the rest of the layer need not run."""


def _seen(block: Block, units: tuple[Unit, ...]) -> dict[Unit, Inputs]:
    """What reaches each unit when all windows run through the layer as it is now."""
    linears = block.linears()
    seen = {unit: Inputs(linears[unit.names[0]].in_features, block.hidden.device) for unit in units}
    waiting = {unit.names[0]: unit for unit in units}
    last = units[-1].names[0]  # units are in the order in which they run

    def see(name: str, rows: torch.Tensor) -> None:
        if name in waiting:
            seen[waiting[name]].see(rows)
        if name == last:
            raise _EnoughError

    with block.inputs_of(see), torch.no_grad():
        for at in range(0, len(block.hidden), BATCH):
            with suppress(_EnoughError):
                block.forward(block.hidden[at : at + BATCH])
    return seen


def _better(weight: torch.Tensor, inputs: Inputs, made: QuantizedWeight, plain: QuantizedWeight) -> QuantizedWeight:
    """What errs less; the method is greedy, and nothing forbids it to lose, above all where texts are few."""
    return made if _error(weight, made, inputs) <= _error(weight, plain, inputs) else plain


def _error(weight: torch.Tensor, made: QuantizedWeight, inputs: Inputs | None) -> float:
    written = made.dequantize(torch.float32)
    if inputs is not None:
        return inputs.error(weight, written)
    whole = float(weight.square().sum())
    return float((weight - written).square().sum()) / whole if whole > 0 else 0.0
