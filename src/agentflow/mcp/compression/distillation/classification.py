"""A classifier that has learnt which answer its teacher gives: an encoder, or a decoder, with a head of labels on top.

    record = distil_labels(Path("MiniLM"), prepared.train, Path("student"), Teaching(steps=100, learning_rate=5e-4),
                           held_out=prepared.held_out, scratch=Path("scratch"))
    record.facts["labels"], record.facts["agreement"]      what it says, and how often it is what the teacher said

It reads what the user said last, as `EdgeDeployment` has it read: leave instructions to the system's turn. The folder
that comes out is one of Hugging Face; `compress()` makes ONNX of it where the student was a BERT.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from agentflow.errors import CompressionError, ModelFolderError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint, copy_companions, writing
from agentflow.mcp.compression.distillation import curves
from agentflow.mcp.compression.distillation.labels import Labels
from agentflow.mcp.compression.distillation.order import Order
from agentflow.mcp.compression.distillation.outcome import facts_of, notes_of
from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer
from agentflow.mcp.compression.distillation.teaching import Teaching, key_of, padded, parted
from agentflow.mcp.compression.distillation.training import Course, train
from agentflow.mcp.compression.work import Progress, silent

__all__ = ["LabelLesson", "Sorted", "distil_labels", "sorted_answers"]

_TRIED_AT_ONCE: Final = 64
_HEAD: Final = ("classifier.", "score.", "bert.pooler.")
_OF_VECTORS: Final = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")


class Sorted(NamedTuple):
    """Texts as tokens, and the number of each one's label."""

    rows: list[list[int]]
    labels: list[int]


class LabelLesson:
    """Cross-entropy of the teacher's label; "agreement" is the share of texts on which both say the same."""

    def __init__(self, learnt: Sorted, tried: Sorted, *, filler: int, batch: int, seed: int, device: str) -> None:
        self._learnt = learnt
        self._tried = tried
        self._filler = filler
        self._order = Order(len(learnt.rows), batch=batch, seed=seed)
        self._device = device

    def loss(self, model: nn.Module, step: int) -> torch.Tensor:
        numbers = self._order.at(step).tolist()
        logits = self._logits(model, [self._learnt.rows[number] for number in numbers])
        wanted = torch.tensor([self._learnt.labels[number] for number in numbers], device=self._device)
        return nn.functional.cross_entropy(logits, wanted)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.judged(model, self._tried)

    def judged(self, model: nn.Module, texts: Sorted) -> dict[str, float]:
        """Of other texts. Their order makes no difference."""
        logits = torch.cat(
            [
                self._logits(model, texts.rows[at : at + _TRIED_AT_ONCE])
                for at in range(0, len(texts.rows), _TRIED_AT_ONCE)
            ]
        )
        wanted = torch.tensor(texts.labels, device=self._device)
        same = (logits.argmax(dim=-1) == wanted).double().mean()
        return {"loss": float(nn.functional.cross_entropy(logits, wanted)), "agreement": float(same)}

    def _logits(self, model: nn.Module, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        ids, mask = padded(rows, self._filler)
        logits: torch.Tensor = model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device)).logits
        return logits.float()


