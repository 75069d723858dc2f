"""How long and how fast a student is taught recorded answers, and what both kinds of such lessons share.

Teaching(steps=300)          for a classifier as for one that writes
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from agentflow.errors import CompressionError, RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer
from agentflow.mcp.compression.distillation.training import Schedule

__all__ = ["Teaching", "key_of", "padded", "parted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """`steps` of the optimizer, each with `batch` answers, of which none is longer than `length` tokens.

    `validation` is the share of the newest of what is learnt from that is tried on every `evaluate_every` steps, and
    never learnt; `patience`: stop after so many of these without a better one and take the best, None: take the last.
    `frozen` is the share of the layers, from the first on, that stay as they are, with the embeddings: cheaper, and
    for few examples no worse.
    """

    steps: int
    learning_rate: float = 2e-4
    batch: int = 16
    length: int = 256
    warmup: int = 10
    evaluate_every: int = 50
    patience: int | None = None
    validation: float = 0.1
    frozen: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every"):
            if getattr(self, name) < 1:
                raise RecipeError(f"Teaching({name}={getattr(self, name)}): at least 1")
        if self.length < 4:
            raise RecipeError(f"Teaching(length={self.length}): at least 4 tokens")
        if not self.learning_rate > 0:
            raise RecipeError("Teaching: learning_rate is above 0")
        if not (0 < self.validation < 1 and 0 <= self.frozen < 1):
            raise RecipeError("Teaching: validation is a share above 0 and below 1, frozen one from 0 to below 1")

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup=self.warmup,
            evaluate_every=self.evaluate_every,
            patience=self.patience,
            seed=self.seed,
        )

    def freeze(self, model: torch.nn.Module, layers: int) -> None:
        """Take embeddings and the first layers out of the training."""
        if not self.frozen:
            return
        still = round(self.frozen * layers)
        for name, parameter in model.named_parameters():
            parts = name.split(".")
            number = next((int(part) for part in parts if part.isdigit()), None)
            is_low = number is not None and number < still
            if is_low or "embeddings" in parts or "embed_tokens" in parts:
                parameter.requires_grad_(False)


def parted(answers: Sequence[RecordedAnswer], validation: float) -> tuple[list[RecordedAnswer], list[RecordedAnswer]]:
    """What is learnt, and the newest of it, to try on. Raises CompressionError where there are not two."""
    if len(answers) < 2:
        raise CompressionError(f"{len(answers)} answers are too few to learn from: there must be one to try on as well")
    ordered = sorted(answers, key=lambda answer: answer.at)
    tried = min(len(ordered) - 1, max(1, round(validation * len(ordered))))
    return ordered[:-tried], ordered[-tried:]


def padded(rows: Sequence[Sequence[int]], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens, filled up on the right, and 1 for each token that is one. Shapes (rows, longest), int64."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def key_of(what: str, settings: Teaching, student: Checkpoint, *rows: Sequence[object]) -> str:
    """Of everything that the outcome of a training depends on."""
    digest = hashlib.sha256(f"{what} {asdict(settings)} {student.sha256()}".encode())
    for each in rows:
        digest.update(repr(list(each)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
