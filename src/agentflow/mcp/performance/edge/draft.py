"""One answer while it is written: from a row of logits to the next token, its text, and whether that was the last.

    draft = Draft(prompt, wishes, tokenizer, room=400)
    step = draft.take(logits)          Step(token=17, text=" the", logprob=…, finish=None)
    …
    step = draft.take(logits)          Step(token=1, text="", finish="stop", why="end_token")
    draft.tokens                       prompt and answer, to go on from elsewhere

Pure: no clock, no thread; chance comes from the seed.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from agentflow.llm.messages import TokenLogprob
from agentflow.mcp.performance.edge.sampling import Sampling, Seen, log_chances
from agentflow.mcp.performance.edge.stopping import StopScanner
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

if TYPE_CHECKING:
    from agentflow.mcp.performance.edge.constraint import Constraint

__all__ = ["Draft", "Finish", "Step", "Why", "Wishes"]

Finish = Literal["stop", "length"]
Why = Literal["end_token", "stop_string", "grammar", "max_tokens", "context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How an answer is to be written. `max_tokens` None goes on to the end of the context; `logprobs` is how many
    alternatives to each token are told, None is not even the chosen one's."""

    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one token came to. `text` is what may be shown by now; with the last token comes all that was held back."""

    token: int
    text: str
    logprob: TokenLogprob | None = None
    finish: Finish | None = None
    why: Why | None = None


class Draft:
    """`room` is how many tokens the context has left behind the prompt, at least one."""

    def __init__(
        self,
        prompt: Sequence[int],
        wishes: Wishes,
        tokenizer: EdgeTokenizer,
        *,
        room: int,
        constraint: Constraint | None = None,
    ) -> None:
        self.prompt = list(prompt)
        self.written: list[int] = []
        self._wishes = wishes
        self._tokenizer = tokenizer
        self._constraint = constraint
        self._room = room
        self._most = room if wishes.max_tokens is None else min(room, wishes.max_tokens)
        self._seen = Seen(prompt)
        self._random = np.random.default_rng(secrets.randbits(64) if wishes.seed is None else abs(wishes.seed))
        self._text = tokenizer.stream()
        self._scanner = StopScanner(wishes.stop)

    @property
    def tokens(self) -> list[int]:
        return [*self.prompt, *self.written]

    def take(self, logits: NDArray[np.float32]) -> Step:
        """Choose the next token by a row of logits, which may be written into. Raises RuntimeError where a grammar
        cannot go on."""
        told = None if self._wishes.logprobs is None else log_chances(logits)
        if self._constraint is not None:
            self._constraint.mask(logits)
        token = self._wishes.sampling.choose(logits, self._seen, self._random)
        self.written.append(token)
        self._seen.add(token)
        if token in self._tokenizer.end_tokens:
            return Step(token, self._rest(), None, "stop", "end_token")
        if self._constraint is not None:
            self._constraint.take(token)
        text = self._scanner.feed(self._text.feed(token))
        logprob = None if told is None else self._told(token, told)
        why = self._why()
        if why is None:
            return Step(token, text, logprob)
        finish: Finish = "length" if why in ("max_tokens", "context") else "stop"
        return Step(token, text + self._rest(), logprob, finish, why)

    def _why(self) -> Why | None:
        if self._scanner.stopped:
            return "stop_string"
        if self._constraint is not None and self._constraint.done:
            return "grammar"
        if len(self.written) >= self._most:
            return "max_tokens" if self._most == self._wishes.max_tokens else "context"
        return None

    def _rest(self) -> str:
        """What was held back; the unfinished letter at the end may complete a stop string."""
        text = self._scanner.feed(self._text.flush())
        return text + self._scanner.flush()

    def _told(self, token: int, chances: NDArray[np.float64]) -> TokenLogprob:
        count = min(self._wishes.logprobs or 0, len(chances))
        best = np.argsort(-chances, kind="stable")[:count]
        return TokenLogprob(
            self._word(token),
            float(chances[token]),
            tuple([(self._word(int(each)), float(chances[each])) for each in best]),
        )

    def _word(self, token: int) -> str:
        return self._tokenizer.decode([token], special=True)
