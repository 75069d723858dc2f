"""An artifact in another format: the model exported once more, the manifest carried on.

    convert(artifact, "onnx", Path("artifacts/support-onnx"))

What was measured belongs to the format that it was measured in, so the new manifest has none of its own: only the
source's, and the history with one more stage.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from agentflow.mcp.compression.artifact.artifact import Artifact
from agentflow.mcp.compression.artifact.assembling import assemble
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.recipe import Export
from agentflow.mcp.compression.work import Progress, Work, silent

__all__ = ["convert"]


def convert(artifact: Artifact, target: str, folder: Path, *, progress: Progress = silent) -> Artifact:
    """The artifact `folder`, which is not there yet, of the model in the format `target`, as `Export(target)` has it.

    Raises RecipeError for a format that cannot hold the model, ModelFolderError where it is in none that can be read,
    BackendError where the exporter fails.
    """
    # Exporters run in folders of their own, so paths are absolute.
    manifest, stage, folder = artifact.manifest, Export(target), folder.absolute()
    nothing = torch.zeros((0, 1), dtype=torch.int64)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as place:
        scratch = Path(place) / "scratch"
        scratch.mkdir()
        work = Work(
            calibration=nothing,
            training=nothing,
            evaluation=nothing,
            scratch=scratch,
            teacher=artifact.model.absolute(),
            progress=progress,
        )
        record = export(stage, artifact.model.absolute(), Path(place) / "model", work)
        return assemble(
            folder,
            model=Path(place) / "model",
            name=manifest.name,
            task=manifest.task,
            source=manifest.source,
            source_folder=artifact.folder,
            stages=(*manifest.recipe, record),
            recipe_sha256=hashlib.sha256(f"{manifest.recipe_sha256} export {target}".encode()).hexdigest(),
            before=manifest.before,
            labels=manifest.labels,
        )
