"""What a cached answer's labels say of it: the bound on being right, and what answers learn from each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.mcp.performance.caching.semantic.decision import asking_probability, explores
from agentflow.mcp.performance.caching.semantic.likelihood import CURVES, Evidence, Label, Population


def seen(*labels: tuple[float, bool], window: int = 256) -> Evidence:
    return Evidence([Label(*label) for label in labels], window=window)


def knowing(labels: int = 5000) -> Population:
    """One that has seen so many labels, of which it has learned nothing."""
    population = Population(pooled=False)
    population.note(labels)
    return population


def test_without_labels_nothing_is_promised() -> None:
    assert Population().bound(None, 0.99, caution=0.5) < 0.6


def test_right_answers_raise_the_bound_above_them_more_than_below() -> None:
    """The curve rises with similarity: what is right at 0.9 is likely right at 0.95, and not at 0.5."""
    evidence = seen(*[(0.9, True)] * 30)
    bounds = [knowing().bound(evidence, similarity, caution=0.5) for similarity in (0.5, 0.9, 0.95)]
    assert bounds == sorted(bounds)
    assert bounds[0] < 0.7
    assert bounds[2] > 0.95


def test_one_wrong_answer_lowers_it() -> None:
    right = [(0.9, True)] * 30
    before = knowing().bound(seen(*right), 0.9, caution=0.5)
    assert knowing().bound(seen(*right, (0.9, False)), 0.9, caution=0.5) < before - 0.02


def test_caution_holds_back() -> None:
    evidence = seen(*[(0.9, True)] * 5)
    bold, careful = (Population().bound(evidence, 0.9, caution=caution) for caution in (0.0, 2.0))
    assert careful < bold


def test_more_is_held_back_while_little_is_known_of_all() -> None:
    evidence = seen(*[(0.9, True)] * 5)
    assert knowing(50).bound(evidence, 0.9, caution=0.5) < knowing(5000).bound(evidence, 0.9, caution=0.5) - 0.05


def test_traps_that_look_more_alike_than_paraphrases_keep_the_bound_down() -> None:
    """No curve that only rises can tell them apart: then it must be flat, and promise no more than the share."""
    evidence = seen(*[(0.85, True), (0.85, True), (0.85, True), (0.97, False)] * 20)
    assert Population().bound(evidence, 0.97, caution=0.5) < 0.9


def test_an_answer_that_is_never_right_is_not_given_at_any_similarity() -> None:
    evidence = seen(*[(0.99, False)] * 20)
    assert Population().bound(evidence, 1.0, caution=0.0) < 0.1


def test_what_leaves_the_window_is_forgotten() -> None:
    """A window of ten right labels after twenty wrong ones is as good as ten right ones alone."""
    evidence = seen(*[(0.9, False)] * 20, *[(0.9, True)] * 10, window=10)
    assert len(evidence.labels) == 10
    np.testing.assert_allclose(evidence.log_likelihood, seen(*[(0.9, True)] * 10).log_likelihood, atol=1e-3)


def test_a_new_answer_starts_from_what_its_like_have_shown() -> None:
    """Sixty answers were right above 0.8 and wrong below 0.7: so is the next one, probably."""
    evidences = [seen((0.85, True), (0.9, True), (0.65, False), (0.6, False)) for _ in range(60)]
    population = Population()
    population.note(240)
    population.fit(evidences)
    assert population.bound(None, 0.9, caution=0.0) > 0.9
    assert population.bound(None, 0.6, caution=0.0) < 0.2


def test_it_is_time_to_fit_after_twenty_labels_and_then_ever_more_seldom() -> None:
    population, times = Population(), []
    for number in range(1, 1000):
        if population.note():
            population.fit([seen((0.9, True))])
            times.append(number)
    assert times[:3] == [20, 40, 60]
    assert times[-1] - times[-2] > 60
    assert not any(Population(pooled=False).note() for _ in range(100))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), max_size=30), st.floats(0.0, 1.0))
def test_a_bound_is_a_probability_whatever_was_seen(labels: list[tuple[float, bool]], similarity: float) -> None:
    population = Population()
    population.fit([seen(*labels)])
    assert population.weights.sum() == pytest.approx(1.0, abs=1e-3)
    assert population.bound(seen(*labels), similarity, caution=0.0) == pytest.approx(0.5, abs=0.5001)


def test_curves_rise_with_similarity() -> None:
    steps = np.diff([CURVES.right(similarity) for similarity in np.linspace(0, 1, 21)], axis=0)
    assert (steps >= 0).all()


# ---- the decision --------------------------------------------------------------------------------------------


def test_per_hit_asks_unless_the_bound_reaches_one_minus_delta() -> None:
    assert asking_probability(0.98, delta=0.02, per="hit") == 0.0
    assert asking_probability(0.9799, delta=0.02, per="hit") == 1.0


@given(st.floats(-0.5, 1.0), st.floats(0.001, 0.5))
def test_per_request_at_most_delta_of_all_answers_are_wrong(right: float, delta: float) -> None:
    """P(asked) + P(not asked) P(right) ≥ 1 − δ, and no more is asked than that takes."""
    asked = asking_probability(right, delta=delta, per="request")
    right = max(right, 0.0)
    assert asked + (1 - asked) * right >= 1 - delta - 1e-9
    if 0.0 < asked < 1.0:
        assert asked + (1 - asked) * right == pytest.approx(1 - delta)


def test_chance_decides() -> None:
    asked = asking_probability(0.9, delta=0.05, per="request")
    assert asked == pytest.approx(0.5)
    assert explores(0.9, 0.49, delta=0.05, per="request")
    assert not explores(0.9, 0.51, delta=0.05, per="request")
