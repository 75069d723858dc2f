"""A decoder as one .gguf file for llama.cpp, written tensor by tensor.

    f32 f16 q8_0 q4_0               written here
    q6_k q5_k q4_k_m q3_k           written here as f32, then quantised by llama.cpp, where it is installed
    codes that Quantize made        kept, one by one, in Q4_0, Q4_1 or Q8_0 where these hold them

Vectors (norms, biases) are always f32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType, quants
from numpy.typing import NDArray

from agentflow.errors import RecipeError
from agentflow.mcp.compression.backends import Command, llama_cpp_python, run_worker
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.export.gguf_architecture import GgufArchitecture
from agentflow.mcp.compression.export.gguf_blocks import carried, holds, narrowest
from agentflow.mcp.compression.export.gguf_tokenizer import GgufTokenizer
from agentflow.mcp.compression.work import Work

__all__ = ["NAME", "write_gguf"]

NAME = "model.gguf"
_Kind = GGMLQuantizationType
_OWN = {"f32": _Kind.F32, "f16": _Kind.F16, "q8_0": _Kind.Q8_0, "q4_0": _Kind.Q4_0}
_OF_LLAMA_CPP = {
    "q6_k": LlamaFileType.MOSTLY_Q6_K,
    "q5_k": LlamaFileType.MOSTLY_Q5_K_M,
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
    "q3_k": LlamaFileType.MOSTLY_Q3_K_M,
}
_FILE_TYPES = {
    _Kind.F32: LlamaFileType.ALL_F32,
    _Kind.F16: LlamaFileType.MOSTLY_F16,
    _Kind.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    _Kind.Q4_0: LlamaFileType.MOSTLY_Q4_0,
    _Kind.Q4_1: LlamaFileType.MOSTLY_Q4_1,
}
# Heads lose much by four bits; llama.cpp gives them Q6_K, which only it can write.
_HEADS = ("output.weight", "token_embd.weight")


def write_gguf(
    checkpoint: Checkpoint, folder: Path, kind: str | None, work: Work
) -> tuple[dict[str, object], tuple[str, ...]]:
    """model.gguf in `folder`; facts and notes for the record.

    Without a `kind`, codes are kept as they are, and what is in full precision becomes f16. Raises RecipeError where
    llama.cpp has no such model or tokenizer, BackendError where it is needed and not there.
    """
    if kind in _OF_LLAMA_CPP:
        return _by_llama_cpp(checkpoint, folder, kind, work)
    file = _File(checkpoint, None if kind is None else _OWN[kind])
    file.write(folder / NAME, work)
    return file.facts(), file.notes()


def _by_llama_cpp(
    checkpoint: Checkpoint, folder: Path, kind: str, work: Work
) -> tuple[dict[str, object], tuple[str, ...]]:
    python = llama_cpp_python()  # asked first, before anything is written
    file = _File(checkpoint, _Kind.F32)
    with TemporaryDirectory(dir=work.scratch, prefix="gguf-") as place:
        plain = Path(place) / NAME
        file.write(plain, work)
        work.progress(f"quantising to {kind}", 0, 1)
        job = {"source": str(plain), "target": str(folder / NAME), "type": int(_OF_LLAMA_CPP[kind]), "threads": 1}
        worker = str(Path(__file__).with_name("llama_quantize.py"))
        answer = run_worker(Command("llama.cpp", (python, "-I", worker)), job, Path(place), work.check)
    notes = ("quantised twice: the codes that Quantize made were dequantised first",) if file.source.quantized else ()
    return {"llama_cpp_python": answer.get("version")}, notes + file.tokenizer.notes


@dataclass(slots=True)
class _Tensor:
    name: str  # in the checkpoint; empty for what is computed
    place: str  # in the file
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    keeps_codes: bool = False

    @property
    def bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // block * size


@dataclass(slots=True)
class _Done:
    carried: int = 0
    again: int = 0  # codes that were dequantised, and quantised anew
    opened: int = 0  # codes that were dequantised, and left so
    scale_error: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)


class _File:
    def __init__(self, checkpoint: Checkpoint, kind: GGMLQuantizationType | None) -> None:
        self.source = FullPrecision.of_weights_alone(checkpoint)
        self.tokenizer = GgufTokenizer.of(checkpoint.folder, checkpoint.config)
        self._architecture = GgufArchitecture.of(checkpoint.config)
        self._kind = kind
        self._config = checkpoint.config
        self._done = _Done()

    def write(self, path: Path, work: Work) -> None:
        tensors = list(self._tensors())
        writer = GGUFWriter(str(path), self._architecture.name)
        try:
            writer.add_name(str(self._config.get("_name_or_path") or self._config["architectures"][0]))
            writer.add_file_type(_FILE_TYPES[self._most(tensors)])
            writer.add_quantization_version(2)
            self._architecture.write(writer)
            self.tokenizer.write(writer)
            for tensor in tensors:
                writer.add_tensor_info(tensor.place, tensor.shape, np.dtype(np.float32), tensor.bytes, tensor.kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for number, tensor in enumerate(tensors):
                work.check()
                work.progress("writing gguf", number, len(tensors))
                writer.write_tensor_data(self._data(tensor))
        finally:
            writer.close()

    def facts(self) -> dict[str, object]:
        facts: dict[str, object] = {"types": dict(sorted(self._done.kinds.items()))}
        if self.source.quantized:
            facts |= {"carried": self._done.carried, "quantised_twice": self._done.again, "opened": self._done.opened}
            facts["largest_change_of_a_scale"] = self._done.scale_error
        return facts

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self._done.carried:
            exact = self._done.scale_error == 0
            how = "exactly" if exact else f"their scales rounded to 16 bits (by {self._done.scale_error:.1e} at most)"
            notes.append(f"the codes of {self._done.carried} matrices are carried over, {how}")
        if self._done.again:
            notes.append(f"quantised twice: {self._done.again} matrices whose codes this type cannot hold")
        if self._done.opened:
            notes.append(f"the codes of {self._done.opened} matrices are stored as numbers, which take more room")
        window = self._config.get("sliding_window")
        if window and self._config.get("use_sliding_window", True):
            notes.append(
                f"llama.cpp is not told of the sliding window of {window} tokens: it looks at all of a longer text"
            )
        return (*notes, *self.tokenizer.notes)

    # ---- what goes where

    def _tensors(self) -> Iterator[_Tensor]:
        factors = self._architecture.rope_factors()
        if factors is not None:
            yield _Tensor("", "rope_freqs.weight", factors.shape, _Kind.F32)
        tied = "lm_head.weight" not in self.source or bool(self._config.get("tie_word_embeddings"))
        for name in self.source:
            if name.endswith(("rotary_emb.inv_freq",)) or (tied and name == "lm_head.weight"):
                continue
            place, shape = self._architecture.tensor(name), self.source.shape(name)
            kind, keeps = self._kind_of(name, place, shape, tied=tied)
            yield _Tensor(name, place, shape, kind, keeps)

    def _kind_of(
        self, name: str, place: str, shape: tuple[int, ...], *, tied: bool
    ) -> tuple[GGMLQuantizationType, bool]:
        if len(shape) < 2:
            return _Kind.F32, False
        weight = self.source.codes.get(name)
        if weight is not None:
            if self._kind is None:
                kept = narrowest(weight)
                return (kept, True) if kept is not None else (_Kind.F16, False)
            if holds(self._kind, weight):
                return self._kind, True
        kind = _Kind.F16 if self._kind is None else self._kind  # F32 is 0, and so counts as nothing
        if kind is _Kind.Q4_0 and place == _HEADS[tied]:
            kind = _Kind.Q8_0
        return kind if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else _Kind.F16, False

    def _data(self, tensor: _Tensor) -> NDArray[np.generic]:
        self._done.kinds[tensor.kind.name] = self._done.kinds.get(tensor.kind.name, 0) + 1
        if not tensor.name:
            factors = self._architecture.rope_factors()
            assert factors is not None
            return factors
        order = self._architecture.order(tensor.name, tensor.shape[0])
        if tensor.keeps_codes:
            blocks = carried(self.source.codes[tensor.name], tensor.kind, order)
            self._done.carried += 1
            self._done.scale_error = max(self._done.scale_error, blocks.scale_error)
            return blocks.data
        if tensor.name in self.source.codes:
            if tensor.kind in (_Kind.F32, _Kind.F16):
                self._done.opened += 1
            else:
                self._done.again += 1
        numbers = self.source.load(tensor.name).numpy()
        return _quantised(numbers if order is None else numbers[order], tensor)

    def _most(self, tensors: list[_Tensor]) -> GGMLQuantizationType:
        """The type that most matrices have, which a file is named after."""
        count: Mapping[GGMLQuantizationType, int] = {
            kind: sum(tensor.kind is kind and len(tensor.shape) > 1 for tensor in tensors) for kind in _FILE_TYPES
        }
        return max(count, key=lambda kind: count[kind])


def _quantised(numbers: NDArray[np.float32], tensor: _Tensor) -> NDArray[np.generic]:
    if tensor.kind is _Kind.F16 and float(np.abs(numbers).max(initial=0)) > float(np.finfo(np.float16).max):
        raise RecipeError(f"gguf: {tensor.name} holds numbers that 16 bits cannot; export it as gguf:f32 or gguf:q8_0")
    data: NDArray[np.generic] = quants.quantize(numbers, tensor.kind)
    return data
