"""How long a model's answers are on the whole, as far as this process has seen: what an expected cost counts with.

    lengths.tokens("small")        300 at first
    lengths.learn("small", 120)    after each answer

A running mean, in which the first guess counts as ten answers and an old answer fades (the last 500 or so count).
"""

from __future__ import annotations

from typing import Final

__all__ = ["Lengths"]

FIRST_GUESS: Final = 300.0  # tokens; a paragraph or two
_WORTH: Final = 10
_MEMORY: Final = 500


class Lengths:
    """Mean output tokens by model. An update is one assignment, so threads may share it; one may then be lost."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int]] = {}

    def tokens(self, model: str) -> float:
        known = self._known.get(model)
        return FIRST_GUESS if known is None else known[0]

    def learn(self, model: str, tokens: int) -> None:
        """An answer was so long."""
        mean, count = self._known.get(model, (FIRST_GUESS, _WORTH))
        count = min(count + 1, _MEMORY)
        self._known[model] = mean + (max(tokens, 0) - mean) / count, count
