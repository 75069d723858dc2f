"""What a model's folder says of it before it is opened: what it is for and how much it reads.

Facts.of("artifacts/support")    →  Facts(model=…/model, task="generate", context_length=4096, manifest=…)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentflow.mcp.compression.artifact.manifest import Manifest
from agentflow.mcp.performance.edge.json_file import json_object
from agentflow.mcp.performance.edge.opening import kind_of, model_of

__all__ = ["Facts", "Task"]

Task = Literal["generate", "classify", "embed"]


@dataclass(frozen=True, slots=True)
class Facts:
    """`folder` is what was given, `model` where the files of the runtime lie. `context_length` is None where no file
    says it."""

    folder: Path
    model: Path
    task: Task
    context_length: int | None = None
    manifest: Manifest | None = None

    @classmethod
    def of(cls, folder: str | Path) -> Facts:
        """Raises ArtifactError where it is no model, or its files cannot be read."""
        path = Path(folder)
        model = model_of(path)
        kind_of(model)
        manifest = Manifest.read(path) if model != path else None
        card = json_object(model / "encoder.json")
        config = json_object(model / "config.json")
        said = (
            json_object(model / "genai_config.json").get("model"),
            {"context_length": card.get("max_length")},
            {"context_length": config.get("max_position_embeddings")},
        )
        lengths = [each["context_length"] for each in said if isinstance(each, Mapping) and each.get("context_length")]
        length = next((each for each in lengths if isinstance(each, int)), None)
        task = manifest.task if manifest is not None else _task(card, config, model)
        return cls(path, model, task, length, manifest)

    @property
    def name(self) -> str:
        return self.manifest.name if self.manifest is not None else self.folder.stem


def _task(card: Mapping[str, object], config: Mapping[str, object], model: Path) -> Task:
    said = card.get("task")
    if said == "embed":
        return "embed"
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else ""
    if said == "classify" or str(named).endswith("ForSequenceClassification"):
        return "classify"
    if (model / "modules.json").is_file():  # of sentence-transformers
        return "embed"
    return "generate"
