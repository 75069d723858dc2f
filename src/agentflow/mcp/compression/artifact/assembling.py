"""What a recipe wrote becomes an artifact: files copied, read back, summed up, judged; all of it or nothing.

    scratch/…/model ──▶ assemble(target, model=…, source=…, stages=…, after=…) ──▶ target/ manifest.json model/ LICENSE

Whoever is killed in the middle leaves a hidden folder beside `target` and no artifact.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from agentflow.clock import Clock, SystemClock
from agentflow.errors import ArtifactError
from agentflow.mcp.compression.artifact.artifact import MODEL, Artifact
from agentflow.mcp.compression.artifact.files import facts_of
from agentflow.mcp.compression.artifact.gate import Gate
from agentflow.mcp.compression.artifact.manifest import (
    Manifest,
    Measures,
    Source,
    StageRecord,
    Task,
    TensorRecord,
)
from agentflow.mcp.compression.checkpoint import Checkpoint, writing

__all__ = ["assemble", "format_of", "installed_versions", "source_of"]

_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")
_MADE_BY = ("agentflow-engine", "torch", "transformers", "safetensors", "compressed-tensors", "onnx", "onnx-ir",
            "onnxruntime", "onnxruntime-genai", "gguf", "llama-cpp-python", "tokenizers", "numpy")  # fmt: skip
_CLOCK = SystemClock()


def assemble(
    target: Path,
    *,
    model: Path,
    name: str,
    task: Task,
    source: Source,
    source_folder: Path,
    stages: Sequence[StageRecord],
    recipe_sha256: str,
    tensors: Sequence[TensorRecord] | None = None,
    before: Measures | None = None,
    after: Sequence[Measures] = (),
    loaded_by: Mapping[str, str] | None = None,
    machine: Mapping[str, object] | None = None,
    labels: Sequence[str] = (),
    gate: Gate | None = None,
    clock: Clock = _CLOCK,
) -> Artifact:
    """Write `target`, a folder that is not there yet, from the folder `model` that the last stage wrote.

    `tensors` is read back from `model` where it is not given. The gate's verdict is written down and not raised:
    whoever made the artifact wants to see what it misses; `gate.check(artifact.manifest)` raises.

    Raises ArtifactError where `model` is empty or already holds a manifest, CompressionError where `target` exists,
    ShortageError where the disk is full.
    """
    if not model.is_dir() or not any(model.iterdir()):
        raise ArtifactError(model, "the recipe wrote no model there")
    with writing(target) as folder:
        shutil.copytree(model, folder / MODEL, ignore=shutil.ignore_patterns(".*"))
        _copy_licences(source_folder, folder)
        manifest = Manifest(
            name=name,
            task=task,
            format=format_of(folder / MODEL),
            source=source,
            recipe=tuple(stages),
            recipe_sha256=recipe_sha256,
            files=facts_of(folder),
            tensors=_read_back(folder / MODEL) if tensors is None else tuple(tensors),
            parameters=stages[-1].parameters if stages else source.parameters,
            bytes=sum(path.stat().st_size for path in (folder / MODEL).rglob("*") if path.is_file()),
            before=before,
            after=tuple(after),
            loaded_by=dict(loaded_by or {}) or {each.runtime: each.runtime_version for each in after},
            labels=tuple(labels),
            versions=installed_versions(),
            machine=dict(machine or {}),
            created=datetime.fromtimestamp(clock.time(), UTC).isoformat(timespec="seconds"),
        )
        (manifest if gate is None else gate.judged(manifest)).write(folder)
    return Artifact.open(target)


def source_of(checkpoint: Checkpoint, *, name: str, texts: Iterable[str] = (), notes: Sequence[str] = ()) -> Source:
    """What the manifest says of the model that was compressed; `texts` are all that it was compressed and measured
    with, in order."""
    digest, some = hashlib.sha256(), False
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
        some = True
    return Source(
        name=name,
        sha256=checkpoint.sha256(),
        architecture=checkpoint.architecture,
        parameters=checkpoint.parameters,
        bytes=checkpoint.bytes,
        licence=_licence(checkpoint.folder),
        data_sha256=digest.hexdigest() if some else None,
        notes=tuple(notes),
    )


def format_of(model: Path) -> str:
    """ "gguf", "onnx", "compressed-tensors" or "hf", by what lies in the folder. Raises ArtifactError for anything
    else."""
    if any(model.glob("*.gguf")):
        return "gguf"
    if any(model.glob("*.onnx")):
        return "onnx"
    try:
        config = msgspec.json.decode((model / "config.json").read_bytes(), type=dict[str, object])
    except (OSError, msgspec.MsgspecError) as error:
        raise ArtifactError(model, f"no .gguf, no .onnx and no readable config.json is in it: {error}") from error
    return "compressed-tensors" if "quantization_config" in config else "hf"


def installed_versions() -> dict[str, str]:
    """Of what takes part in compression and is installed here."""
    found = {}
    for name in _MADE_BY:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _read_back(model: Path) -> tuple[TensorRecord, ...]:
    from agentflow.mcp.compression.export.readback import tensors_of

    return tensors_of(model)


def _copy_licences(source: Path, folder: Path) -> None:
    for pattern in _LICENCES:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


def _licence(folder: Path) -> str | None:
    """The first line with words in it of the licence's file."""
    for path in sorted(each for pattern in _LICENCES[:2] for each in folder.glob(pattern)):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.strip():
                return line.strip()[:200]
    return None