def distil_labels(
    student: Path,
    answers: Sequence[RecordedAnswer],
    target: Path,
    teaching: Teaching,
    *,
    scratch: Path,
    held_out: Sequence[RecordedAnswer] = (),
    device: str = "cpu",
    check: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> StageRecord:
    """Teach the model in `student` to answer with its teacher's labels, and write it to the new folder `target`.

    Run again after it was killed, it goes on from its last snapshot in `scratch`. Raises CompressionError where the
    answers are no labels or training comes apart, ModelFolderError for a student that cannot be loaded, ShortageError
    where the disk is full.
    """
    checkpoint = Checkpoint.open(student)
    labels = Labels.learnt([answer.answer for answer in answers])
    learnt, tried = (
        sorted_answers(part, labels, checkpoint, teaching) for part in parted(answers, teaching.validation)
    )
    if not (learnt.rows and tried.rows):
        raise CompressionError("no answer is left to learn from or to try on: all are rare ones")
    torch.manual_seed(teaching.seed)  # of the head, which has learnt nothing yet
    model = _classifier(checkpoint, labels).to(device)
    teaching.freeze(model, checkpoint.layers)
    lesson = LabelLesson(
        learnt, tried, filler=_filler(checkpoint), batch=teaching.batch, seed=teaching.seed, device=device
    )
    course = train(
        model, lesson, teaching.schedule, scratch=scratch, check=check, progress=progress, what="teaching labels",
        key=key_of("labels", teaching, checkpoint, labels.names, learnt.rows, learnt.labels, tried.rows, tried.labels),
    )  # fmt: skip
    _write(model, checkpoint, target, course, teaching)
    judged = sorted_answers(held_out, labels, checkpoint, teaching)
    unknown = len(held_out) - len(judged.rows)
    facts: dict[str, object] = {
        **facts_of(course, teaching.schedule),
        "labels": list(labels.names),
        "learnt": len(learnt.rows),
        "tried": len(tried.rows),
        "rare": labels.rare,
        "held_out": len(held_out),
        "agreement": _agreement(lesson, model, judged, unknown),
    }
    notes = [*notes_of(course, teaching.schedule), *_notes(checkpoint, labels, unknown)]
    return StageRecord(
        kind="distill-labels",
        settings=asdict(teaching),
        seconds=course.seconds,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        facts=facts,
        notes=tuple(notes),
    )


def sorted_answers(
    answers: Sequence[RecordedAnswer], labels: Labels, student: Checkpoint, teaching: Teaching
) -> Sorted:
    """Those that have a label. What is too long is cut at its end, as it is when the student is asked."""
    numbers = labels.numbered(answer.answer for answer in answers)
    length = min(teaching.length, student.context_length)
    known = [(answer, number) for answer, number in zip(answers, numbers, strict=True) if number is not None]
    rows = [
        list(student.tokenizer(answer.question, truncation=True, max_length=length)["input_ids"]) for answer, _ in known
    ]
    return Sorted(rows, [number for _, number in known])


def _agreement(lesson: LabelLesson, model: nn.Module, judged: Sorted, unknown: int) -> float | None:
    """With what the teacher said where the student never saw it; an answer that is no label counts as missed."""
    if not judged.rows:
        return None
    with torch.no_grad():
        return lesson.judged(model, judged)["agreement"] * len(judged.rows) / (len(judged.rows) + unknown)


def _filler(student: Checkpoint) -> int:
    tokenizer = student.tokenizer
    known = [tokenizer.pad_token_id, tokenizer.eos_token_id, 0]
    return next(int(each) for each in known if isinstance(each, int))


def _classifier(student: Checkpoint, labels: Labels) -> Any:
    """The model in float32, with a new head. Raises ModelFolderError where anything but the head is missing."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    said = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # that the head is new is no news
    try:
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            student.folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # of a head for other labels
            num_labels=len(labels.names),
            id2label=dict(enumerate(labels.names)),
            label2id={name: number for number, name in enumerate(labels.names)},
            problem_type="single_label_classification",
            pad_token_id=_filler(student),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelFolderError(student.folder, f"it cannot be loaded: {error}") from error
    finally:
        logging.set_verbosity(said)
    missing = [
        name for name in loaded["missing_keys"] if not name.startswith(("classifier.", "score.", "bert.pooler."))
    ]
    if missing:
        raise ModelFolderError(student.folder, f"it lacks {', '.join(sorted(missing)[:3])}")
    return model


def _write(model: Any, student: Checkpoint, target: Path, course: Course, teaching: Teaching) -> None:
    with writing(target) as folder:
        copy_companions(student.folder, folder)
        for name in _OF_VECTORS:  # it is no model of sentence vectors any more
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "1_Pooling", ignore_errors=True)
        model.save_pretrained(folder)
        curves.write(folder, course, asdict(teaching))


def _notes(student: Checkpoint, labels: Labels, unknown: int) -> list[str]:
    notes = []
    if labels.rare:
        notes.append(f"{labels.rare:,} answers that came but once were not learnt from")
    if unknown:
        notes.append(f"{unknown:,} of those held out were answered with none of the labels")
    if student.is_decoder:
        notes.append("a decoder that sorts runs in transformers alone: take an encoder for ONNX")
    return notes
