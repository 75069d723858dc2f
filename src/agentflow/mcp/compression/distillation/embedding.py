"""A smaller sentence model that gives texts the vectors its teacher gives them; no labels are needed.

    texts ─▶ teacher ─▶ vectors, once ┐
         └─▶ student ─▶ vectors       ┴▶ 1 − cosine  +  what it gets wrong of the similarities between the batch's texts

copied(teacher, student, which_layers(6, 3))
distill_sentences(student, target, teacher=teacher, texts=texts, held_out=others, schedule=Schedule(…), scratch=folder)

The first term is that of Reimers and Gurevych (arXiv:2004.09813) for vectors whose length is of no meaning; the second
keeps distances between texts (Park et al., arXiv:1904.05068). There is no dropout, and embeddings that are the
teacher's stay so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from agentflow.errors import CalibrationError, ModelFolderError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.distillation.order import Order
from agentflow.mcp.compression.distillation.outcome import facts_of, notes_of, write_student
from agentflow.mcp.compression.distillation.retention import retention
from agentflow.mcp.compression.distillation.sentences import SentenceModel, pooled
from agentflow.mcp.compression.distillation.training import Schedule, train
from agentflow.mcp.compression.work import Progress, silent

__all__ = ["SentenceLesson", "distill_sentences"]

_FEWEST: Final = 3  # held-out texts; fewer have too few pairs
_SIMILARITIES: Final = 1.0  # weight of the second term


class SentenceLesson:
    """Texts and the vectors that the teacher gives them, shape (texts, size)."""

    def __init__(
        self,
        student: SentenceModel,
        texts: Sequence[str],
        vectors: torch.Tensor,
        held_out: Sequence[str],
        held_out_vectors: torch.Tensor,
        *,
        batch: int,
        seed: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._student = student
        self._texts = texts
        self._vectors = functional.normalize(vectors, dim=-1)
        self._held_out = held_out
        self._held_out_vectors = held_out_vectors
        self._order = Order(len(texts), batch=batch, seed=seed)
        self._check = check

    def loss(self, model: nn.Module, step: int) -> torch.Tensor:
        model.eval()  # no dropout
        chosen = self._order.at(step)
        theirs = self._vectors[chosen.to(self._vectors.device)]
        mine = functional.normalize(
            pooled(model, *self._student.tokens([self._texts[int(each)] for each in chosen])), dim=-1
        )
        apart = 1 - (mine * theirs).sum(-1).mean()
        return apart + _SIMILARITIES * ((mine @ mine.T - theirs @ theirs.T) ** 2).mean()

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """`loss` is 1 − cosine, the mean over the held-out texts."""
        found = retention(self._held_out_vectors, self._student.vectors(self._held_out, self._check))
        return {"loss": 1 - found.cosine, "cosine": found.cosine, "spearman": found.spearman}


def distill_sentences(
    source: Path,
    target: Path,
    *,
    teacher: Path,
    texts: Sequence[str],
    held_out: Sequence[str],
    schedule: Schedule,
    scratch: Path,
    batch: int = 32,
    longest: int | None = None,
    device: str = "cpu",
    check: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> StageRecord:
    """Teach the sentence model in `source` the vectors of `teacher`; the taught one is written to the folder `target`.

    Of each text the first `longest` tokens are read (None: as many as the model reads). It can be killed and run again.
    Raises CalibrationError for fewer texts than a batch, or fewer than 3 that are held out; ModelFolderError where the
    two give vectors of different sizes, or cut texts into different tokens.
    """
    if len(texts) < batch or len(held_out) < _FEWEST:
        few, needed = (texts, batch) if len(texts) < batch else (held_out, _FEWEST)
        raise CalibrationError("distilling a sentence model (a text for a token)", needed=needed, found=len(few))
    student = SentenceModel.open(source, device, longest=longest)
    taught_by = SentenceModel.open(teacher, device, longest=longest)
    _match(student, taught_by)
    kept = _keep_embeddings(student, taught_by)
    lesson = SentenceLesson(
        student,
        texts,
        taught_by.vectors(texts, check),
        held_out,
        taught_by.vectors(held_out, check),
        batch=batch,
        seed=schedule.seed,
        check=check,
    )
    course = train(
        student.module,
        lesson,
        schedule,
        scratch=scratch,
        key=_key(student, taught_by, [*texts, "", *held_out], repr((schedule, batch, student.length))),
        check=check,
        progress=progress,
        what="distilling a sentence model",
    )
    settings: dict[str, object] = {**asdict(schedule), "batch": batch, "longest": longest}
    write_student(student.module, student.checkpoint, target, course, settings)
    return StageRecord(
        kind="distill",
        settings=settings,
        seconds=course.seconds,
        parameters=student.checkpoint.parameters,
        facts={**facts_of(course, schedule), "texts": len(texts), "held_out": len(held_out), "embeddings_kept": kept},
        notes=tuple(notes_of(course, schedule)),
    )


def _match(student: SentenceModel, teacher: SentenceModel) -> None:
    sizes = [int(each.checkpoint.config["hidden_size"]) for each in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise ModelFolderError(
            student.checkpoint.folder,
            f"its vectors have {sizes[0]} numbers and the teacher's {sizes[1]}: take a student made of it",
        )
    if student.checkpoint.tokenizer.get_vocab() != teacher.checkpoint.tokenizer.get_vocab():
        raise ModelFolderError(student.checkpoint.folder, "its vocabulary is not the teacher's")


def _keep_embeddings(student: SentenceModel, teacher: SentenceModel) -> bool:
    """Embeddings that were copied stay the teacher's: half of a small model's weights, whose rare words no few texts
    teach, are neither spoilt nor stored in each snapshot's optimizer."""
    mine, theirs = (each.module.get_submodule("embeddings") for each in (student, teacher))
    pairs = zip(mine.parameters(), theirs.parameters(), strict=True)
    if not all(one.shape == other.shape and torch.equal(one, other) for one, other in pairs):
        return False
    mine.requires_grad_(False)
    return True


def _key(student: SentenceModel, teacher: SentenceModel, texts: Sequence[str], settings: str) -> str:
    digest = hashlib.sha256(settings.encode())
    for each in (student, teacher):
        digest.update(each.checkpoint.sha256().encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
