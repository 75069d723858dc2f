"""An artifact: a folder that compression made, opened again wherever it was carried to.

    artifact = Artifact.open("artifacts/support")     every file is held against its checksum first
    artifact.model                                    the folder that a runtime opens
    artifact.manifest.after[0].perplexity

Opening needs no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agentflow.errors import ArtifactError
from agentflow.mcp.compression.artifact.files import damage
from agentflow.mcp.compression.artifact.manifest import Manifest

__all__ = ["MODEL", "Artifact"]

MODEL = "model"  # the folder of its runtime's files, below the artifact's


@dataclass(frozen=True, slots=True)
class Artifact:
    """The folder of an artifact and what its manifest says."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Artifact:
        """Read the manifest, and every file once to check it; without `verify` only their names and sizes.

        Raises ArtifactError, which names the file, where one is missing, damaged or not of the artifact, where there is
        no manifest, and where it is of a newer version.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise ArtifactError(folder, "there is no such folder")
        artifact = cls(folder, Manifest.read(folder))
        artifact.verify(contents=verify)
        return artifact

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def model(self) -> Path:
        """The folder that a runtime opens."""
        return self.folder / MODEL

    def verify(self, *, contents: bool = True) -> None:
        """Raises ArtifactError where a file is not as it was written; without `contents`, by name and size alone."""
        wrong = damage(self.folder, self.manifest.files, contents=contents)
        if wrong is not None:
            raise ArtifactError(self.folder, wrong)
