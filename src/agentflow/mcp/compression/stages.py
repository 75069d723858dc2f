"""The stages of a recipe, in order: skipped where they ended before a crash, else run on what the last one wrote.

    source ─▶ 1-prune-3f2a/ ─▶ 2-distill-91bc/ ─▶ 3-quantize-77d0/ ─▶ 4-export-0aa1/

A stage is a function of a folder, and its result depends on nothing but the folder, its settings, the texts it reads
and the seed; the name of its place says so (`Workspace`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Event

import msgspec
import torch

from agentflow.errors import ModelFolderError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.stage import distill
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.pruning import prune, sparsify
from agentflow.mcp.compression.quantization.stage import quantize
from agentflow.mcp.compression.recipe import Distill, Export, Prune, Quantize, Recipe, Sparsify, Stage
from agentflow.mcp.compression.recipe_file import settings_of
from agentflow.mcp.compression.settings import Settings
from agentflow.mcp.compression.texts import rows_of, sha256_of, windows_of
from agentflow.mcp.compression.work import Progress, Work
from agentflow.mcp.compression.workspace import Place, Workspace

__all__ = ["Made", "Stages"]


@dataclass(frozen=True, slots=True)
class Made:
    """The last stage's folder, and what each stage said of itself."""

    folder: Path
    records: tuple[StageRecord, ...]


class Stages:
    """A recipe for one model, with the windows that its stages read. Raises CalibrationError for too little text."""

    def __init__(self, recipe: Recipe, source: Checkpoint, settings: Settings) -> None:
        self.recipe = recipe
        self.source = source
        self.settings = settings
        self.length = settings.length or min(source.context_length, 512)
        self.calibration = self._windows("calibration", self.length, settings.calibration_windows)
        self.evaluation = self._windows("evaluation", self.length, settings.evaluation_windows)
        self.rows = self._rows()
        self._texts = sha256_of(settings.calibration, settings.training, settings.evaluation)
        self._training = [self._lessons(stage) for stage in recipe.stages]

    def run(self, workspace: Workspace, *, sha256: str, progress: Progress, cancelled: Event) -> Made:
        """`sha256` is the source's. Raises whatever a stage raises; what ended before is kept."""
        folder, records = self.source.folder, []
        for number, stage in enumerate(self.recipe.stages, start=1):
            place = workspace.place(number, stage.kind, self._facts(number, sha256))
            record = place.done()
            if record is None:
                record = self._run(stage, number, folder, place, progress, cancelled)
            records.append(record)
            folder = place.folder
        return Made(folder, tuple(records))

    def _run(
        self, stage: Stage, number: int, folder: Path, place: Place, progress: Progress, cancelled: Event
    ) -> StageRecord:
        work = Work(
            calibration=self.calibration,
            training=self._training[number - 1],
            evaluation=self.evaluation,
            scratch=place.scratch,
            teacher=self.source.folder,
            device=self.settings.device,
            seed=self.settings.seed,
            progress=progress,
            cancelled=cancelled,
        )
        work.check()
        begun = time.monotonic()
        record = _perform(stage, folder, place.folder, work)
        record = msgspec.structs.replace(
            record,
            seconds=round(time.monotonic() - begun, 3),
            notes=(*record.notes, *_left_undone(stage, self.recipe.stages[number:])),
        )
        place.finish(record)
        return record

    def _facts(self, number: int, sha256: str) -> Mapping[str, object]:
        """What the result of stage `number` depends on."""
        settings = self.settings
        return {
            "source": sha256,
            "stages": [{stage.kind: settings_of(stage)} for stage in self.recipe.stages[:number]],
            "texts": self._texts,
            "windows": [self.length, settings.calibration_windows, settings.evaluation_windows],
            "run": [settings.device, settings.seed],
            "versions": [version("agentflow-engine"), version("torch"), version("transformers")],
        }

    def _rows(self) -> tuple[tuple[int, ...], ...]:
        """Of an encoder: held-out texts, one by one, as many as there are windows of a decoder or some more."""
        if self.source.is_decoder:
            return ()
        texts, most = self.settings.evaluation, 4 * self.settings.evaluation_windows
        return rows_of(texts, self.source.tokenizer, longest=self.length, most=most)

    def _lessons(self, stage: Stage) -> torch.Tensor:
        """What the stage learns from: windows of its own length; none for a stage that learns nothing."""
        if not isinstance(stage, Distill):
            return torch.zeros((0, self.length), dtype=torch.int64)
        return self._windows("training", stage.length, None, least=stage.batch)

    def _windows(self, purpose: str, length: int, most: int | None, least: int = 1) -> torch.Tensor:
        texts: tuple[str, ...] = getattr(self.settings, purpose)
        marked = not self.source.is_decoder
        windows = windows_of(
            texts, self.source.tokenizer, length=length, purpose=purpose, most=most, least=least, marked=marked
        )
        known = int(self.source.config["vocab_size"])
        if int(windows.max()) >= known:
            problem = f"its tokenizer has a token {int(windows.max())}, and the model knows {known:,} only"
            raise ModelFolderError(self.source.folder, f"{problem}: they do not belong together")
        return windows


def _left_undone(stage: Stage, later: tuple[Stage, ...]) -> tuple[str, ...]:
    """What a reader must know of a stage because of what does not follow it."""
    if isinstance(stage, Prune) and not any(isinstance(each, Distill) for each in later):
        return ("nothing was trained after parts were taken out: let Distill follow",)
    return ()


def _perform(stage: Stage, source: Path, target: Path, work: Work) -> StageRecord:
    match stage:
        case Prune():
            return prune(stage, source, target, work)
        case Sparsify():
            return sparsify(stage, source, target, work)
        case Distill():
            return distill(stage, source, target, work)
        case Quantize():
            return quantize(stage, source, target, work)
        case Export():
            return export(stage, source, target, work)
