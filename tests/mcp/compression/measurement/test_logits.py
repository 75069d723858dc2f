"""Perplexity, KL and top-1 are what their formulas say, whichever way the numbers are added up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.errors import CompressionError
from agentflow.mcp.compression.measurement import logits as module
from agentflow.mcp.compression.measurement.logits import Tally, log_softmax


def _windows(seed: int, windows: int = 3, length: int = 7, vocabulary: int = 11) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    tokens = random.integers(0, vocabulary, (windows, length))
    shape = (windows, length, vocabulary)
    return tokens, *(random.normal(0, 3, shape).astype(np.float32) for _ in range(2))


def _naive(tokens: np.ndarray, said: np.ndarray, source: np.ndarray) -> tuple[float, float, float]:
    """By torch, everything at once, in float64."""
    q = torch.tensor(said, dtype=torch.float64)[:, :-1].flatten(0, 1).log_softmax(-1)
    p = torch.tensor(source, dtype=torch.float64)[:, :-1].flatten(0, 1).log_softmax(-1)
    target = torch.tensor(tokens)[:, 1:].flatten()
    perplexity = torch.nn.functional.nll_loss(q, target).exp()
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    return perplexity.item(), kl.item(), (q.argmax(-1) == p.argmax(-1)).double().mean().item()


@given(st.integers(0, 10_000), st.sampled_from([1, 13, 25, 4_000_000]))
@settings(max_examples=25)
def test_they_equal_the_naive_formulas_of_torch_however_rows_are_cut(seed: int, at_once: int) -> None:
    tokens, said, source = _windows(seed)
    tally, before = Tally(), module._AT_ONCE
    module._AT_ONCE = at_once
    try:
        for row in zip(tokens, said, source, strict=True):
            tally.add(*row)
    finally:
        module._AT_ONCE = before
    assert tally.tokens == 18
    assert (tally.perplexity, tally.kl, tally.top1) == pytest.approx(_naive(tokens, said, source), rel=1e-12)


def test_a_model_beside_itself_differs_by_nothing() -> None:
    tokens, said, _ = _windows(1)
    tally = Tally()
    for row, logits in zip(tokens, said, strict=True):
        tally.add(row, logits, logits)
    assert (tally.kl, tally.top1) == (0.0, 1.0)


def test_a_constant_on_top_of_all_logits_changes_nothing() -> None:
    """They may be stored less their highest."""
    tokens, said, source = _windows(2)
    one, other = Tally(), Tally()
    one.add(tokens[0], said[0], source[0])
    other.add(tokens[0], said[0] + 64, source[0] - 128)
    assert other.kl == pytest.approx(one.kl, rel=1e-4)
    assert other.perplexity == pytest.approx(one.perplexity, rel=1e-4)


def test_without_a_reference_only_perplexity_is_known() -> None:
    tokens, said, _ = _windows(3)
    tally = Tally()
    assert (tally.perplexity, tally.kl, tally.top1) == (None, None, None)
    tally.add(tokens[0], said[0])
    assert tally.perplexity is not None
    assert (tally.kl, tally.top1) == (None, None)


def test_an_impossible_text_has_a_perplexity_that_json_can_hold() -> None:
    said = np.zeros((2, 2), np.float32)
    said[:, 0] = 5000.0
    tally = Tally()
    tally.add(np.array([0, 1]), said)
    assert tally.perplexity is not None
    assert math.isfinite(tally.perplexity)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_refused(broken: float) -> None:
    tokens, said, source = _windows(4)
    said[0, 2, 5] = broken
    with pytest.raises(CompressionError, match="NaN or infinite"):
        Tally().add(tokens[0], said[0], source[0])
    with pytest.raises(CompressionError, match="NaN or infinite"):
        log_softmax(said)


def test_another_vocabulary_is_refused() -> None:
    tokens, said, source = _windows(5)
    with pytest.raises(CompressionError, match="another vocabulary"):
        Tally().add(tokens[0], said[0], source[0, :, :-1])
