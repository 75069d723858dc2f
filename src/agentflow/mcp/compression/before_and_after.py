"""What the source is worth, and what the artifact: a decoder by its words, an encoder by its vectors or its labels.

held-out windows ─▶ source (transformers) ─▶ before
                 └▶ what the stages wrote, in its own runtime ─▶ after: perplexity, KL, agreement, speed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agentflow.mcp.compression.artifact.manifest import Measures, Task
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.measurement.encoders import labels_said, vectors_said
from agentflow.mcp.compression.measurement.examples import Examples
from agentflow.mcp.compression.measurement.loaders import loaders
from agentflow.mcp.compression.measurement.measuring import (
    measure,
    measure_classifier,
    measure_embedder,
    measure_source,
)
from agentflow.mcp.compression.measurement.reference import Reference
from agentflow.mcp.compression.measurement.source_model import SourceModel
from agentflow.mcp.compression.measurement.speed import SpeedPlan
from agentflow.mcp.compression.work import Progress

__all__ = ["BeforeAndAfter", "task_of"]

PROMPTS = 20  # that greedy agreement is measured with
PROMPT, WRITTEN = 16, 24  # tokens of a prompt, and of what follows it


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeAndAfter:
    """Of a decoder on `windows`, of shape (windows, length); of an encoder on `rows`, a text each, as it will see them.

    `folder` keeps what the source said, for a second try.
    """

    source: Checkpoint
    sha256: str
    windows: torch.Tensor
    rows: Sequence[Sequence[int]]
    folder: Path
    examples: Examples | None
    plan: SpeedPlan
    check: Callable[[], None]
    progress: Progress

    def loaded_by(self, made: Path) -> Mapping[str, str]:
        """The runtimes of others that load the model in `made` and write a token, with their versions."""
        prompt = self.windows[0, :PROMPT].tolist() if self.source.is_decoder else self.rows[0]
        return loaders(made, prompt=prompt, task=task_of(self.source), check=self.check)

    def measured(self, made: Path) -> tuple[Measures, Measures]:
        """The source's measures, and those of the model in `made`. Raises ArtifactError where it cannot be run."""
        match task_of(self.source):
            case "generate":
                return self._decoders(made)
            case "classify":
                return self._classifiers(made)
            case "embed":
                return self._embedders(made)

    def _decoders(self, made: Path) -> tuple[Measures, Measures]:
        windows = self.windows.numpy()
        written = min(WRITTEN, windows.shape[1] // 2)
        prompts = windows[:PROMPTS, : min(PROMPT, windows.shape[1] - written)].tolist()
        reference = Reference.of(
            lambda: SourceModel(self.source.folder),
            windows,
            folder=self.folder,
            key=self.sha256,
            prompts=prompts,
            greedy_tokens=written,
            check=self.check,
            progress=self.progress,
        )
        plan, examples, check, progress = self.plan, self.examples, self.check, self.progress
        before = measure_source(
            self.source.folder, reference, plan=plan, examples=examples, check=check, progress=progress
        )
        after = measure(made, reference, plan=plan, examples=examples, check=check, progress=progress)
        return before, after

    def _classifiers(self, made: Path) -> tuple[Measures, Measures]:
        from agentflow.mcp.performance.edge.opening import open_labeller

        rows = self.rows
        with closing(open_labeller(self.source.folder)) as labeller:
            said: NDArray[np.int64] = labels_said(labeller, rows, check=self.check)
        before = measure_classifier(self.source.folder, rows, reference=said, plan=self.plan, check=self.check)
        return before, measure_classifier(made, rows, reference=said, plan=self.plan, check=self.check)

    def _embedders(self, made: Path) -> tuple[Measures, Measures]:
        from agentflow.mcp.performance.edge.opening import open_embedder

        rows = self.rows
        with closing(open_embedder(self.source.folder)) as embedder:
            said: NDArray[np.float32] = vectors_said(embedder, rows, check=self.check)
        before = measure_embedder(self.source.folder, rows, reference=said, plan=self.plan, check=self.check)
        return before, measure_embedder(made, rows, reference=said, plan=self.plan, check=self.check)


def task_of(source: Checkpoint) -> Task:
    """What the model is for, by its architecture."""
    if source.is_decoder:
        return "generate"
    return "classify" if source.architecture.endswith("ForSequenceClassification") else "embed"
