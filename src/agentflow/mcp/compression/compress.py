"""From a local model folder to an artifact: smaller, measured, and with a manifest that says what was lost.

    artifact = await compress(
        "path/to/model",
        Recipe(Prune(depth=0.5), Distill(steps=2000), Quantize("w4g64", method="gptq"), Export("onnx")),
        calibration=texts,
        evaluation=held_out,
        output="support-small",
    )

The order: everything that can be wrong beforehand (seconds), the stages, the measuring beside the source in the
artifact's own runtime, the gate, and one rename. Killed anywhere and called again, it goes on after the last stage that
ended, and inside a `Distill` at its last checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from agentflow.errors import CompressionError
from agentflow.mcp.compression.backends import needs_torch
from agentflow.mcp.compression.recipe import Recipe
from agentflow.mcp.compression.work import Progress, silent

if TYPE_CHECKING:
    from agentflow.mcp.compression.artifact.artifact import Artifact
    from agentflow.mcp.compression.artifact.gate import Gate
    from agentflow.mcp.compression.measurement.examples import Examples
    from agentflow.mcp.compression.measurement.speed import SpeedPlan

__all__ = ["compress"]


async def compress(
    model: str | Path,
    recipe: Recipe,
    *,
    calibration: Sequence[str],
    evaluation: Sequence[str],
    training: Sequence[str] | None = None,
    output: str | Path | None = None,
    name: str | None = None,
    gate: Gate | None = None,
    examples: Examples | None = None,
    plan: SpeedPlan | None = None,
    length: int | None = None,
    calibration_windows: int = 128,
    evaluation_windows: int = 64,
    device: str = "cpu",
    seed: int = 0,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Artifact:
    """Run `recipe` over the model in the folder `model`; the artifact stands in `output` when this returns.

    `calibration` are texts that stages look at; `training` those that `Distill` learns from (the same where None);
    `evaluation` those that source and artifact are measured on, which no stage sees. `length` is a window's tokens (the
    model's context where None, 512 at most). `output` is `MODEL-small` beside the model where None.
    `examples` is a task that both are scored on, `plan` how speeds are measured, `gate` what the artifact must reach.
    `notes` are kept in the manifest's source: the terms under which the model or the texts were had, say.
    `progress(what, done, of)` is called from another thread.

    Raises RecipeError, ModelFolderError, UnsupportedArchitectureError, CalibrationError and ShortageError before any
    work; BackendError where a runtime fails; QualityGateError where the artifact is below its floor: it then stands in
    `output` all the same, with the verdict in its manifest. Cancelled, it ends within a step and leaves what it needs
    to go on.
    """
    needs_torch()
    from agentflow.mcp.compression.making import Making
    from agentflow.mcp.compression.measurement.speed import SpeedPlan
    from agentflow.mcp.compression.settings import Settings

    place = _place(model, output)
    settings = Settings(
        output=place,
        name=name or place.name,
        calibration=_texts("calibration", calibration),
        training=_texts("training", calibration if training is None else training),
        evaluation=_texts("evaluation", evaluation),
        length=length,
        calibration_windows=calibration_windows,
        evaluation_windows=evaluation_windows,
        device=device,
        seed=seed,
    )
    cancelled = Event()
    making = Making(
        folder=Path(model),
        recipe=recipe,
        settings=settings,
        gate=gate,
        examples=examples,
        plan=plan or SpeedPlan(),
        notes=tuple(notes),
        progress=progress,
        cancelled=cancelled,
    )
    work = asyncio.ensure_future(asyncio.to_thread(making.make))
    return await _ended(work, cancelled)


def _texts(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    if isinstance(texts, str):
        raise CompressionError(f"{name} is a list of texts, not one text")
    return tuple(texts)


def _place(model: str | Path, output: str | Path | None) -> Path:
    """Where the artifact goes, as an absolute path: the process may change its folder meanwhile."""
    if output is not None:
        return Path(output).absolute()
    source = Path(model).absolute()
    return source.parent / f"{source.name}-small"


async def _ended(work: asyncio.Future[Artifact], cancelled: Event) -> Artifact:
    """The thread's result. Cancelled, it tells the thread and waits for it: nothing goes on in secret."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue  # once more, impatiently; a thread cannot be hurried
        if not work.cancelled():
            work.exception()  # looked at, whatever it is: the caller hears of the cancellation
        raise
