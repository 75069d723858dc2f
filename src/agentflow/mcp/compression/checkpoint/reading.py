"""A model as it lies in a folder: read tensor by tensor, never whole, and judged before anything is done with it.

    folder/  config.json   model.safetensors | model.safetensors.index.json + shards   tokenizer.json   …

`Checkpoint.open(folder)` reads the names, shapes and types alone. The tokenizer is whatever `AutoTokenizer` makes of
the folder; code that lies in it is never run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from agentflow.errors import ModelFolderError, UnsupportedArchitectureError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["DECODERS", "ENCODERS", "Checkpoint", "TensorFacts"]

# Decoders whose layers are attention (q, k, v, o) and a gated feed-forward part (gate, up, down), in these names.
DECODERS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ENCODERS = ("BertModel", "BertForMaskedLM", "BertForSequenceClassification")
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor of a file: its type as safetensors writes it ("F32", "I32"), its shape, and where it lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path

    @property
    def count(self) -> int:
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def bytes(self) -> int:
        return self.count * _BYTES.get(self.dtype, 1)


class Checkpoint:
    """The folder of a model in the layout of Hugging Face.

    Raises ModelFolderError where something is missing or damaged, UnsupportedArchitectureError where the model is none
    of `DECODERS` and `ENCODERS`.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorFacts]) -> None:
        self.folder = folder
        self.config = config
        self.tensors = tensors
        self._files: dict[Path, safe_open] = {}

    @classmethod
    def open(cls, folder: str | Path) -> Checkpoint:
        path = Path(folder)
        config = _config(path)
        architectures = config.get("architectures")
        architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else "of no name"
        if architecture not in (*DECODERS, *ENCODERS):
            raise UnsupportedArchitectureError(path, architecture, (*DECODERS, *ENCODERS))
        return cls(path, config, _tensors(path))

    @property
    def architecture(self) -> str:
        return str(self.config["architectures"][0])

    @property
    def is_decoder(self) -> bool:
        return self.architecture in DECODERS

    @property
    def layers(self) -> int:
        return self._number("num_hidden_layers")

    @property
    def context_length(self) -> int:
        return self._number("max_position_embeddings")

    def _number(self, name: str) -> int:
        found = self.config.get(name)
        if not isinstance(found, int):
            raise ModelFolderError(self.folder, f"its config.json has no number {name}")
        return found

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """The `quantization_config` of what is quantised already."""
        found = self.config.get("quantization_config")
        return found if isinstance(found, Mapping) else None

    @property
    def parameters(self) -> int:
        return sum(tensor.count for tensor in self.tensors.values())

    @property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors.values())

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Raises ModelFolderError where the folder has none."""
        if not any((self.folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt")):
            raise ModelFolderError(self.folder, "it has no tokenizer (tokenizer.json): save one beside the model")
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ModelFolderError(self.folder, f"its tokenizer cannot be read: {error}") from error

    def load(self, name: str, device: str = "cpu") -> torch.Tensor:
        """One tensor, as it is stored. Raises ModelFolderError for NaN or infinity in it."""
        facts = self.tensors.get(name)
        if facts is None:
            raise ModelFolderError(self.folder, f"it has no tensor {name}")
        try:
            if facts.file not in self._files:
                self._files[facts.file] = safe_open(facts.file, framework="pt", device=device)
            tensor: torch.Tensor = self._files[facts.file].get_tensor(name)  # type: ignore[no-untyped-call]
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(self.folder, f"{facts.file.name} is damaged: {error}") from error
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelFolderError(self.folder, f"{name} holds NaN or infinity: the model was damaged before")
        return tensor

    def close(self) -> None:
        self._files.clear()

    def files(self) -> Iterator[Path]:
        """Every file of the folder, in order of name; hidden ones and folders within it are not its own."""
        yield from sorted(path for path in self.folder.iterdir() if path.is_file() and not path.name.startswith("."))

    def sha256(self, progress: Callable[[int], None] | None = None) -> str:
        """Of the names and contents of all files."""
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
                    if progress is not None:
                        progress(len(piece))
        return digest.hexdigest()


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a module's name, or its last part, is one of `patterns` (as `fnmatch` reads them)."""
    return any(fnmatch(name, pattern) or fnmatch(name.rpartition(".")[2], pattern) for pattern in patterns)


def _config(folder: Path) -> Mapping[str, Any]:
    if not folder.is_dir():
        raise ModelFolderError(folder, "there is no such folder; give the folder that save_pretrained() wrote")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(folder, "it has no config.json; give the folder that save_pretrained() wrote") from None
    except (OSError, ValueError) as error:
        raise ModelFolderError(folder, f"its config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelFolderError(folder, "its config.json is no object")
    return config


def _tensors(folder: Path) -> Mapping[str, TensorFacts]:
    found: dict[str, TensorFacts] = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dictionary
                    piece = file.get_slice(name)
                    found[name] = TensorFacts(name, str(piece.get_dtype()), tuple(piece.get_shape()), path)
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(folder, f"{path.name} is damaged: {error}") from error
    return found


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ModelFolderError(folder, f"{index.name} cannot be read: {error}") from error
        missing = [name for name in names if not (folder / name).is_file() or Path(name).name != name]
        if missing:
            raise ModelFolderError(folder, f"{', '.join(missing)} is missing, which {index.name} names")
        return [folder / name for name in names]
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if list(folder.glob("*.bin")):
        raise ModelFolderError(folder, "its weights are pickled (.bin), which may run code; save them as safetensors")
    raise ModelFolderError(folder, "it has no weights (model.safetensors)")
