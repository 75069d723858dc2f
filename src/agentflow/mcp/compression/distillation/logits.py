"""What a decoder learns from its teacher's logits: to give each next token the chances that the teacher gives it.

    text ─▶ teacher ─▶ logits ┐
         └▶ student ─▶ logits ┴▶ mix · divergence(teacher, student) + (1 − mix) · cross-entropy of the text

Hinton et al., arXiv:1503.02531; on-policy, Agarwal et al., arXiv:2306.13649: at a share of the steps the student writes
the text itself, after a prompt of real text, and the teacher says what it would have said there. Such text is nobody's,
so cross-entropy has no part in those steps; nor have the prompt's positions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from agentflow.mcp.compression.distillation.losses import divergence, forward_kl, in_portions, portion
from agentflow.mcp.compression.distillation.on_policy import continued
from agentflow.mcp.compression.distillation.order import Order, mixed
from agentflow.mcp.compression.recipe import Distill

__all__ = ["LogitLesson"]

_EVALUATED = 8  # windows that are evaluated together


class LogitLesson:
    """`teacher` is a decoder of transformers, `training` and `evaluation` token ids of shape (windows, length).

    `teacher=None` leaves cross-entropy alone: how a model is trained that has no teacher.
    """

    def __init__(
        self,
        stage: Distill,
        teacher: nn.Module | None,
        training: torch.Tensor,
        evaluation: torch.Tensor,
        *,
        device: str = "cpu",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.stage = stage
        self.teacher: Any = None if teacher is None else teacher.to(device).eval().requires_grad_(False)
        self.device = device
        self._training = training
        self._evaluation = evaluation
        self._check = check
        self._order = Order(len(training), batch=stage.batch, seed=stage.seed)

    def loss(self, model: nn.Module, step: int) -> torch.Tensor:
        """Nats a position."""
        windows = self._training[self._order.at(step)].to(self.device)
        prompt = self._prompt(step, windows.shape[1])
        if prompt is None:
            return self._told(model, windows)
        return self._self_written(model, continued(model, windows[:, :prompt], windows.shape[1]), prompt)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """`loss` is what is trained on (of real text); `cross_entropy`, `kl` (teacher ‖ student) and `reverse_kl` are
        nats a token, `top1` is how often both hold the same token the likeliest."""
        sums: dict[str, float] = {}
        for at in range(0, len(self._evaluation), _EVALUATED):
            self._check()
            windows = self._evaluation[at : at + _EVALUATED].to(self.device)
            with torch.no_grad():
                measured = self._measured(model, windows)
            for name, value in measured.items():
                sums[name] = sums.get(name, 0.0) + value
        positions = self._evaluation[:, 1:].numel()
        return {name: value / positions for name, value in sums.items()}

    def _prompt(self, step: int, length: int) -> int | None:
        """How many real tokens the student goes on from, between a quarter and a half; None for a step of real text."""
        chance = random.Random(mixed(self.stage.seed, "on-policy", step))
        if self.teacher is None or chance.random() >= self.stage.on_policy:
            return None
        return min(length - 1, chance.randint(max(1, length // 4), max(1, length // 2)))

    def _told(self, model: Any, windows: torch.Tensor) -> torch.Tensor:
        """The mixed loss of real text."""
        targets = windows[:, 1:].flatten()
        mix = self.stage.mix if self.teacher is not None else 0.0

        def part(student: torch.Tensor, teacher: torch.Tensor | None, some: slice) -> torch.Tensor:
            total = torch.zeros((), device=student.device)
            if mix < 1:
                total = total + (1 - mix) * functional.cross_entropy(student.float(), targets[some], reduction="sum")
            if mix > 0 and teacher is not None:
                total = total + mix * self._apart(teacher, student).sum()
            return total

        return self._summed(model, windows, 0, part, taught=mix > 0) / len(targets)

    def _self_written(self, model: Any, written: torch.Tensor, prompt: int) -> torch.Tensor:
        """The divergence at the positions whose next token the student wrote."""

        def part(student: torch.Tensor, teacher: torch.Tensor | None, some: slice) -> torch.Tensor:
            assert teacher is not None
            return self._apart(teacher, student).sum()

        return self._summed(model, written, prompt - 1, part, taught=True) / written[:, prompt:].numel()

    def _apart(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        return divergence(self.stage.divergence, teacher, student, temperature=self.stage.temperature)

    def _summed(
        self,
        model: Any,
        windows: torch.Tensor,
        first: int,
        part: Callable[[torch.Tensor, torch.Tensor | None, slice], torch.Tensor],
        *,
        taught: bool,
    ) -> torch.Tensor:
        """The sum of `part(student's logits, teacher's, which)` over all positions from `first` that have a next one.
        Where it is not `taught`, the teacher is not asked."""
        hidden = _hidden(model, windows)[:, first:-1].flatten(0, 1)
        head = model.get_output_embeddings()
        theirs = None
        if self.teacher is not None and taught:
            with torch.no_grad():
                theirs = _hidden(self.teacher, windows)[:, first:-1].flatten(0, 1)

        def of(inner: torch.Tensor, some: slice) -> torch.Tensor:
            return part(head(inner), self._teachers(theirs, some), some)

        return in_portions(of, hidden, list(head.parameters()), portion(head.weight.shape[0]))

    def _teachers(self, hidden: torch.Tensor | None, some: slice) -> torch.Tensor | None:
        if hidden is None:
            return None
        with torch.no_grad():
            logits: torch.Tensor = self.teacher.get_output_embeddings()(hidden[some])
        return logits

    def _measured(self, model: Any, windows: torch.Tensor) -> dict[str, float]:
        """Sums over positions."""
        targets = windows[:, 1:].flatten()
        mine = _hidden(model, windows)[:, :-1].flatten(0, 1)
        theirs = None if self.teacher is None else _hidden(self.teacher, windows)[:, :-1].flatten(0, 1)
        head = model.get_output_embeddings()
        sums: dict[str, float] = {}
        size = portion(head.weight.shape[0])
        for at in range(0, len(mine), size):
            some = slice(at, at + size)
            student, teacher = head(mine[some]), self._teachers(theirs, some)
            for name, value in self._judged(student, teacher, targets[some]).items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def _judged(self, student: torch.Tensor, teacher: torch.Tensor | None, targets: torch.Tensor) -> dict[str, float]:
        entropy = float(functional.cross_entropy(student.float(), targets, reduction="sum"))
        if teacher is None:
            return {"loss": entropy, "cross_entropy": entropy}
        mix = self.stage.mix
        return {
            "loss": mix * float(self._apart(teacher, student).sum()) + (1 - mix) * entropy,
            "cross_entropy": entropy,
            "kl": float(forward_kl(teacher, student).sum()),
            "reverse_kl": float(forward_kl(student, teacher).sum()),
            "top1": float((student.argmax(-1) == teacher.argmax(-1)).sum()),
        }


def _hidden(model: Any, windows: torch.Tensor) -> torch.Tensor:
    """What the head reads: (windows, length, hidden size)."""
    states: torch.Tensor = model.base_model(input_ids=windows, use_cache=False).last_hidden_state
    return states
