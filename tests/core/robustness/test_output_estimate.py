"""The estimate of an answer's length: a cautious guess at first, then what 19 of 20 answers stay under."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.robustness.output_estimate import OutputEstimate


def learned(*answers: int, key: str = "model") -> OutputEstimate:
    estimate = OutputEstimate()
    for tokens in answers:
        estimate.learn(key, tokens)
    return estimate


@pytest.mark.parametrize(("max_tokens", "guess"), [(None, 1024), (4096, 1024), (100, 100), (0, 0), (-5, 0)])
def test_an_unknown_key_is_guessed_at_1024_or_max_tokens(max_tokens: int | None, guess: int) -> None:
    assert OutputEstimate().estimate("model", max_tokens) == guess


def test_nine_answers_are_not_believed_and_ten_are() -> None:
    estimate = learned(*[7] * 9)
    assert estimate.estimate("model") == 1024
    estimate.learn("model", 7)
    assert estimate.estimate("model") == 7


def test_max_tokens_bounds_what_was_learned() -> None:
    estimate = learned(*[3000] * 10)
    assert estimate.estimate("model", 500) == 500
    assert estimate.estimate("model", 5000) == 3000


def test_one_answer_in_twenty_may_be_longer() -> None:
    assert learned(*[10] * 19, 9000).estimate("model") == 10
    assert learned(*[10] * 18, 9000, 9000).estimate("model") == 9000


def test_only_the_last_128_answers_count() -> None:
    estimate = learned(*[9000] * 500, *[10] * 121)
    assert estimate.estimate("model") == 9000  # 7 of 128 are long
    estimate.learn("model", 10)
    assert estimate.estimate("model") == 10  # 6 of 128


def test_less_than_nothing_counts_as_nothing() -> None:
    assert learned(*[-3] * 10).estimate("model") == 0


def test_keys_do_not_mix() -> None:
    estimate = learned(*[10] * 10, key="a")
    assert (estimate.estimate("a"), estimate.estimate("b")) == (10, 1024)


def test_the_key_unused_for_longest_is_forgotten() -> None:
    estimate = OutputEstimate(keys=2)
    for key in "ab":
        for _ in range(10):
            estimate.learn(key, 5)
    assert estimate.estimate("a") == 5  # used now
    estimate.learn("c", 5)
    assert (estimate.estimate("a"), estimate.estimate("b")) == (5, 1024)


def test_it_remembers_256_keys_unless_told_otherwise() -> None:
    estimate = OutputEstimate()
    for key in range(257):
        for _ in range(10):
            estimate.learn(str(key), 5)
    assert [estimate.estimate(key) for key in ("0", "1", "256")] == [1024, 5, 5]


def test_it_remembers_at_least_one_key() -> None:
    with pytest.raises(ValueError, match=r"keys .* at least 1, not 0"):
        OutputEstimate(keys=0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=10, max_size=400))
def test_the_smallest_answer_that_95_percent_do_not_exceed(answers: list[int]) -> None:
    last = sorted(answers[-128:])
    expected = next(x for x in last if sum(y <= x for y in last) >= math.ceil(len(last) * 95 / 100))
    assert learned(*answers).estimate("model") == expected


def test_threads_may_share_it() -> None:
    estimate = OutputEstimate()

    def learn() -> None:
        for tokens in range(2000):
            estimate.learn("model", tokens % 50)
            assert 0 <= estimate.estimate("model") <= 1024

    threads = [threading.Thread(target=learn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 <= estimate.estimate("model") < 50
