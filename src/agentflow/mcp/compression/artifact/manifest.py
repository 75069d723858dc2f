"""What an artifact is and what was lost: the values of manifest.json, and nothing that needs PyTorch.

    ARTIFACT/
      manifest.json      this
      model/             the files of its runtime: a Hugging Face folder, an ONNX folder of onnxruntime-genai, a .gguf
      LICENSE …          of the source, where it had one

`sha256` of every file under model/ stands in `files`; `tensors` is read back from the written files, never copied from
what was asked for. Times are seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from agentflow.errors import ArtifactError

__all__ = ["FileFacts", "Manifest", "Measures", "Source", "Speed", "StageRecord", "TensorRecord"]

VERSION = 1
NAME = "manifest.json"
Task: TypeAlias = Literal["generate", "classify", "embed"]


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the artifact, by its path below it."""

    path: str
    bytes: int
    sha256: str


class TensorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One weight as found in the written file. `stored_bits` counts what it takes there, scales included, a weight;
    `bits` is the width of a code; `sparsity` the share of weights that are exactly zero once they are decoded."""

    name: str
    shape: tuple[int, ...]
    type: str  # "F32", "int4 g64", "q4_K", …: in the words of the format
    bits: float
    stored_bits: float
    sparsity: float


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where it came from. `data_sha256` is of the calibration, training and evaluation texts."""

    name: str
    sha256: str
    architecture: str
    parameters: int
    bytes: int
    licence: str | None = None
    data_sha256: str | None = None
    notes: tuple[str, ...] = ()


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the recipe, as it ran: `facts` are its own (losses, errors of layers, what was kept)."""

    kind: str
    settings: Mapping[str, object]
    seconds: float
    parameters: int
    facts: Mapping[str, object] = {}
    notes: tuple[str, ...] = ()  # what a reader must know: "quantised twice", "no speed is gained by these zeros"


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Batch 1 on the machine that `machine` names. `cold_start`: from the start of a process to its first token."""

    tokens_per_second: float
    time_to_first_token: float
    cold_start: float
    resident_bytes: int
    prompt_tokens: int
    output_tokens: int


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Measured in a runtime, on held-out windows. KL (nats a token), `top1` and `greedy` are against the source;
    `greedy` is the share of greedily written tokens that are the source's. `task` is a score between 0 and 1."""

    runtime: str
    runtime_version: str
    tokens: int
    perplexity: float | None = None
    kl: float | None = None
    top1: float | None = None
    greedy: float | None = None
    task: float | None = None
    task_name: str | None = None
    speed: Speed | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one artifact."""

    name: str
    task: Task
    format: str  # "hf", "compressed-tensors", "onnx", "gguf"
    source: Source
    recipe: tuple[StageRecord, ...]
    recipe_sha256: str
    files: tuple[FileFacts, ...]
    tensors: tuple[TensorRecord, ...]
    parameters: int
    bytes: int
    before: Measures | None = None
    after: tuple[Measures, ...] = ()  # one a runtime that loaded it
    loaded_by: Mapping[str, str] = {}  # runtime → version of those that loaded it and wrote a token
    labels: tuple[str, ...] = ()
    versions: Mapping[str, str] = {}
    machine: Mapping[str, object] = {}  # processor, its flags that matter, cores, memory, operating system
    created: str = ""  # ISO 8601, UTC
    version: int = VERSION

    @classmethod
    def read(cls, artifact: str | Path) -> Manifest:
        """Of the folder `artifact`. Raises ArtifactError where it is missing, damaged, or of a newer version."""
        path = Path(artifact) / NAME
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            raise ArtifactError(artifact, f"it has no {NAME}") from None
        except (OSError, msgspec.MsgspecError) as error:
            raise ArtifactError(artifact, f"its {NAME} cannot be read: {error}") from error
        if manifest.version > VERSION:
            raise ArtifactError(artifact, f"it is of version {manifest.version}, and this package knows {VERSION}")
        return manifest

    def write(self, artifact: str | Path) -> None:
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        (Path(artifact) / NAME).write_bytes(text + b"\n")
