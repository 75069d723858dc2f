"""A task's score: greedy answers, judged by a function or by a checker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.support.scripted_runtime import ScriptedRuntime

from agentflow.errors import CompressionError
from agentflow.llm.messages import Message
from agentflow.mcp.compression.measurement.examples import Examples
from agentflow.mcp.optimization.benchmark.checking import Contains, Exact
from agentflow.mcp.optimization.benchmark.dataset import Case

ALPHABET = "|abcdefghij\n"


class Letters:
    """A token a letter; `|` ends."""

    end_tokens = frozenset({0})

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return [ALPHABET.index(letter) for letter in messages[-1].text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(ALPHABET[token] for token in tokens)


def _next(tokens: Sequence[int]) -> int:
    """The alphabet, in order, from the last letter on; after j the end."""
    return (tokens[-1] + 1) % 11


RUNTIME = ScriptedRuntime(_next, vocabulary=len(ALPHABET), context_length=16)


def _right(answers: Sequence[str], expected: Sequence[str]) -> float:
    return float(np.mean([answer == each for answer, each in zip(answers, expected, strict=True)]))


def test_a_function_judges_all_answers_together() -> None:
    examples = Examples.judged("next", ["g", "ab"], ["hij", "cdx"], _right, max_tokens=3)
    assert examples.answer(RUNTIME, Letters()) == 0.5


def test_an_answer_ends_where_the_model_ends_it_or_before_a_stop_or_at_its_length() -> None:
    said: list[str] = []

    def keep(answers: Sequence[str], expected: Sequence[str]) -> float:
        said.extend(answers)
        return 1.0

    Examples.judged("ends", ["i", "a"], ["", ""], keep, max_tokens=5, stop=["e", "cd"]).answer(RUNTIME, Letters())
    assert said == ["j", "b"]


def test_a_checker_of_benchmark_judges_case_by_case_and_what_it_says_nothing_of_does_not_count() -> None:
    cases = [Case.of("g", expected="HIJ"), Case.of("a", expected="x"), Case.of("b")]
    assert Examples.checked("next", cases, Exact(), max_tokens=3).answer(RUNTIME, Letters()) == 0.5
    assert Examples.checked("next", cases[:1], Contains("i"), max_tokens=3).answer(RUNTIME, Letters()) == 1.0
    with pytest.raises(CompressionError, match="judged no answer"):
        Examples.checked("next", cases[2:], Exact()).answer(RUNTIME, Letters())


def test_the_score_is_one() -> None:
    with pytest.raises(CompressionError, match="between 0 and 1"):
        Examples.judged("x", ["a"], ["b"], lambda answers, expected: 7.0).answer(RUNTIME, Letters())
    with pytest.raises(CompressionError, match="between 0 and 1"):
        Examples.judged("x", ["a"], ["b"], lambda answers, expected: float("nan")).answer(RUNTIME, Letters())


def test_a_prompt_that_fills_the_context_is_refused_and_a_long_answer_ends_with_it() -> None:
    with pytest.raises(CompressionError, match="fills the model's context"):
        Examples.judged("x", ["a" * 16], ["b"], _right).answer(RUNTIME, Letters())
    assert Examples.judged("x", ["a" * 15], ["b"], _right, max_tokens=99).answer(RUNTIME, Letters()) == 1.0


def test_prompts_and_answers_are_as_many() -> None:
    for prompts, expected in (([], []), (["a"], [])):
        with pytest.raises(CompressionError, match="as many prompts as answers"):
            Examples.judged("x", prompts, expected, _right)
    with pytest.raises(CompressionError, match="no cases"):
        Examples.checked("x", [], Exact())
