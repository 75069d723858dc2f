"""What a recipe will need of memory and disk, estimated before it runs, beside what there is.

    peak memory of a stage ≈ PyTorch itself + what the stage holds at once (weights of a layer, or of whole models)

The estimates are upper ones and rough: within a factor of two where they were measured. They exist to refuse, within a
second, what would fail after hours.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from agentflow.errors import ShortageError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.recipe import Distill, Export, Prune, Quantize, Recipe, Sparsify, Stage

__all__ = ["Needs", "available_memory", "enough", "needs_of"]

_PYTORCH = 900_000_000  # bytes that Python, PyTorch and transformers hold before any weight is read
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes: the most memory that any stage holds, and whose it is; the disk that all stages' folders take."""

    memory: int
    stage: str
    disk: int


def needs_of(recipe: Recipe, source: Checkpoint, *, windows: int, length: int) -> Needs:
    """For texts of `windows` × `length` tokens. Sizes are those of the source, which no stage makes larger."""
    peaks = {stage.kind: _memory(stage, source, windows, length) for stage in recipe.stages}
    peaks["measuring"] = 2 * source.parameters * _FLOAT + 3 * length * _vocabulary(source) * _FLOAT
    stage, peak = max(peaks.items(), key=lambda each: each[1])
    disk = sum(_disk(stage, source) for stage in recipe.stages)
    return Needs(_PYTORCH + peak, stage, disk)


def enough(needs: Needs, place: Path, *, memory: int | None = None) -> None:
    """Raises ShortageError where memory, or the disk of `place`, has less than is needed."""
    available = available_memory() if memory is None else memory
    if available is not None and needs.memory > available:
        advice = f"{needs.stage} needs the most; take fewer or shorter windows, a smaller model, or a larger machine"
        raise ShortageError("memory", needed=needs.memory, available=available, advice=advice)
    free = shutil.disk_usage(_existing(place)).free
    if needs.disk > free:
        raise ShortageError("disk", needed=needs.disk, available=free, advice=f"make room at {place}")


def available_memory() -> int | None:
    """Bytes that could be had now without swapping, the limit of a container counted; None where nobody knows."""
    found = [each for each in (_meminfo(), _cgroup(), _sysconf()) if each is not None]
    return min(found) if found else None


def _memory(stage: Stage, source: Checkpoint, windows: int, length: int) -> int:
    hidden = int(source.config.get("hidden_size", 1))
    states = 3 * windows * length * hidden * _FLOAT
    layer = source.parameters * _FLOAT // max(source.layers, 1)
    logits = _vocabulary(source) * _FLOAT
    match stage:
        case Quantize() | Sparsify():
            widest = max(int(source.config.get("intermediate_size", hidden)), hidden)
            return states + 4 * layer + 3 * widest * widest * _FLOAT + _vocabulary(source) * hidden * _FLOAT
        case Prune():
            return states + 3 * layer + source.parameters * _FLOAT
        case Distill():
            tokens = stage.batch * stage.length
            activations = tokens * (12 * hidden * source.layers * _FLOAT + 4 * logits)
            return 6 * source.parameters * _FLOAT + activations
        case Export():
            return 3 * source.parameters * _FLOAT


def _disk(stage: Stage, source: Checkpoint) -> int:
    whole = source.parameters * _FLOAT
    match stage:
        case Distill():
            return 4 * whole  # two checkpoints with the optimizer's moments
        case Export() if stage.format in ("onnx", "gguf"):
            return 2 * whole
    return max(source.bytes, whole if stage.kind != "export" else source.bytes)


def _vocabulary(source: Checkpoint) -> int:
    return int(source.config.get("vocab_size", 1))


def _existing(place: Path) -> Path:
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(facts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in facts else None


def _cgroup() -> int | None:
    """What the container may still take, by version 2 of control groups."""
    base = Path("/sys/fs/cgroup")
    try:
        limit = (base / "memory.max").read_text(encoding="ascii").strip()
        used = int((base / "memory.current").read_text(encoding="ascii"))
        stats = dict(line.split() for line in (base / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(stats.get("inactive_file", 0))


def _sysconf() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
