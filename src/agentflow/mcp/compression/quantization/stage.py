"""The stage of a recipe that writes a model with fewer bits.

quantize(Quantize("w4g64", method="gptq"), source, target, work) ──▶ target/, a compressed-tensors folder, and facts

layers and their schemes ─▶ bits by sensitivity, where there is a budget ─▶ Treatment ─▶ shards, config, companions
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter, copy_companions, writing
from agentflow.mcp.compression.quantization.budget import Budget
from agentflow.mcp.compression.quantization.configuration import write_config
from agentflow.mcp.compression.quantization.layers import HEAD, Layers, layers_of
from agentflow.mcp.compression.quantization.treatment import LayerFacts, Treatment, needs_text
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.work import Work

__all__ = ["quantize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What was written: the layers with their bits, the facts of each, and the KL where it was measured."""

    layers: Layers
    found: dict[str, LayerFacts]
    kl: float | None = None


class _OverError(Exception):
    """A try went over the budget: its folder is taken away, and another is made that is allowed less."""

    def __init__(self, kl: float) -> None:
        super().__init__(f"a KL of {kl}")
        self.kl = kl


def quantize(stage: Quantize, source: Path, target: Path, work: Work) -> StageRecord:
    """Write the model of `source` into `target` as compressed-tensors.

    Raises RecipeError where the scheme does not fit the model or no bits keep the budget, CalibrationError for too
    little text, ModelFolderError for a damaged model, ShortageError where the disk is full. Nothing is left of a target
    that was not finished.
    """
    begun = time.monotonic()
    checkpoint = Checkpoint.open(source)
    try:
        layers = layers_of(checkpoint, stage)
        if stage.budget is None:
            made = _written(stage, checkpoint, layers, target, work)
        else:
            made = _within(Budget.of(stage, checkpoint, layers, work), checkpoint, target, work)
    finally:
        checkpoint.close()
    return StageRecord(
        kind=stage.kind,
        settings=asdict(stage),
        seconds=time.monotonic() - begun,
        parameters=checkpoint.parameters,
        facts=_facts(stage, made),
        notes=_notes(stage, checkpoint, made),
    )


def _within(budget: Budget, checkpoint: Checkpoint, target: Path, work: Work) -> _Made:
    """Try until the budget is kept."""
    kind, allowed = budget.stage.limit()
    limit = allowed
    layers = budget.chosen(allowed)
    while True:
        work.check()

        def judged(treatment: Treatment, layers: Layers = layers) -> float:
            kl = budget.kl(treatment.by_block(), treatment.head)
            if kind == "kl" and kl > limit:
                raise _OverError(kl)
            return kl

        try:
            return _written(budget.stage, checkpoint, layers, target, work, judged)
        except _OverError as over:
            allowed, layers = budget.after(allowed, over.kl, layers)


def _written(
    stage: Quantize,
    checkpoint: Checkpoint,
    layers: Layers,
    target: Path,
    work: Work,
    run: Callable[[Treatment], float | None] | None = None,
) -> _Made:
    with writing(target) as folder:
        with ShardWriter(folder) as shards:
            treatment = Treatment(checkpoint, layers, stage.method, work, shards.add)
            kl = (run or _run)(treatment)
        write_config(checkpoint, layers, folder)
        copy_companions(checkpoint.folder, folder)
    return _Made(layers=layers, found=treatment.found, kl=kl)


def _run(treatment: Treatment) -> None:
    if needs_text(treatment.method, treatment.layers):
        treatment.by_block()
    else:
        treatment.by_tensor()


def _facts(stage: Quantize, made: _Made) -> dict[str, object]:
    sizes = {name: made.layers.shapes[name][0] * made.layers.shapes[name][1] for name in made.found}
    weights = sum(sizes.values())
    facts: dict[str, object] = {
        "bits": sum(sizes[name] * found.bits for name, found in made.found.items()) / weights,
        "stored_bits": sum(sizes[name] * found.stored_bits for name, found in made.found.items()) / weights,
        "layers_of_bits": {str(bits): n for bits, n in sorted(Counter(f.bits for f in made.found.values()).items())},
        "layers": {name: found.facts() for name, found in made.found.items()},
        "ignored": list(made.layers.ignored),
    }
    return facts if made.kl is None else facts | {"calibration_kl": made.kl, "budget": stage.budget}


def _notes(stage: Quantize, checkpoint: Checkpoint, made: _Made) -> tuple[str, ...]:
    notes = []
    if stage.method in ("awq", "smoothquant"):
        notes.append(
            "norms were scaled so that layers round better: they differ from the source, its function does not"
        )
    if any(not scheme.symmetric for scheme in made.layers.schemes.values()):
        notes.append(
            "zero points: transformers reads this folder with CompressedTensorsConfig(dequantize=True) alone"
            + (", and with several widths not at all: export it" if len(set(made.layers.schemes.values())) > 1 else "")
        )
    if not {scheme.bits for scheme in made.layers.schemes.values()} <= {4, 8}:
        notes.append("2 and 3 bits: transformers reads this folder; vLLM has no kernels but for 4 and 8")
    if HEAD not in made.layers.shapes and checkpoint.is_decoder:
        notes.append("the head is tied to the embeddings, which stay in full precision")
    return tuple(notes)
