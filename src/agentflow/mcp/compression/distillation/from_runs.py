"""From recorded answers to an artifact of one's own: taught, exported, measured against the teacher, held to a gate.

    prepared ─▶ distil_labels ─▶ export ─▶ held-out questions, beside the teacher ─▶ gate ─▶ artifact

    artifact = sorter_of(prepared, Path("MiniLM"), Path("artifacts/sorter"), Teaching(steps=300),
                         gate=Gate(agreement=0.8))

The manifest's `agreement` is with the teacher's answers to questions that are newer than all that was learnt; its
source's notes say what was learnt from, what was left out, and on what ground the answers may be used. Killed and
called again, it goes on at the training's last snapshot.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
import torch

from agentflow.errors import CompressionError
from agentflow.mcp.compression.artifact.artifact import Artifact
from agentflow.mcp.compression.artifact.assembling import assemble, source_of
from agentflow.mcp.compression.artifact.gate import Gate
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.classification import distil_labels, sorted_answers
from agentflow.mcp.compression.distillation.labels import Labels
from agentflow.mcp.compression.distillation.recorded.preparing import Prepared
from agentflow.mcp.compression.distillation.sequence import distil_answers
from agentflow.mcp.compression.distillation.teaching import Teaching
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.measurement.machine import machine
from agentflow.mcp.compression.measurement.measuring import measure_classifier
from agentflow.mcp.compression.measurement.speed import SpeedPlan
from agentflow.mcp.compression.recipe import Export
from agentflow.mcp.compression.work import Progress, Work, silent

__all__ = ["sorter_of", "writer_of"]

_USUAL = SpeedPlan()


def sorter_of(
    prepared: Prepared,
    student: Path,
    output: Path,
    teaching: Teaching,
    *,
    target: str = "onnx:int8",
    gate: Gate | None = None,
    name: str | None = None,
    plan: SpeedPlan = _USUAL,
    device: str = "cpu",
    check: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> Artifact:
    """A classifier in the new folder `output`, made of the model in `student` and written for the runtime `target`.

    `plan` is how its speed is measured.

    Raises ConfigurationError where nobody has said that the teacher's answers may be used, CompressionError where there
    are none, none are held out, or they are no labels, QualityGateError where the artifact is below its gate (it then
    stands in `output` all the same, with the verdict in its manifest), and what training and export raise.
    """
    prepared.acknowledged()
    if output.exists():
        raise CompressionError(f"{output} exists already; nothing is ever written over: give another place")
    if not prepared.held_out:
        raise CompressionError("nothing is held out to measure the student with: hold out a share of the answers")
    work = output.absolute().parent / f".{output.name}.work"
    taught, exported = work / "student", work / "exported"
    for folder in (taught, exported):  # of an earlier try, made again in a moment: the snapshots are what took time
        shutil.rmtree(folder, ignore_errors=True)
    lesson = distil_labels(
        student, prepared.train, taught, teaching, scratch=work / "snapshots", held_out=prepared.held_out,
        device=device, check=check, progress=progress,
    )  # fmt: skip
    stage = Export(target)
    written = export(stage, taught, exported, _work(work, taught, teaching.seed, check, progress))
    artifact = _assembled(
        prepared, student, output, teaching, stage, exported, taught, [lesson, written], gate, name, plan, check
    )
    shutil.rmtree(work, ignore_errors=True)
    if gate is not None:
        gate.check(artifact.manifest)
    return artifact


def _assembled(
    prepared: Prepared,
    student: Path,
    output: Path,
    teaching: Teaching,
    stage: Export,
    exported: Path,
    taught: Path,
    records: list[StageRecord],
    gate: Gate | None,
    name: str | None,
    plan: SpeedPlan,
    check: Callable[[], None],
) -> Artifact:
    before, source = Checkpoint.open(taught), Checkpoint.open(student)
    labels = Labels.learnt([answer.answer for answer in prepared.train])
    judged = sorted_answers(prepared.held_out, labels, before, teaching)
    said = np.array(judged.labels, dtype=np.int64)
    texts = [answer.conversation for answer in (*prepared.train, *prepared.held_out)]
    return assemble(
        output,
        model=exported,
        name=name or output.name,
        task="classify",
        source=source_of(source, name=student.name, texts=texts, notes=prepared.report.notes),
        source_folder=student,
        stages=records,
        recipe_sha256=_sha256(teaching, stage),
        before=measure_classifier(taught, judged.rows, reference=said, plan=plan, check=check),
        after=[measure_classifier(exported, judged.rows, reference=said, plan=plan, check=check)],
        machine=machine(),
        labels=labels.names,
        gate=gate,
    )


def _work(scratch: Path, source: Path, seed: int, check: Callable[[], None], progress: Progress) -> Work:
    """An export of what has its weights already reads no texts."""
    check()
    none = torch.zeros((0, 8), dtype=torch.int64)
    return Work(
        calibration=none, training=none, evaluation=none, scratch=scratch / "export", teacher=source, seed=seed,
        progress=progress,
    )  # fmt: skip


def _sha256(teaching: Teaching, stage: Export) -> str:
    recipe = [{"distill-labels": asdict(teaching)}, {"export": stage.target}]
    return hashlib.sha256(json.dumps(msgspec.to_builtins(recipe), sort_keys=True).encode()).hexdigest()


def writer_of(
    prepared: Prepared,
    student: Path,
    output: Path,
    teaching: Teaching,
    *,
    device: str = "cpu",
    check: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> StageRecord:
    """A decoder that writes what its teacher wrote, as a model's folder `output` for `compress()`; recorded.json in it
    is the account of what it learnt from. Raises as `sorter_of` does."""
    prepared.acknowledged()
    if output.exists():
        raise CompressionError(f"{output} exists already; nothing is ever written over: give another place")
    work = output.absolute().parent / f".{output.name}.work"
    record = distil_answers(
        student, prepared.train, output, teaching, scratch=work, held_out=prepared.held_out, device=device, check=check,
        progress=progress,
    )  # fmt: skip
    account = {"report": prepared.report, "stage": record}
    (output / "recorded.json").write_bytes(msgspec.json.format(msgspec.json.encode(account), indent=2) + b"\n")
    shutil.rmtree(work, ignore_errors=True)
    return record
