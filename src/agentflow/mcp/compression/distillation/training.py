"""The loop that teaches a student, whatever it is taught: it can be killed at any moment and goes on where it was.

    lesson.loss(model, step) ─▶ backward ─▶ clip ─▶ AdamW, warm-up and cosine ─▶ … every so many steps:
                                             lesson.evaluate(model) ─▶ snapshot ─▶ early stopping

    class Lesson: loss(model, step) → a scalar with a gradient · evaluate(model) → {"loss": …, "top1": …}
    course = train(model, lesson, Schedule(steps=500, learning_rate=1e-3), scratch=folder, key="of this training")

A killed training that is run again gives, on the CPU with the same number of threads, the weights of one that was never
disturbed, to the last bit: model and optimizer come from the snapshot, and what is drawn at a step (its examples,
dropout, sampled text) depends on the seed and the step alone. Draw with PyTorch's global generator or from
`mixed(seed, …, step)`; keep no state in a lesson.

AdamW: Loshchilov and Hutter, arXiv:1711.05101. Cosine: arXiv:1608.03983.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import nn

from agentflow.errors import CompressionError
from agentflow.mcp.compression.distillation.order import mixed
from agentflow.mcp.compression.distillation.snapshots import Snapshot, Snapshots
from agentflow.mcp.compression.work import Progress, silent

__all__ = ["Course", "Evaluation", "Lesson", "Schedule", "train"]

_FLOOR: Final = 0.02  # of the learning rate, at the end


class Lesson(Protocol):
    """What is learnt, and how far it has been."""

    def loss(self, model: nn.Module, step: int) -> torch.Tensor:
        """Of the batch of step `step` (from 0): a scalar that has a gradient. `model` is in training mode."""
        ...

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """On texts that are not trained on. "loss" must be among them: the lower, the better. `model` is in evaluation
        mode and needs no gradient."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`patience`: stop after so many evaluations without a better one, and take the best weights; None: never, and
    take the last. Gradients are clipped to a norm of `clip`. Matrices decay by `weight_decay`, vectors do not."""

    steps: int
    learning_rate: float
    warmup: int = 20
    evaluate_every: int = 50
    patience: int | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: up in a line, then down along a cosine to 2 % of it."""
        risen = min(1.0, (step + 1) / max(1, self.warmup))
        return self.learning_rate * risen * (_FLOOR + (1 - _FLOOR) * (1 + math.cos(math.pi * step / self.steps)) / 2)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the lesson measured after `step` steps."""

    step: int
    values: Mapping[str, float]

    @property
    def loss(self) -> float:
        return self.values["loss"]


@dataclass(slots=True)
class Course:
    """How a training went. `losses` has one loss a step, `seconds` is the time of all tries together.

    `best` is the step whose evaluation was the best, `taken` the one whose weights the model has in the end.
    """

    losses: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    seconds: float = 0.0
    resumed: list[int] = field(default_factory=list)  # the steps at which it went on after it was killed
    taken: int = 0

    @property
    def steps(self) -> int:
        return len(self.losses)

    @property
    def best(self) -> int:
        return min(self.evaluations, key=lambda each: each.loss).step

    def exhausted(self, patience: int | None) -> bool:
        """Whether the last `patience` evaluations brought nothing better."""
        steps = [each.step for each in self.evaluations]
        return patience is not None and len(steps) - 1 - steps.index(self.best) >= patience


def train(
    model: nn.Module,
    lesson: Lesson,
    schedule: Schedule,
    *,
    scratch: Path,
    key: str,
    check: Callable[[], None] = lambda: None,
    progress: Progress = silent,
    what: str = "training",
) -> Course:
    """Train `model` in place, or go on with the training `key` whose snapshots lie in `scratch`.

    `check` is called before each step and may raise; then the training can be taken up again. Raises CompressionError
    where a loss or a gradient is no number, ShortageError where the disk is full.
    """
    snapshots = Snapshots(scratch, key)
    optimizer = _optimizer(model, schedule)
    course = _resumed(model, optimizer, snapshots)
    begun = time.monotonic() - course.seconds
    if not course.evaluations:
        check()
        _evaluate(model, lesson, course)
        _keep(model, optimizer, course, schedule, snapshots)
    while course.steps < schedule.steps and not course.exhausted(schedule.patience):
        check()
        course.losses.append(_step(model, lesson, optimizer, schedule, course.steps))
        progress(what, course.steps, schedule.steps)
        if course.steps % schedule.evaluate_every == 0 or course.steps == schedule.steps:
            _evaluate(model, lesson, course)
            course.seconds = time.monotonic() - begun
            _keep(model, optimizer, course, schedule, snapshots)
    _take(model, course, schedule, snapshots)
    return course


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [each for each in learnt if each.ndim > 1], "weight_decay": schedule.weight_decay},
            {"params": [each for each in learnt if each.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=schedule.learning_rate,
        betas=schedule.betas,
    )


def _step(model: nn.Module, lesson: Lesson, optimizer: torch.optim.AdamW, schedule: Schedule, step: int) -> float:
    """One step of the optimizer; its loss. Nothing is changed where that is no number."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    with torch.random.fork_rng():
        torch.manual_seed(mixed(schedule.seed, "step", step))
        loss = lesson.loss(model, step)
        value = float(loss.detach())
        _finite("loss", value, step, schedule)
        loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
    _finite("gradient", float(norm), step, schedule)
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    optimizer.step()
    return value


