"""What an artifact is and what was lost: the values of manifest.json, and nothing that needs PyTorch.

    ARTIFACT/
      manifest.json      this
      model/             the files of its runtime: a Hugging Face folder, an ONNX folder of onnxruntime-genai, a .gguf
      LICENSE …          of the source, where it had one

`sha256` of every file stands in `files`; `tensors` is read back from the written files, never copied from what was
asked for. Times are seconds, sizes bytes. The last line of manifest.json is the sha256 of all that stands before it, so
that a flipped byte is found there too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from agentflow.errors import ArtifactError

__all__ = [
    "FileFacts",
    "GateRecord",
    "Manifest",
    "Measures",
    "Source",
    "Speed",
    "StageRecord",
    "TensorRecord",
]

VERSION = 1
NAME = "manifest.json"
_DIGEST = b',\n  "sha256": "'  # of the manifest itself, where its last line begins
_END = re.compile(rb'[0-9a-f]{64}"\n}\n')
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
    """Batch 1, in a process of its own, on the machine that `machine` names: each a median.

    `tokens_per_second` counts what follows the first token; `time_to_first_token` is with the model loaded;
    `cold_start` is from the start of a process to its first token; `resident_bytes` the most that process has held. Of
    a model that writes nothing, a text read takes the place of a token, and `tokens_per_second` counts tokens read.
    """

    tokens_per_second: float
    time_to_first_token: float
    cold_start: float
    resident_bytes: int | None  # None where the system does not tell
    prompt_tokens: int
    output_tokens: int
    repeats: int = 1
    threads: int | None = None  # None: as many as the runtime chooses


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Measured in a runtime, on held-out texts; None is what was not measured.

    A decoder: `perplexity`; `kl` (source ‖ artifact, nats a token) and `top1` against the source at each of `tokens`
    tokens; `greedy`, the share of `greedy_tokens` greedily written tokens that are the source's.
    A classifier: `accuracy` against true labels, `agreement` with the source's (a teacher's) on `texts` texts.
    An embedding model: `cosine`, the mean of each text's vectors; `spearman`, of the similarities of pairs of texts.
    `task` is a score between 0 and 1 on the task called `task_name`.
    """

    runtime: str
    runtime_version: str
    tokens: int = 0
    perplexity: float | None = None
    kl: float | None = None
    top1: float | None = None
    greedy: float | None = None
    greedy_tokens: int = 0
    texts: int = 0
    accuracy: float | None = None
    agreement: float | None = None
    cosine: float | None = None
    spearman: float | None = None
    task: float | None = None
    task_name: str | None = None
    speed: Speed | None = None


class GateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate asked of the artifact, and each limit it misses, in words: none where it passed."""

    limits: Mapping[str, float]
    failures: tuple[str, ...] = ()


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
    gate: GateRecord | None = None  # None: nobody asked anything of it
    created: str = ""  # ISO 8601, UTC
    version: int = VERSION

    @classmethod
    def read(cls, artifact: str | Path) -> Manifest:
        """Of the folder `artifact`. Raises ArtifactError where it is missing, damaged, or of a newer version."""
        path = Path(artifact) / NAME
        try:
            text = path.read_bytes()
            version = msgspec.json.decode(text, type=_Version).version
            if version > VERSION:
                raise ArtifactError(artifact, f"it is of version {version}, and this package knows {VERSION}")
            manifest = msgspec.json.decode(text, type=cls)
        except FileNotFoundError:
            raise ArtifactError(artifact, f"it has no {NAME}") from None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ArtifactError(artifact, f"its {NAME} cannot be read: {error}") from error
        facts, _, end = text.rpartition(_DIGEST)
        if not _END.fullmatch(end) or end[:64].decode() != hashlib.sha256(facts).hexdigest():
            raise ArtifactError(artifact, f"its {NAME} was changed after it was written: the checksum differs")
        return manifest

    def write(self, artifact: str | Path) -> None:
        """Into the folder `artifact`. Raises ArtifactError for what could not be read again: NaN where a number must
        be, a name that is no text."""
        try:
            text = msgspec.json.format(msgspec.json.encode(self), indent=2)
            msgspec.json.decode(text, type=Manifest)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ArtifactError(artifact, f"its {NAME} cannot be written: {error}") from error
        facts = text.removesuffix(b"\n}")
        digest = hashlib.sha256(facts).hexdigest().encode()
        (Path(artifact) / NAME).write_bytes(facts + _DIGEST + digest + b'"\n}\n')


class _Version(msgspec.Struct):
    version: int = VERSION
