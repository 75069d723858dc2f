"""Which token comes next: logits to probabilities, and one of them by a random number.

    logits ─penalise─▶ ─temperature─▶ ─top_k─▶ ─min_p─▶ ─top_p─▶ probabilities ─draw(u)─▶ token

    Sampling(temperature=0.7, top_p=0.9).chances(logits, seen)      float64, sums to 1
    Sampling().choose(logits, seen, random)                         temperature 0: the likeliest, of equals the first

All are pure functions of one row. The random number is the row's own, so a seed gives the same text whatever is decoded
beside it. Nucleus sampling: Holtzman et al. 2020 (arXiv:1904.09751); min-p: Nguyen et al. 2024 (arXiv:2407.01082);
repetition penalty: Keskar et al. 2019 (arXiv:1909.05858), on all tokens of prompt and answer; frequency and presence
penalty as OpenAI defines them, on those of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError

__all__ = ["Sampling", "Seen", "draw", "log_chances"]

Row = NDArray[np.float32]
Chances = NDArray[np.float64]

_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "top_k": (0, 1 << 31),
    "repetition_penalty": (0.01, 100.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
}


class Seen:
    """The tokens of a prompt and those written since, for the penalties."""

    def __init__(self, prompt: Sequence[int] = ()) -> None:
        self.prompt = np.unique(np.asarray(prompt, np.int64))
        self.written: dict[int, int] = {}

    def add(self, token: int) -> None:
        self.written[token] = self.written.get(token, 0) + 1

    @property
    def all(self) -> NDArray[np.int64]:
        return np.union1d(self.prompt, np.fromiter(self.written, np.int64, len(self.written)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """`temperature` 0 takes the likeliest token. `top_k` 0, `top_p` 1 and `min_p` 0 leave none out.

    Raises ConfigurationError for a number out of its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigurationError(f"{name} is {value!r}; it lies between {least:g} and {most:g}")

    def choose(self, logits: Row, seen: Seen, random: np.random.Generator) -> int:
        """The next token. -inf is never chosen."""
        if self.temperature == 0.0:
            return int(np.argmax(self.penalised(logits, seen)))
        return draw(self.chances(logits, seen), float(random.random()))

    def chances(self, logits: Row, seen: Seen) -> Chances:
        """The probability of each token: shape (vocabulary,). Above temperature 0."""
        scaled = self.penalised(logits, seen).astype(np.float64)
        scaled = (scaled - scaled.max()) / self.temperature
        scaled = _top_k(scaled, self.top_k)
        found: Chances = np.exp(scaled)
        found /= found.sum()
        found[found < self.min_p * found.max()] = 0.0
        nucleus = _nucleus(found / found.sum(), self.top_p)
        nucleus /= nucleus.sum()
        return nucleus

    def penalised(self, logits: Row, seen: Seen) -> Row:
        """A copy, where anything is to be changed."""
        if self.repetition_penalty != 1.0 and (tokens := seen.all).size:
            logits = logits.copy()
            there = logits[tokens]
            logits[tokens] = np.where(there > 0, there / self.repetition_penalty, there * self.repetition_penalty)
        if (self.frequency_penalty or self.presence_penalty) and seen.written:
            logits = logits.copy()
            tokens = np.fromiter(seen.written, np.int64, len(seen.written))
            counts = np.fromiter(seen.written.values(), np.float32, len(seen.written))
            logits[tokens] -= self.frequency_penalty * counts + self.presence_penalty
        return logits


def draw(chances: Chances, random: float) -> int:
    """The token in whose share of the line from 0 to 1 `random` lies; the shares stand in order of token."""
    ends = np.cumsum(chances)
    token = int(np.searchsorted(ends, random * ends[-1], side="right"))
    return token if token < len(chances) and chances[token] > 0 else int(np.flatnonzero(chances)[-1])


def log_chances(logits: Row) -> Chances:
    """Natural logarithms of the softmax, as the model says it: before temperature and penalties."""
    shifted = logits.astype(np.float64) - float(logits.max())
    found: Chances = shifted - np.log(np.exp(shifted).sum())
    return found


def _top_k(scaled: Chances, k: int) -> Chances:
    """Of equals at the border the lowest ids stay, so that exactly k do."""
    if k == 0 or k >= scaled.size:
        return scaled
    kept = np.argsort(-scaled, kind="stable")[:k]
    found = np.full_like(scaled, -np.inf)
    found[kept] = scaled[kept]
    return found


def _nucleus(chances: Chances, p: float) -> Chances:
    """The fewest tokens that reach p together; the likeliest always stays."""
    if p >= 1.0:
        return chances
    order = np.argsort(-chances, kind="stable")
    before = np.cumsum(chances[order]) - chances[order]
    kept = order[before < p] if p > 0 else order[:1]
    found = np.zeros_like(chances)
    found[kept] = chances[kept]
    return found
