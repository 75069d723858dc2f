"""The stage `Distill` of a recipe: a student's folder and its teacher's in, a taught student's folder out.

    source ─▶ student ┐                                 ┌▶ target/  weights in the source's types, config, tokenizer …
    work.teacher ─▶   ┴▶ training, snapshots in scratch ┴▶ target/distillation.json   the curve

Everything that can be refused is refused before the first step. Snapshots that belong to
another stage, other texts or other models are not continued. A decoder learns its teacher's logits, a sentence model
(BertModel, the mean over tokens) its vectors.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from msgspec import structs

from agentflow.errors import CalibrationError, ModelFolderError, RecipeError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.compute import Cost
from agentflow.mcp.compression.distillation.embedding import distill_sentences
from agentflow.mcp.compression.distillation.logits import LogitLesson
from agentflow.mcp.compression.distillation.outcome import facts_of, notes_of, write_student
from agentflow.mcp.compression.distillation.training import Schedule, train
from agentflow.mcp.compression.recipe import Distill
from agentflow.mcp.compression.work import Work

__all__ = ["decoder", "distill", "schedule_of"]


def distill(stage: Distill, source: Path, target: Path, work: Work) -> StageRecord:
    """Teach the student in `source` what `work.teacher` says of `work.training`; the taught one is written to `target`.

    Run again after it was killed, it goes on from its last snapshot in `work.scratch`. Raises RecipeError where the
    stage does not fit the models, ModelFolderError where teacher and student have different vocabularies,
    CalibrationError for too little text, CompressionError where training comes apart.
    """
    student, teacher = Checkpoint.open(source), Checkpoint.open(work.teacher)
    try:
        if student.architecture == "BertModel":
            return _sentences(stage, student, target, work)
        _match(student, teacher, stage)
        texts = [
            _windows(student, "distillation", work.training, stage.length, at_least=stage.batch),
            _windows(student, "the evaluation of a distillation", work.evaluation, stage.length, at_least=1),
        ]
        return _distilled(stage, student, teacher, target, work, *texts)
    finally:
        student.close()
        teacher.close()


def _distilled(
    stage: Distill,
    student: Checkpoint,
    teacher: Checkpoint,
    target: Path,
    work: Work,
    training: torch.Tensor,
    evaluation: torch.Tensor,
) -> StageRecord:
    model, taught_by = decoder(student, work.device), decoder(teacher, work.device)
    schedule = schedule_of(stage)
    course = train(
        model,
        LogitLesson(stage, taught_by, training, evaluation, device=work.device, check=work.check),
        schedule,
        scratch=work.scratch,
        key=_key(stage, student, teacher, training, evaluation),
        check=work.check,
        progress=work.progress,
        what="distilling",
    )
    settings = asdict(stage)
    write_student(model, student, target, course, settings)
    length = training.shape[1]
    tokens = course.steps * min(stage.batch, len(training)) * length
    cost = Cost.of(student, length).distilling(Cost.of(teacher, length), on_policy=stage.on_policy)
    notes = notes_of(course, schedule)
    if length < stage.length:
        notes.append(f"the texts come in windows of {length} tokens, so it was not trained on {stage.length}")
    return StageRecord(
        kind=stage.kind,
        settings=settings,
        seconds=course.seconds,
        parameters=student.parameters,
        facts={**facts_of(course, schedule), "tokens": tokens, "operations": cost * tokens},
        notes=tuple(notes),
    )


def _sentences(stage: Distill, student: Checkpoint, target: Path, work: Work) -> StageRecord:
    """A sentence model learns vectors: each window is a text, and what is said of logits has no meaning."""
    if stage.on_policy:
        raise RecipeError(
            f"Distill(on_policy={stage.on_policy}): {student.folder} is a BertModel, which writes no text"
        )
    training, evaluation = (
        student.tokenizer.batch_decode(windows, skip_special_tokens=True)
        for windows in (work.training, work.evaluation)
    )
    record = distill_sentences(
        student.folder,
        target,
        teacher=work.teacher,
        texts=training,
        held_out=evaluation,
        schedule=schedule_of(stage),
        scratch=work.scratch,
        batch=stage.batch,
        longest=stage.length,
        device=work.device,
        check=work.check,
        progress=work.progress,
    )
    note = "it learnt its teacher's vectors: divergence, temperature and mix, which are about logits, had no part in it"
    return structs.replace(record, settings=asdict(stage), notes=(*record.notes, note))


def schedule_of(stage: Distill) -> Schedule:
    return Schedule(
        steps=stage.steps,
        learning_rate=stage.learning_rate,
        warmup=stage.warmup,
        evaluate_every=stage.evaluate_every,
        patience=stage.patience,
        seed=stage.seed,
    )


def decoder(checkpoint: Checkpoint, device: str = "cpu") -> Any:
    """The model in float32. Raises ModelFolderError where a weight is missing, of a wrong shape, NaN or infinite."""
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # which are told below, by name
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelFolderError(checkpoint.folder, f"it cannot be loaded: {error}") from error
    model, found = loaded
    if found["missing_keys"]:
        raise ModelFolderError(checkpoint.folder, f"it lacks {', '.join(sorted(found['missing_keys'])[:3])}")
    if found["mismatched_keys"]:
        names = ", ".join(sorted(str(each[0]) for each in found["mismatched_keys"])[:3])
        raise ModelFolderError(checkpoint.folder, f"{names} has another shape than its config.json says")
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ModelFolderError(checkpoint.folder, f"{name} holds NaN or infinity: the model was damaged before")
    return model.to(device)


# ---- what is refused -----------------------------------------------------------------------------------------


def _match(student: Checkpoint, teacher: Checkpoint, stage: Distill) -> None:
    """Whether one can learn from the other."""
    for each in (student, teacher):
        if not each.is_decoder:
            raise RecipeError(f"{each.folder} is a {each.architecture}: logits are learnt from decoders by decoders")
        if each.quantization is not None:
            raise RecipeError(f"{each.folder} is quantised already; distil it in full precision")
        if stage.length > each.context_length:
            raise RecipeError(
                f"Distill(length={stage.length}): {each.folder} reads {each.context_length} tokens at most"
            )
    sizes = [int(each.config["vocab_size"]) for each in (student, teacher)]
    if sizes[0] != sizes[1] or student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise ModelFolderError(
            student.folder,
            f"its vocabulary of {sizes[0]} is not the teacher's of {sizes[1]}, piece by piece: their logits cannot be"
            " compared; take a student made of the teacher, or distil from recorded answers",
        )


def _windows(student: Checkpoint, purpose: str, windows: torch.Tensor, length: int, *, at_least: int) -> torch.Tensor:
    """Windows of `length` tokens, cut out of longer ones; shorter ones stay as they are."""
    wide = windows.shape[1] if windows.ndim == 2 else 0
    length = min(length, wide)
    if length < 2 or len(windows) * (wide // length) < at_least:
        raise CalibrationError(purpose, needed=at_least * max(length, 2), found=windows.numel())
    cut = windows[:, : wide // length * length].reshape(-1, length)
    if not 0 <= int(cut.min()) <= int(cut.max()) < int(student.config["vocab_size"]):
        raise RecipeError(f"the texts of {purpose} hold tokens that are not in the model's vocabulary")
    return cut


def _key(stage: Distill, student: Checkpoint, teacher: Checkpoint, *texts: torch.Tensor) -> str:
    """Of everything that a training's outcome depends on."""
    digest = hashlib.sha256(repr(stage).encode())
    for each in (student, teacher):
        digest.update(each.sha256().encode())
    for windows in texts:
        digest.update(repr(windows.shape).encode())
        digest.update(windows.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
