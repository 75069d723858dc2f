"""Logits to a token: what each wish leaves out, and that chance comes from the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError
from agentflow.mcp.performance.edge.sampling import Sampling, Seen, draw, log_chances

ROWS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40).map(lambda row: np.array(row, np.float32))
ANY = st.builds(
    Sampling,
    temperature=st.floats(0.05, 5),
    top_p=st.floats(0, 1),
    top_k=st.integers(0, 50),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
)
NONE = Seen()


@given(ROWS, ANY)
def test_chances_are_a_distribution_and_logits_stay_as_they_are(logits: NDArray[np.float32], wish: Sampling) -> None:
    before = logits.copy()
    found = wish.chances(logits, Seen([0, 1]))
    assert found.shape == logits.shape
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    assert (logits == before).all()


@given(ROWS, st.integers(1, 50))
def test_top_k_leaves_exactly_k(logits: NDArray[np.float32], k: int) -> None:
    """Also where several are equal at the border, and they are the k likeliest."""
    found = Sampling(temperature=5.0, top_k=k).chances(logits, NONE)
    kept = np.flatnonzero(found)
    assert len(kept) == min(k, len(logits))
    assert logits[kept].min() >= np.sort(logits)[-len(kept)]


@given(ROWS, st.floats(0.01, 1))
def test_top_p_leaves_the_fewest_that_reach_it(logits: NDArray[np.float32], p: float) -> None:
    whole = Sampling(temperature=1.0).chances(logits, NONE)
    kept = np.flatnonzero(Sampling(temperature=1.0, top_p=p).chances(logits, NONE))
    mass = whole[kept].sum()
    assert mass >= p - 1e-9
    assert mass - whole[kept].min() < p


@given(ROWS, st.floats(0, 1))
def test_min_p_leaves_what_is_near_the_likeliest(logits: NDArray[np.float32], p: float) -> None:
    whole = Sampling(temperature=1.0).chances(logits, NONE)
    found = Sampling(temperature=1.0, min_p=p).chances(logits, NONE)
    assert ((found > 0) == ((whole >= p * whole.max()) & (whole > 0))).all()


@given(ROWS)
def test_temperature_nought_takes_the_likeliest(logits: NDArray[np.float32]) -> None:
    chosen = Sampling().choose(logits, NONE, np.random.default_rng(0))
    assert chosen == int(np.argmax(logits))


@given(ROWS, st.floats(0, 1, exclude_max=True), st.data())
def test_what_is_impossible_is_never_drawn(logits: NDArray[np.float32], random: float, data: st.DataObject) -> None:
    barred = data.draw(st.integers(0, len(logits) - 2))
    logits[: barred + 1] = -np.inf
    assert draw(Sampling(temperature=2.0).chances(logits, NONE), random) > barred
    assert Sampling().choose(logits, NONE, np.random.default_rng(0)) > barred


def test_each_token_is_drawn_as_often_as_it_is_likely() -> None:
    chances = np.array([0.1, 0.0, 0.6, 0.3])
    drawn = np.bincount([draw(chances, (n + 0.5) / 1000) for n in range(1000)], minlength=4)
    assert drawn.tolist() == [100, 0, 600, 300]


def test_a_seed_gives_the_same_tokens() -> None:
    logits = np.random.default_rng(1).normal(size=50).astype(np.float32)
    wish = Sampling(temperature=1.3)
    first, second = [[wish.choose(logits, NONE, random) for _ in range(20)] for random in _twice(7)]
    assert first == second
    assert len(set(first)) > 3


def _twice(seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed), np.random.default_rng(seed)]


def test_penalties_follow_their_definitions() -> None:
    logits = np.array([2.0, -2.0, 1.0, 1.0], np.float32)
    seen = Seen([0, 1])
    seen.add(2)
    seen.add(2)
    assert Sampling(repetition_penalty=2.0).penalised(logits, seen).tolist() == [1.0, -4.0, 0.5, 1.0]
    assert Sampling(frequency_penalty=0.5).penalised(logits, seen).tolist() == [2.0, -2.0, 0.0, 1.0]
    assert Sampling(presence_penalty=0.5).penalised(logits, seen).tolist() == [2.0, -2.0, 0.5, 1.0]


def test_log_chances_are_those_of_the_model() -> None:
    logits = np.array([1000.0, 1000.0, -np.inf], np.float32)
    assert log_chances(logits)[:2] == pytest.approx(np.log(0.5))


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 1.1}, {"min_p": float("nan")}, {"top_k": -1}, {"repetition_penalty": 0}]
)
def test_a_number_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
