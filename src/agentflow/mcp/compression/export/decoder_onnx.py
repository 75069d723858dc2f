"""A decoder as an ONNX folder of onnxruntime-genai, made by that project's own model builder.

    full precision           ─▶ builder -p fp32 | int8 | int4                       (its own rules of quantising)
    codes that Quantize made ─▶ dequantised, layer by layer ─▶ builder -p fp32 ─▶ each MatMul becomes a MatMulNBits
                                                               with exactly those codes and scales

The builder joins the matrices of query, key and value into one; so are their codes, along the outputs. Where the three
have different groups, or one of them is in full precision, they stay three.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from agentflow.errors import BackendError
from agentflow.mcp.compression.backends import Command, run_worker
from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter, copy_companions
from agentflow.mcp.compression.export.config import plain_config
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.export.matmul_nbits import Blocked, blocked, node_of, width_of
from agentflow.mcp.compression.export.onnx_file import DATA, MODEL, Weights, array_of, save
from agentflow.mcp.compression.work import Work

__all__ = ["Build", "build_apart", "write_decoder"]

BUILDER = "onnxruntime-genai's model builder"
_LAYER = re.compile(r"model\.layers\.(\d+)\.(attn|mlp)\.(\w+)_proj\.MatMul\.weight")
Build = Callable[[dict[str, str], Path, Callable[[], None]], None]  # job, scratch, check


def build_apart(job: dict[str, str], scratch: Path, check: Callable[[], None]) -> None:
    """Run the builder in a process of its own. Raises BackendError where it fails."""
    module = "agentflow.mcp.compression.export.build_worker"
    run_worker(Command(BUILDER, (sys.executable, "-m", module)), job, scratch, check)


def write_decoder(
    checkpoint: Checkpoint, folder: Path, precision: str, work: Work, build: Build = build_apart
) -> dict[str, object]:
    """model.onnx, its data and genai_config.json in `folder`; what was done, as facts.

    `precision` is fp32, int8 or int4 for a model in full precision, and of no meaning for codes, which stay as they
    are. Raises RecipeError for groups that MatMulNBits cannot hold, BackendError where the builder fails.
    """
    source = FullPrecision.of_weights_alone(checkpoint)
    with TemporaryDirectory(dir=work.scratch, prefix="onnx-") as place:
        job = {"target": str(folder), "cache": place, "precision": precision, "source": str(checkpoint.folder)}
        if checkpoint.config.get("tie_word_embeddings") and precision == "fp32":
            job["shared_embeddings"] = "true"
        if not source.quantized:
            build(job, Path(place), work.check)
            _must_be_there(folder)
            return {}
        joined = _can_be_joined(source, checkpoint.layers)
        dequantised, built = Path(place) / "dequantised", Path(place) / "built"
        _dequantise(checkpoint, source, dequantised, work)
        job |= {"source": str(dequantised), "target": str(built), "precision": "fp32", "fuse_qkv": str(joined).lower()}
        build(job, Path(place), work.check)
        shutil.rmtree(dequantised)
        _must_be_there(built)
        return {"carried": _carry(built, folder, source, work), "query_key_value_joined": joined}


def _must_be_there(folder: Path) -> None:
    if not (folder / MODEL).exists():
        raise BackendError(BUILDER, f"it left no {MODEL}")


def _dequantise(checkpoint: Checkpoint, source: FullPrecision, folder: Path, work: Work) -> None:
    """The model as it computes, as a folder in full precision: one tensor in memory at a time."""
    folder.mkdir()
    names = list(source)
    with ShardWriter(folder) as shards:
        for number, name in enumerate(names):
            work.check()
            work.progress("dequantising", number, len(names))
            shards.add(name, source.load(name))
    copy_companions(checkpoint.folder, folder)
    (folder / "config.json").write_text(plain_config(checkpoint.config, dtype="float32"), encoding="utf-8")


def _can_be_joined(source: FullPrecision, layers: int) -> bool:
    """Whether query, key and value of every layer can be one matrix."""
    parts = [_names(index, "attn", "qkv") for index in range(layers)]
    return all(len({_form(source, name) for name in names}) == 1 for names in parts)


def _form(source: FullPrecision, name: str) -> tuple[int, int | None] | None:
    codes = source.codes.get(name)
    return None if codes is None else (width_of(codes.bits), codes.group)


def _names(layer: int | str, part: str, which: str) -> tuple[str, ...]:
    """What the builder calls attn.qkv_proj, as the checkpoint does."""
    room = f"model.layers.{layer}.{'self_attn' if part == 'attn' else 'mlp'}"
    return tuple(f"{room}.{each}_proj.weight" for each in (which if which == "qkv" else [which]))


def _sources(initializer: str) -> tuple[str, ...]:
    if initializer == "lm_head.MatMul.weight":
        return ("lm_head.weight",)
    match = _LAYER.fullmatch(initializer)
    return () if match is None else _names(*match.groups())


def _carry(built: Path, folder: Path, source: FullPrecision, work: Work) -> int:
    """The built model in `folder`, with the codes in place of the matrices that were made of them; how many."""
    model = onnx.load(str(built / MODEL), load_external_data=False)
    plain = {tensor.name: tensor for tensor in model.graph.initializer}
    carried: set[str] = set()
    nodes = []
    del model.graph.initializer[:]
    with Weights(folder) as weights:
        for node in model.graph.node:
            work.check()
            names = _sources(node.input[1]) if node.op_type == "MatMul" else ()
            if names and all(name in source.codes for name in names):
                carried.update(names)
                plain.pop(node.input[1])
                matrix = Blocked.joined([blocked(source.codes[name]) for name in names])
                node, tensors = node_of(node, matrix, weights)
                model.graph.initializer.extend(tensors)
                work.progress("carrying codes", len(carried), len(source.codes))
            nodes.append(node)
        for tensor in plain.values():
            work.check()
            model.graph.initializer.append(weights.add(tensor.name, array_of(tensor, built)))
    _all_carried(source, carried)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    save(model, folder)
    for path in _beside(built):
        shutil.copyfile(path, folder / path.name)
    return len(carried)


def _all_carried(source: FullPrecision, carried: set[str]) -> None:
    if lost := sorted(set(source.codes) - carried):
        raise BackendError(BUILDER, f"its graph has no place for the codes of {', '.join(lost[:3])}")


def _beside(built: Path) -> Iterator[Path]:
    yield from (path for path in sorted(built.iterdir()) if path.is_file() and path.name not in (MODEL, DATA))
