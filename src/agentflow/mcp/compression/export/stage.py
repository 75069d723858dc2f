"""Export: the model as its runtime wants it, in a folder that needs nothing else.

    hf, compressed-tensors   the model as it is, checked to be what was asked for
    onnx[:fp32|int8|int4]    onnxruntime-genai for decoders, onnxruntime for encoders
    gguf[:f32|f16|q8_0|…]    llama.cpp

Weights that `Quantize` wrote keep exactly their codes and scales wherever the format can hold them; where it cannot, or
where more is lost, the record's notes say so.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentflow.errors import RecipeError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint, copy_companions, writing
from agentflow.mcp.compression.export.config import plain_config
from agentflow.mcp.compression.export.decoder_onnx import write_decoder
from agentflow.mcp.compression.export.encoder_onnx import write_encoder
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.export.gguf_model import write_gguf
from agentflow.mcp.compression.recipe import Export
from agentflow.mcp.compression.work import Work

__all__ = ["export"]


@dataclass(frozen=True, slots=True)
class _Said:
    """What a format has to say about what it did."""

    facts: dict[str, object]
    notes: tuple[str, ...] = ()


def export(stage: Export, source: Path, target: Path, work: Work) -> StageRecord:
    """Write `source` for a runtime, as the new folder `target`.

    Raises ModelFolderError for a damaged source, RecipeError where the target cannot hold it, BackendError where
    somebody else's program fails or is not there, ShortageError where the disk is full. Nothing is left then, nor after
    a cancellation.
    """
    began = time.monotonic()
    checkpoint = Checkpoint.open(source)
    try:
        with writing(target) as folder:
            said = _FORMATS[stage.format](stage, checkpoint, folder, work)
        parameters = FullPrecision(checkpoint).parameters
    finally:
        checkpoint.close()
    return StageRecord(
        kind=stage.kind,
        settings={"target": stage.target},
        seconds=time.monotonic() - began,
        parameters=parameters,
        facts=said.facts,
        notes=said.notes,
    )


def _as_it_is(stage: Export, checkpoint: Checkpoint, folder: Path, work: Work) -> _Said:
    quantized = checkpoint.quantization
    if stage.format == "hf" and quantized is not None:
        raise RecipeError("hf is full precision, and the model is quantised: export it as compressed-tensors")
    if stage.format == "compressed-tensors":
        if quantized is None:
            raise RecipeError("compressed-tensors is for a quantised model: let Quantize stand before it")
        if quantized.get("quant_method") != "compressed-tensors":
            raise RecipeError(f"the model is quantised by {quantized.get('quant_method')}, not as compressed-tensors")
    names = {tensor.file.name for tensor in checkpoint.tensors.values()}
    for name in (*sorted(names), "config.json", "model.safetensors.index.json"):
        work.check()
        if (checkpoint.folder / name).exists():
            shutil.copyfile(checkpoint.folder / name, folder / name)
    copy_companions(checkpoint.folder, folder)
    for name in checkpoint.tensors:  # a damaged tensor is found now, not by whoever loads it
        work.check()
        checkpoint.load(name)
    return _Said({})


def _onnx(stage: Export, checkpoint: Checkpoint, folder: Path, work: Work) -> _Said:
    precision = stage.type or "fp32"
    quantized = checkpoint.quantization is not None
    if quantized and stage.type is not None:
        raise RecipeError("the model is quantised already; write Export('onnx') to keep its codes")
    if checkpoint.is_decoder:
        said = _Said(
            write_decoder(checkpoint, folder, precision, work), _decoder_notes(checkpoint, precision, quantized)
        )
    else:
        said = _encoder(checkpoint, folder, precision, work)
    copy_companions(checkpoint.folder, folder)
    (folder / "config.json").write_text(plain_config(checkpoint.config), encoding="utf-8")
    return said


def _encoder(checkpoint: Checkpoint, folder: Path, precision: str, work: Work) -> _Said:
    if precision == "int4":
        raise RecipeError("an encoder is exported as onnx, onnx:fp32 or onnx:int8")
    card = write_encoder(checkpoint, folder, int8=precision == "int8", check=work.check)
    notes = [f"pooling: {card.pooling}, normalised: {'yes' if card.normalize else 'no'}"] if card.pooling else []
    if precision == "int8":
        notes.append("8-bit matrices and word table; inputs are rounded to 8 bits, a scale a token, while it runs")
    return _Said({"task": card.task}, tuple(notes))


_ROUNDED = "codes and scales are carried exactly; the runtime rounds what they are multiplied with to 8 bits"


def _decoder_notes(checkpoint: Checkpoint, precision: str, quantized: bool) -> tuple[str, ...]:
    notes = []
    if quantized:
        notes += [_ROUNDED, "embeddings and whatever Quantize left in full precision are float32"]
        codes = FullPrecision(checkpoint).codes
        if any(codes[name].bits == 3 for name in codes):
            notes.append("3-bit codes are stored in 4 bits: onnxruntime has no narrower place for them")
    elif precision != "fp32":
        notes.append(f"quantised to {precision} by onnxruntime-genai's own rule, the head too; embeddings are float32")
    if checkpoint.config.get("tie_word_embeddings") and precision != "fp32":
        notes.append("the head shares the embeddings' weights in the source; here it has its own")
    return tuple(notes)


def _gguf(stage: Export, checkpoint: Checkpoint, folder: Path, work: Work) -> _Said:
    if not checkpoint.is_decoder:
        raise RecipeError(f"gguf is written for decoders; {checkpoint.architecture} is exported as onnx")
    facts, notes = write_gguf(checkpoint, folder, stage.type, work)
    copy_companions(checkpoint.folder, folder)
    (folder / "config.json").write_text(plain_config(checkpoint.config), encoding="utf-8")
    return _Said(facts, notes)


_FORMATS: dict[str, Callable[[Export, Checkpoint, Path, Work], _Said]] = {
    "hf": _as_it_is,
    "compressed-tensors": _as_it_is,
    "onnx": _onnx,
    "gguf": _gguf,
}
