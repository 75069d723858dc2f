"""Prompts made up by their length, for runs where only speed is of interest.

    Synthetic(prompt_tokens=512, output_tokens=128)        all alike
    Synthetic.like(trace)                                  as long as those of a trace, one after the other

Lengths are meant, not kept: a word of these is one token to most tokenizers, and an answer ends where the model ends
it, at `max_tokens` at the latest. What was counted stands in the report, from the usage that the server says. Every
prompt begins with words of its own, so that no cache of prompts makes a server look faster than it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from agentflow.errors import ConfigurationError
from agentflow.llm.messages import Message
from agentflow.mcp.optimization.benchmark.dataset import Case
from agentflow.mcp.optimization.benchmark.trace import Trace

__all__ = ["Synthetic"]

_WORDS: Final = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city name team minute idea body back parent face level office door"
).split()


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Lengths are in tokens, those of `lengths` in turn; the same seed makes the same prompts."""

    prompt_tokens: int = 512
    output_tokens: int = 128
    seed: int = 0
    lengths: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise ConfigurationError("prompts and answers are one token long at least")

    @classmethod
    def like(cls, trace: Trace, *, seed: int = 0) -> Synthetic:
        """As long as the requests of a trace."""
        return cls(seed=seed, lengths=tuple(trace.lengths))

    @property
    def name(self) -> str:
        return "as long as in the trace" if self.lengths else f"{self.prompt_tokens} tokens for {self.output_tokens}"

    @property
    def fingerprint(self) -> str:
        return f"synthetic-{self.prompt_tokens}-{self.output_tokens}-{self.seed}-{hash(self.lengths) & 0xFFFFFFFF:08x}"

    def cases(self, count: int) -> list[Case]:
        lengths = self.lengths or ((self.prompt_tokens, self.output_tokens),)
        return [self._case(index, *lengths[index % len(lengths)]) for index in range(count)]

    def _case(self, index: int, prompt_tokens: int, output_tokens: int) -> Case:
        words = Random(f"{self.seed}/{index}").choices(_WORDS, k=max(1, prompt_tokens))
        return Case((Message("user", " ".join(words)),), max_tokens=max(1, output_tokens), id=f"synthetic-{index}")
