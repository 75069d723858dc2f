"""A task that a model is good or bad at: questions, what is expected, and who judges the answers.

    Examples.judged("sums", ["2 + 2 = "], ["4"], share_right)                  a function of all answers
    Examples.checked("sums", Dataset.read("sums.jsonl").cases(100), Exact())   one of Benchmark's checkers

Answers are written greedily, so that the same model has the same score every time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentflow.errors import CompressionError
from agentflow.llm.messages import Message
from agentflow.mcp.performance.edge.runtime import Runtime

if TYPE_CHECKING:  # a runtime's own environment may have little more than the runtime
    from agentflow.mcp.optimization.benchmark.checking import Checker
    from agentflow.mcp.optimization.benchmark.dataset import Case

__all__ = ["Examples", "Tokens"]

Score = Callable[[Sequence[str], Sequence[str]], float]  # answers, what is expected → 0 to 1


class Tokens(Protocol):
    """What is needed of a tokenizer; `EdgeTokenizer` is one."""

    @property
    def end_tokens(self) -> Collection[int]: ...

    def prompt(self, messages: Sequence[Message]) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class Examples:
    """An answer is at most `max_tokens` long and ends before the first of `stop`. A model with a chat template is asked
    by it."""

    name: str
    prompts: tuple[tuple[Message, ...], ...]
    expected: tuple[str, ...]
    score: Score
    max_tokens: int = 32
    stop: tuple[str, ...] = ()

    @classmethod
    def judged(
        cls,
        name: str,
        prompts: Sequence[str],
        expected: Sequence[str],
        score: Score,
        *,
        max_tokens: int = 32,
        stop: Sequence[str] = (),
    ) -> Examples:
        """Raises CompressionError where there are no prompts, or not as many as are expected."""
        if not prompts or len(prompts) != len(expected):
            raise CompressionError(f"a task has as many prompts as answers, not {len(prompts)} and {len(expected)}")
        asked = tuple((Message("user", prompt),) for prompt in prompts)
        return cls(name, asked, tuple(expected), score, max_tokens, tuple(stop))

    @classmethod
    def checked(
        cls, name: str, cases: Sequence[Case], checker: Checker, *, max_tokens: int = 32, stop: Sequence[str] = ()
    ) -> Examples:
        """The mean mark of `checker`; cases that it says nothing of do not count."""

        def mean(answers: Sequence[str], expected: Sequence[str]) -> float:
            marks = [checker(answer, case) for answer, case in zip(answers, cases, strict=True)]
            known = [float(mark) for mark in marks if mark is not None]
            if not known:
                raise CompressionError(f"the checker of {name} judged no answer: the cases expect nothing")
            return sum(known) / len(known)

        if not cases:
            raise CompressionError(f"{name} has no cases")
        expected = tuple(case.expected or "" for case in cases)
        return cls(name, tuple(case.messages for case in cases), expected, mean, max_tokens, tuple(stop))

    def answer(self, runtime: Runtime, tokens: Tokens, *, check: Callable[[], None] = lambda: None) -> float:
        """Let the model answer all of them; the score. Raises CompressionError for one that is not from 0 to 1."""
        answers = []
        for prompt in self.prompts:
            check()
            answers.append(self._written(runtime, tokens, prompt))
        score = float(self.score(answers, self.expected))
        if not 0.0 <= score <= 1.0:
            raise CompressionError(f"the score of {self.name} is {score}: a score lies between 0 and 1")
        return score

    def _written(self, runtime: Runtime, tokens: Tokens, prompt: Sequence[Message]) -> str:
        ids, written = tokens.prompt(prompt), list[int]()
        most = min(self.max_tokens, runtime.context_length - len(ids))
        if most < 1:
            raise CompressionError(f"a prompt of {self.name} has {len(ids)} tokens, which fills the model's context")
        decoding = runtime.open([ids])
        try:
            while len(written) < most:
                token = int(decoding.logits()[0].argmax())
                if token in tokens.end_tokens:
                    break
                written.append(token)
                text = tokens.decode(written)
                if any(each in text for each in self.stop):
                    return min((text.partition(each)[0] for each in self.stop), key=len)
                if len(written) < most:
                    decoding.append([token])
        finally:
            decoding.close()
        return tokens.decode(written)
