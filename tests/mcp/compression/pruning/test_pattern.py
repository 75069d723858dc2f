"""The weights that go are those that the papers say, and as many as were asked for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.pruned import layers_of_the_fixture

from agentflow.mcp.compression.pruning.pattern import Pattern, magnitude, wanda
from agentflow.mcp.compression.recipe import Sparsify

HALF = Pattern(0.5)
TWO_OF_FOUR = Pattern(0.5, (2, 4))


def by_the_paper(weight: torch.Tensor, inputs: torch.Tensor, pattern: Pattern) -> list[list[bool]]:
    """Wanda's rule in loops: score = |weight| · √Σ input², compared within each output, or each run of it."""
    norms = [math.sqrt(sum(x * x for x in column)) for column in inputs.T.tolist()]
    masks = []
    for row in weight.tolist():
        scores = [abs(w) * norm for w, norm in zip(row, norms, strict=True)]
        zeros, size = pattern.among or (int(len(row) * pattern.sparsity), len(row))
        kept = [True] * len(row)
        for start in range(0, len(row), size):
            run = sorted(range(start, start + size), key=lambda column: scores[column])
            for column in run[:zeros]:
                kept[column] = False
        masks.append(kept)
    return masks


@pytest.mark.parametrize("pattern", [HALF, TWO_OF_FOUR, Pattern(0.3), Pattern(0.25, (1, 4)), Pattern(0.5, (4, 8))])
@pytest.mark.parametrize("layer", ["model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"])
def test_wanda_drops_exactly_what_the_paper_drops(layer: str, pattern: Pattern) -> None:
    """On the trained model's own weights and activations: no difference at all."""
    weight, inputs = layers_of_the_fixture("calibration", 8)[layer]
    mask = wanda(weight, inputs.double().square().sum(0).sqrt(), pattern)
    assert int((mask != torch.tensor(by_the_paper(weight, inputs, pattern))).sum()) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.floats(0.01, 0.99), st.integers(0, 99))
def test_as_many_go_as_were_asked_for(rows: int, columns: int, sparsity: float, seed: int) -> None:
    """Also where many scores are equal, or zero already."""
    weight = torch.randint(-2, 3, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    pattern = Pattern(sparsity)
    of_rows, of_all = wanda(weight, torch.ones(columns), pattern), magnitude(weight, pattern)
    assert ((~of_rows).sum(1) == pattern.zeros(columns)).all()
    assert int((~of_all).sum()) == pattern.zeros(rows * columns)
    assert pattern.shortfall(weight * of_rows) == pattern.shortfall(weight * of_all) == 0


def test_magnitude_drops_the_smallest_of_the_matrix_or_of_neighbours() -> None:
    weight = torch.tensor([[5.0, -6, 7, 8], [1, 2, -3, 4]])
    assert magnitude(weight, HALF).tolist() == [[True] * 4, [False] * 4]
    assert magnitude(weight, TWO_OF_FOUR).tolist() == [[False, False, True, True]] * 2


def test_missing_zeros_are_counted() -> None:
    """In N:M they must lie where they were asked for: a row that is half zeros can still lack some."""
    weight = torch.tensor([[0.0, 0, 0, 0, 1, 1, 1, 1]])
    assert HALF.shortfall(weight) == 0
    assert TWO_OF_FOUR.shortfall(weight) == 2
    assert HALF.shortfall(torch.ones(2, 4)) == 4


def test_a_share_is_not_cut_by_the_way_numbers_are_stored() -> None:
    """0.29 · 100 is 28.999999999999996 in floating point."""
    assert [Pattern(0.29).zeros(100), Pattern(0.5).zeros(7), Pattern(0.1).zeros(9)] == [29, 3, 0]


def test_the_pattern_is_what_the_recipe_says() -> None:
    assert Pattern.of(Sparsify(0.5, pattern="2:4")) == TWO_OF_FOUR
    assert Pattern.of(Sparsify(0.4)) == Pattern(0.4)
