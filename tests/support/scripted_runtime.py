"""A runtime whose next token is what a function says: ScriptedRuntime(lambda tokens: …, vocabulary=12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agentflow.mcp.performance.edge.runtimes.separate import Separate

__all__ = ["ScriptedRuntime"]

Next = Callable[[Sequence[int]], int]


class ScriptedRuntime:
    """`sharpness` is the logit of the next token; all others are 0. `scored` holds how often each length was read."""

    name = "scripted"
    version = "1"

    def __init__(self, next_token: Next, *, vocabulary: int, context_length: int = 64, sharpness: float = 9.0) -> None:
        self._next = next_token
        self.vocabulary = vocabulary
        self.context_length = context_length
        self._sharpness = sharpness
        self.scored: list[int] = []
        self.closed = 0

    def open(self, prompts: Sequence[Sequence[int]]) -> Separate:
        decoding = Separate(lambda prompt: _Row(self, list(prompt)))
        decoding.add(prompts)
        return decoding

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        self.scored.append(len(tokens))
        return np.stack([self.said(tokens[: end + 1]) for end in range(len(tokens))])

    def said(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        logits = np.zeros(self.vocabulary, np.float32)
        logits[self._next(tokens)] = self._sharpness
        return logits

    def close(self) -> None:
        self.closed += 1


class _Row:
    def __init__(self, runtime: ScriptedRuntime, tokens: list[int]) -> None:
        self._runtime = runtime
        self._tokens = tokens

    def logits(self) -> NDArray[np.float32]:
        return self._runtime.said(self._tokens)

    def append(self, token: int) -> None:
        self._tokens.append(token)
        if len(self._tokens) > self._runtime.context_length:
            raise ValueError("the context is full")

    def close(self) -> None: ...