def _finite(what: str, value: float, step: int, schedule: Schedule) -> None:
    if not math.isfinite(value):
        raise CompressionError(
            f"the {what} is {value} at step {step + 1} of {schedule.steps}: training came apart; try a learning rate"
            f" below {schedule.learning_rate:g}, or more than {schedule.warmup} steps of warm-up"
        )


def _evaluate(model: nn.Module, lesson: Lesson, course: Course) -> None:
    model.eval()
    with torch.no_grad():
        values = {name: float(value) for name, value in lesson.evaluate(model).items()}
    if not math.isfinite(values["loss"]):
        raise CompressionError(f"the evaluation loss is {values['loss']} after step {course.steps}")
    course.evaluations.append(Evaluation(course.steps, values))


# ---- snapshots -----------------------------------------------------------------------------------------------


def _keep(
    model: nn.Module, optimizer: torch.optim.AdamW, course: Course, schedule: Schedule, snapshots: Snapshots
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in _weights(model).items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
    tensors["losses"] = torch.tensor(course.losses, dtype=torch.float64)
    facts = {
        "evaluations": [{"step": each.step, "values": dict(each.values)} for each in course.evaluations],
        "seconds": course.seconds,
        "resumed": course.resumed,
    }
    needs = () if schedule.patience is None or course.best == course.steps else (course.best,)
    snapshots.save(course.steps, tensors, facts, needs)


def _resumed(model: nn.Module, optimizer: torch.optim.AdamW, snapshots: Snapshots) -> Course:
    """Where the newest snapshot was, with model and optimizer as they were; the beginning where there is none."""
    snapshot = snapshots.newest()
    if snapshot is None:
        return Course()
    tensors = snapshot.tensors()
    _load(model, tensors)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, entry = name.split(".")
            state.setdefault(int(number), {})[entry] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    facts = snapshot.facts
    return Course(
        losses=tensors["losses"].tolist(),
        evaluations=[Evaluation(each["step"], each["values"]) for each in facts["evaluations"]],
        seconds=facts["seconds"],
        resumed=[*facts["resumed"], snapshot.step],
    )


def _take(model: nn.Module, course: Course, schedule: Schedule, snapshots: Snapshots) -> None:
    """The weights that were asked for: the best where there was patience, else the last."""
    course.taken = course.steps if schedule.patience is None else course.best
    if course.taken != course.steps:
        best: Snapshot = snapshots.at(course.taken)
        _load(model, best.tensors())
    model.eval()


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes, each once: a tied weight has two names, and safetensors no room for two of one memory."""
    seen: set[int] = set()
    found: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
        if not frozen and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


def _load(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    weights = _weights(model)
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(tensors[f"model.{name}"])
