"""The making of one artifact, in one thread: everything that can be wrong, the stages, the measuring, one rename.

    folder ─▶ preflight ─▶ stages (each found again after a crash) ─▶ measured beside the source ─▶ gate ─▶ artifact

`compress()` chooses the thread, and how it is called off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from agentflow.errors import CompressionError
from agentflow.mcp.compression.artifact.artifact import Artifact
from agentflow.mcp.compression.artifact.assembling import assemble, source_of
from agentflow.mcp.compression.artifact.gate import Gate
from agentflow.mcp.compression.before_and_after import BeforeAndAfter, task_of
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.measurement.examples import Examples
from agentflow.mcp.compression.measurement.machine import machine
from agentflow.mcp.compression.measurement.speed import SpeedPlan
from agentflow.mcp.compression.preflight import finite_weights, fits, usable_device
from agentflow.mcp.compression.recipe import Recipe
from agentflow.mcp.compression.recipe_file import settings_of
from agentflow.mcp.compression.resources import enough, needs_of
from agentflow.mcp.compression.settings import Settings
from agentflow.mcp.compression.stages import Stages
from agentflow.mcp.compression.work import CancelledWork, Progress
from agentflow.mcp.compression.workspace import Workspace

__all__ = ["Making"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """See `compress()`, whose arguments these are."""

    folder: Path
    recipe: Recipe
    settings: Settings
    gate: Gate | None
    examples: Examples | None
    plan: SpeedPlan
    notes: Sequence[str]
    progress: Progress
    cancelled: Event

    def make(self) -> Artifact:
        """Raises CancelledWork once `cancelled` is set, and what `compress()` says."""
        source = Checkpoint.open(self.folder.absolute())  # a back end may run elsewhere
        stages = self.preflight(source)
        workspace = Workspace(self.settings.output.parent / f".{self.settings.output.name}.work")
        with workspace.held():
            artifact = self._made(source, stages, workspace)
        workspace.remove()
        if self.gate is not None:
            self.gate.check(artifact.manifest)
        return artifact

    def preflight(self, source: Checkpoint) -> Stages:
        """Everything that can be wrong, from cheap to dear; the stages, with their windows."""
        settings = self.settings
        if settings.output.exists():
            text = f"{settings.output} exists already; nothing is ever written over"
            raise CompressionError(f"{text}: remove it, or give another output")
        fits(self.recipe, source)
        usable_device(settings.device)
        stages = Stages(self.recipe, source, settings)
        windows = len(stages.calibration)
        enough(needs_of(self.recipe, source, windows=windows, length=stages.length), settings.output.parent)
        finite_weights(source, self.check)
        return stages

    def check(self) -> None:
        if self.cancelled.is_set():
            raise CancelledWork

    def _made(self, source: Checkpoint, stages: Stages, workspace: Workspace) -> Artifact:
        settings = self.settings
        texts = (*settings.calibration, *settings.training, *settings.evaluation)
        known = source_of(source, name=source.folder.name, texts=texts, notes=self.notes)
        made = stages.run(workspace, sha256=known.sha256, progress=self.progress, cancelled=self.cancelled)
        beside = BeforeAndAfter(
            source=source,
            sha256=known.sha256,
            windows=stages.evaluation,
            rows=stages.rows,
            folder=workspace.folder,
            examples=self.examples,
            plan=self.plan,
            check=self.check,
            progress=self.progress,
        )
        before, after = beside.measured(made.folder)
        return assemble(
            settings.output,
            model=made.folder,
            name=settings.name,
            task=task_of(source),
            source=known,
            source_folder=source.folder,
            stages=made.records,
            recipe_sha256=_sha256(self.recipe),
            before=before,
            after=[after],
            loaded_by=beside.loaded_by(made.folder),
            machine=machine(),
            labels=_labels(source),
            gate=self.gate,
        )


def _sha256(recipe: Recipe) -> str:
    stages = [{stage.kind: settings_of(stage)} for stage in recipe.stages]
    return hashlib.sha256(json.dumps(stages, sort_keys=True).encode()).hexdigest()


def _labels(source: Checkpoint) -> tuple[str, ...]:
    """The names of a classifier's labels, by their numbers."""
    names = source.config.get("id2label")
    if task_of(source) != "classify" or not isinstance(names, Mapping):
        return ()
    return tuple(str(names[key]) for key in sorted(names, key=int))
