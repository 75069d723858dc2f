"""An artifact with all that it needs to run on another machine, in one folder.

    deploy("artifacts/support", "deployed/support")

    deployed/support/
      run.py               answers prompts; needs the wheels of requirements.txt, and neither AgentFlow nor PyTorch
      requirements.txt     exact versions
      artifact/            the artifact as it was: manifest.json, model/, its licence
      models.yml           the lines that make it a model of AgentFlow
      README.md  NOTICE  LICENSE  SHA256SUMS

It is written beside its place and renamed: whoever looks sees all of it or nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from agentflow.errors import ArtifactError, ConfigurationError
from agentflow.mcp.compression.artifact.artifact import Artifact
from agentflow.mcp.performance.edge.folder import checksums
from agentflow.mcp.performance.edge.folder.papers import papers
from agentflow.mcp.performance.edge.folder.programme import programme

__all__ = ["ARTIFACT", "RUN", "DeployedFolder", "deploy"]

ARTIFACT: Final = "artifact"
RUN: Final = "run.py"
_FORMATS: Final = ("onnx", "gguf")
_TERMS: Final = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")


@dataclass(frozen=True, slots=True)
class DeployedFolder:
    """`name` is what the model is called there, `bytes` what all files take together."""

    folder: Path
    name: str
    files: int
    bytes: int


def deploy(artifact: Artifact | str | Path, output: str | Path, *, name: str | None = None) -> DeployedFolder:
    """Write the folder `output` for an artifact of ONNX or GGUF, whose files are held against their checksums first.

    `name` is what models.yml and run.py call the model, `edge/…` after the artifact where None. Raises ArtifactError
    where the artifact is damaged or of another format, ConfigurationError where `output` is there already, and OSError
    where the disk is full.
    """
    source = artifact if isinstance(artifact, Artifact) else Artifact.open(artifact)
    if isinstance(artifact, Artifact):
        source.verify()
    manifest, target = source.manifest, Path(output)
    if manifest.format not in _FORMATS:
        raise ArtifactError(source.folder, f"it is of format {manifest.format}, and what is deployed is onnx or gguf")
    if target.exists() or target.is_symlink():
        raise ConfigurationError(f"{target} is there already: name a folder that is not")
    called = name or f"edge/{manifest.name}"
    text = programme(manifest, called)
    written = papers(manifest, called, runs=text is not None)
    with _beside(target) as folder:
        shutil.copytree(source.folder, folder / ARTIFACT, ignore=_hidden)
        _copy_terms(source.folder, folder)
        for file, words in written.items():
            (folder / (file if not (folder / file).exists() else f"{file}-deployed")).write_text(words, "utf-8")
        if text is not None:
            (folder / RUN).write_text(text, encoding="utf-8")
            (folder / RUN).chmod(0o755)
        checksums.write(folder)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return DeployedFolder(target, called, len(sizes), sum(sizes))


def _copy_terms(artifact: Path, folder: Path) -> None:
    """Licences and notices lie where everybody looks for them, too."""
    for place in (artifact, artifact / "model"):
        for path in sorted(place.iterdir()):
            if path.is_file() and any(fnmatch(path.name.upper(), pattern) for pattern in _TERMS):
                shutil.copyfile(path, folder / path.name)


def _hidden(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".")]


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target` when all went well, and goes away when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield folder
        folder.chmod(0o755)
        os.rename(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
