"""Labels and vectors beside the source's: accuracy, agreement, cosine, rank correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agentflow.errors import CompressionError
from agentflow.mcp.compression.measurement.encoders import (
    labels_said,
    share_equal,
    similarity,
    spearman,
    vectors_said,
)


class Toy:
    """Says of a row what stands in it."""

    name, version, labels, multi_label, context_length, dimensions = "toy", "1", ("a", "b"), False, 8, 2
    batches: list[int]

    def __init__(self) -> None:
        self.batches = []

    def scores(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        self.batches.append(len(rows))
        return np.array(rows, np.float32)

    vectors = scores

    def close(self) -> None: ...


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=30))
@settings(max_examples=60)
def test_spearman_is_scipy_s_with_ties_too(pairs: list[tuple[int, int]]) -> None:
    ones, others = (np.array(side, np.float64) for side in zip(*pairs, strict=True))
    found = spearman(ones, others)
    if len(set(ones)) == 1 or len(set(others)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(ones, others).statistic, abs=1e-12)


def test_vectors_beside_themselves_are_the_same_whatever_their_length() -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    assert similarity(vectors * 3, vectors) == pytest.approx((1.0, 1.0))


def test_vectors_turned_all_alike_keep_their_order_and_lose_their_cosine() -> None:
    """What search finds is the same; what is compared with old vectors is not."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(20, 6)).astype(np.float32)
    turn, _ = np.linalg.qr(random.normal(size=(6, 6)))
    cosine, order = similarity(vectors @ turn.astype(np.float32), vectors)
    assert cosine is not None
    assert cosine < 0.9
    assert order == pytest.approx(1.0, abs=1e-3)


def test_vectors_of_other_dimensions_have_no_cosine() -> None:
    vectors = np.random.default_rng(2).normal(size=(20, 6)).astype(np.float32)
    cosine, order = similarity(vectors[:, :4], vectors)
    assert cosine is None
    assert order is not None
    assert 0 < order < 1


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_texts_have_no_order(count: int) -> None:
    vectors = np.eye(4, dtype=np.float32)[:count]
    assert similarity(vectors, vectors) == (1.0, None)


def test_a_vector_of_nothing_divides_by_nothing() -> None:
    cosine, _ = similarity(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))
    assert cosine == 0.0


def test_texts_go_through_in_batches_and_keep_their_order() -> None:
    toy = Toy()
    rows = [[number % 3, 1] for number in range(70)]
    assert labels_said(toy, rows).tolist() == [int(row[1] > row[0]) for row in rows]
    assert toy.batches == [32, 32, 6]
    assert vectors_said(toy, rows).shape == (70, 2)


def test_agreement_is_the_share_of_equal_labels() -> None:
    assert share_equal(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])) == 0.75
    with pytest.raises(CompressionError, match=r"shape \(1,\) were said and \(2,\) are expected"):
        share_equal(np.array([0]), np.array([0, 1]))


def test_of_several_labels_that_may_hold_all_must_be_right() -> None:
    toy = Toy()
    toy.multi_label = True  # type: ignore[misc]
    said = labels_said(toy, [[3, -1], [-2, 5], [1, 1]])
    assert said.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert share_equal(said, np.array([[1, 0], [0, 1], [1, 0]])) == pytest.approx(2 / 3)


def test_no_texts_and_no_numbers_are_refused() -> None:
    with pytest.raises(CompressionError, match="no texts"):
        labels_said(Toy(), [])
    with pytest.raises(CompressionError, match="NaN"):
        vectors_said(Toy(), [[float("nan"), 1]])  # type: ignore[list-item]
    with pytest.raises(CompressionError, match="cannot be held against"):
        similarity(np.ones((2, 3), np.float32), np.ones((3, 3), np.float32))
