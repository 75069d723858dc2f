"""A student that learns to write what its teacher wrote: sequence-level distillation, with no logits at hand.

    record = distil_answers(Path("student"), prepared.train, Path("taught"), Teaching(steps=500), scratch=…)

A recorded answer stands for the teacher's whole distribution over answers, so the loss is the student's cross-entropy
of it, token by token: of the answer's tokens and the end alone, not of the prompt's. A model with a chat template is
taught in it, one without in the form in which `EdgeDeployment` asks it.

Kim and Rush, "Sequence-Level Knowledge Distillation", arXiv:1606.07947.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from agentflow.errors import CompressionError, RecipeError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.order import Order
from agentflow.mcp.compression.distillation.outcome import facts_of, notes_of, write_student
from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer
from agentflow.mcp.compression.distillation.stage import decoder
from agentflow.mcp.compression.distillation.teaching import Teaching, key_of, padded, parted
from agentflow.mcp.compression.distillation.training import train
from agentflow.mcp.compression.work import Progress, silent

__all__ = ["AnswerLesson", "Written", "distil_answers", "written"]

_TRIED_AT_ONCE: Final = 16
_ANNOUNCED: Final = {"user": "User: ", "assistant": "Assistant: "}


class Written(NamedTuple):
    """A conversation's tokens; those from `answer` on are what the teacher said, its end included."""

    tokens: list[int]
    answer: int


class AnswerLesson:
    """The mean loss of an answer's token. "top1" is the share of them that the student finds likeliest."""

    def __init__(
        self, learnt: Sequence[Written], tried: Sequence[Written], *, batch: int, seed: int, device: str = "cpu"
    ) -> None:
        self._learnt = learnt
        self._tried = tried
        self._order = Order(len(learnt), batch=batch, seed=seed)
        self._device = device

    def loss(self, model: nn.Module, step: int) -> torch.Tensor:
        logits, wanted = self._said(model, [self._learnt[number] for number in self._order.at(step).tolist()])
        return nn.functional.cross_entropy(logits, wanted)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.judged(model, self._tried)

    def judged(self, model: nn.Module, texts: Sequence[Written]) -> dict[str, float]:
        total = right = count = 0.0
        for at in range(0, len(texts), _TRIED_AT_ONCE):
            logits, wanted = self._said(model, texts[at : at + _TRIED_AT_ONCE])
            total += float(nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            right += float((logits.argmax(dim=-1) == wanted).sum())
            count += len(wanted)
        return {"loss": total / count, "top1": right / count}

    def _said(self, model: Any, texts: Sequence[Written]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits where an answer's token follows, and that token. Of the prompts' no logits are made.

        Shapes (tokens of answers, vocabulary) and (tokens of answers,).
        """
        ids, mask = (each.to(self._device) for each in padded([text.tokens for text in texts], 0))
        places = torch.arange(ids.shape[1], device=self._device)
        first = torch.tensor([text.answer for text in texts], device=self._device)
        is_answer = (places >= first[:, None]) & mask.bool()
        hidden = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        before = is_answer[:, 1:]  # the token at a place is foretold by the one before it
        return model.get_output_embeddings()(hidden[:, :-1][before]).float(), ids[:, 1:][before]


def distil_answers(
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
    """Teach the decoder in `student` to write its teacher's answers, and write it to the new folder `target`.

    Conversations longer than `teaching.length` tokens are left out and counted. Run again after it was killed, it goes
    on from its last snapshot in `scratch`. Raises RecipeError for a student that does not write, CompressionError where
    too few conversations are short enough or training comes apart, ShortageError where the disk is full.
    """
    checkpoint = Checkpoint.open(student)
    if not checkpoint.is_decoder:
        raise RecipeError(f"{student} is a {checkpoint.architecture}, which does not write: let it learn labels")
    length = min(teaching.length, checkpoint.context_length)
    learnt, tried = (_short(part, checkpoint, length) for part in parted(answers, teaching.validation))
    if not (learnt and tried):
        raise CompressionError(f"no conversation to learn from, or none to try on, has at most {length} tokens")
    model = decoder(checkpoint, device)
    teaching.freeze(model, checkpoint.layers)
    lesson = AnswerLesson(learnt, tried, batch=teaching.batch, seed=teaching.seed, device=device)
    course = train(
        model, lesson, teaching.schedule, scratch=scratch, check=check, progress=progress, what="teaching answers",
        key=key_of("answers", teaching, checkpoint, learnt, tried),
    )  # fmt: skip
    write_student(model, checkpoint, target, course, asdict(teaching))
    judged = _short(held_out, checkpoint, length)
    with torch.no_grad():
        found = lesson.judged(model, judged) if judged else {}
    every = len(answers) + len(held_out)
    long = every - len(learnt) - len(tried) - len(judged)
    facts: dict[str, object] = {
        **facts_of(course, teaching.schedule),
        "learnt": len(learnt),
        "tried": len(tried),
        "held_out": len(judged),
        "held_out_loss": found.get("loss"),
        "held_out_top1": found.get("top1"),
        "too_long": long,
    }
    notes = notes_of(course, teaching.schedule)
    if long:
        notes.append(f"{long:,} of {every:,} conversations have more than {length} tokens and were left out")
    return StageRecord(
        kind="distill-answers",
        settings=asdict(teaching),
        seconds=course.seconds,
        parameters=checkpoint.parameters,
        facts=facts,
        notes=tuple(notes),
    )


def _short(answers: Sequence[RecordedAnswer], student: Checkpoint, length: int) -> list[Written]:
    every = (written(answer, student.tokenizer) for answer in answers)
    return [each for each in every if len(each.tokens) <= length]


def written(answer: RecordedAnswer, tokenizer: Any) -> Written:
    """The conversation as the student will be asked it, followed by the answer and what ends it."""
    told = [{"role": turn.role, "content": turn.content} for turn in answer.messages]
    if tokenizer.chat_template:
        prompt = tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*told, {"role": "assistant", "content": answer.answer}], tokenize=False)
        ending = whole[len(prompt) :] if whole.startswith(prompt) else answer.answer
        tokens = list(tokenizer.encode(prompt, add_special_tokens=False))
    else:
        tokens, ending = list(tokenizer.encode(_plain(told))), _answer_to(told, answer.answer)
        if tokens and tokens[-1] == tokenizer.eos_token_id:
            tokens.pop()  # a text that is to go on has no end
    said = list(tokenizer.encode(ending, add_special_tokens=False))
    end = tokenizer.eos_token_id
    if end is not None and end not in said:
        said.append(end)
    return Written([*tokens, *said], len(tokens))


def _plain(told: Sequence[Mapping[str, str]]) -> str:
    """As `EdgeTokenizer` asks a model without a chat template."""
    if len(told) == 1:
        return told[0]["content"]
    said = [f"{_ANNOUNCED.get(each['role'], '')}{each['content']}" for each in told]
    return "\n\n".join([*said, _ANNOUNCED["assistant"].rstrip()])


def _answer_to(told: Sequence[Mapping[str, str]], answer: str) -> str:
    """Set off from what it follows."""
    return answer if len(told) == 1 and told[0]["content"].endswith(("\n", " ")) else f" {answer.lstrip()}"
