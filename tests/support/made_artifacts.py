"""Artifacts without a model in them, for what only reads manifests.

manifest(after=(measures(kl=0.02),))      every field has a value; what is given replaces it
made(tmp_path / "a", name="w4")           the folder of one, assembled as compress() does
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agentflow.mcp.compression.artifact import Artifact, Gate, assemble
from agentflow.mcp.compression.artifact.manifest import (
    FileFacts,
    Manifest,
    Measures,
    Source,
    Speed,
    StageRecord,
    TensorRecord,
)

SOURCE = Source(
    name="teacher",
    sha256="5" * 64,
    architecture="LlamaForCausalLM",
    parameters=3_360_000,
    bytes=13_440_000,
    licence="MIT",
    data_sha256="d" * 64,
)
STAGES = (
    StageRecord(kind="prune", settings={"depth": 0.5}, seconds=12.5, parameters=2_200_000, facts={"layers": [0, 3]}),
    StageRecord(
        kind="quantize",
        settings={"scheme": "w4g64", "method": "gptq"},
        seconds=31.0,
        parameters=2_200_000,
        notes=("lm_head is not quantised",),
    ),
)
TENSORS = (
    TensorRecord(name="lm_head.weight", shape=(2048, 256), type="F32", bits=32, stored_bits=32, sparsity=0.0),
    TensorRecord(name="layers.0.q", shape=(256, 256), type="int4 g64", bits=4, stored_bits=4.25, sparsity=0.11),
)
MACHINE = {"processor": "A Processor", "flags": ["avx2", "avx512_vnni"], "cores": 2, "memory_bytes": 8_000_000_000}


def speed(**changes: object) -> Speed:
    made = Speed(
        tokens_per_second=300.0,
        time_to_first_token=0.004,
        cold_start=0.22,
        resident_bytes=90_000_000,
        prompt_tokens=16,
        output_tokens=32,
    )
    return msgspec.structs.replace(made, **changes)


def measures(**changes: object) -> Measures:
    made = Measures(
        runtime="onnxruntime",
        runtime_version="1.32.0",
        tokens=8128,
        perplexity=40.4,
        kl=0.021,
        top1=0.931,
        greedy=0.702,
        greedy_tokens=192,
        speed=speed(),
    )
    return msgspec.structs.replace(made, **changes)


BEFORE = measures(
    runtime="transformers",
    runtime_version="5.24.0",
    perplexity=40.0,
    kl=0.0,
    top1=1.0,
    greedy=1.0,
    speed=speed(tokens_per_second=90.0, cold_start=4.1, resident_bytes=700_000_000),
)


def manifest(**changes: object) -> Manifest:
    made = Manifest(
        name="w4",
        task="generate",
        format="onnx",
        source=SOURCE,
        recipe=STAGES,
        recipe_sha256="e" * 64,
        files=(FileFacts(path="model/model.onnx", bytes=5, sha256="f" * 64),),
        tensors=TENSORS,
        parameters=2_200_000,
        bytes=2_700_000,
        before=BEFORE,
        after=(measures(),),
        loaded_by={"onnxruntime": "1.32.0", "onnxruntime-genai": "0.18.0"},
        versions={"torch": "2.13.0"},
        machine=MACHINE,
        created="2026-11-27T12:00:00+00:00",
    )
    return msgspec.structs.replace(made, **changes)


def made(
    target: Path,
    *,
    name: str = "w4",
    after: tuple[Measures, ...] = (measures(),),
    gate: Gate | None = None,
    weights: bytes = b"weights" * 300,
    source: Source = SOURCE,
    machine: dict[str, object] | None = None,
) -> Artifact:
    """Its model is an ONNX file that holds no ONNX."""
    work = target.parent / f"work-{target.name}"
    model, origin = work / "model", work / "source"
    model.mkdir(parents=True)
    origin.mkdir()
    (model / "model.onnx").write_bytes(weights)
    (model / "genai_config.json").write_text("{}", encoding="utf-8")
    (origin / "LICENSE").write_text("\nMIT License\n\nPermission …\n", encoding="utf-8")
    return assemble(
        target,
        model=model,
        name=name,
        task="generate",
        source=source,
        source_folder=origin,
        stages=STAGES,
        recipe_sha256="e" * 64,
        tensors=TENSORS,
        before=BEFORE,
        after=after,
        machine=MACHINE if machine is None else machine,
        gate=gate,
    )
