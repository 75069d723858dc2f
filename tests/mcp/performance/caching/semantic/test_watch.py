"""When the tier switches itself off, when it must not, and when it may be on again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.mcp.performance.caching.semantic.watch import Watch, error_interval

DELTA, ALPHA = 0.05, 0.05


def see(watch: Watch, right: bool, *, recovers: bool = False) -> bool:
    return watch.see(right, delta=DELTA, alpha=ALPHA, recovers=recovers)


def audits_until_off(error: float, *, seed: int, most: int, good: int = 0) -> int | None:
    """Audits, after so many good ones, until it is off."""
    chance, watch = random.Random(seed), Watch()
    for _ in range(good):
        see(watch, chance.random() >= DELTA / 2)
    for number in range(1, most + 1):
        if see(watch, chance.random() >= error):
            return number
    return None


def test_an_error_of_exactly_delta_seldom_switches_it_off_however_long_one_looks() -> None:
    """At most α of all tiers ever: of 100 tiers with 600 audits each, that is 5."""
    alarms = sum(audits_until_off(DELTA, seed=seed, most=600) is not None for seed in range(100))
    assert alarms <= 5


def test_a_breach_switches_it_off_soon() -> None:
    """A third wrong where a twentieth is allowed: within 60 audits, for every seed."""
    found = [audits_until_off(0.33, seed=seed, most=60) for seed in range(20)]
    assert None not in found


def test_a_long_good_past_delays_it_only_a_little() -> None:
    """After 2,000 audits in which it was twice as good as promised, a break is seen within 100."""
    found = [audits_until_off(0.33, seed=seed, most=100, good=2000) for seed in range(20)]
    assert None not in found


def test_the_reason_says_what_was_seen_and_the_count_begins_anew() -> None:
    watch = Watch()
    while not see(watch, False):
        pass
    assert watch.state == "off"
    assert watch.since == "2 of 2 audited answers were wrong: more than 0.05"
    assert (watch.audited, watch.wrong) == (0, 0)


def test_it_stays_off_unless_it_may_recover() -> None:
    watch = Watch()
    watch.switch("off", "by hand")
    assert not any(see(watch, True) for _ in range(500))
    assert watch.state == "off"


def test_it_is_on_again_once_would_be_hits_were_right_often_enough() -> None:
    """Under δ = 0.05 that takes about ln(4 · 20) / 0.05 right ones in a row."""
    watch = Watch()
    watch.switch("off", "by hand")
    number = next(number for number in range(1, 500) if see(watch, True, recovers=True))
    assert 60 <= number <= 300
    assert (watch.state, watch.since) == ("on", f"0 of {number} answers that it would have given were wrong")


def test_an_error_above_delta_hardly_ever_switches_it_on_again() -> None:
    wrongly = 0
    for seed in range(40):
        chance, watch = random.Random(seed), Watch()
        watch.switch("off", "by hand")
        wrongly += any(see(watch, chance.random() >= 1.2 * DELTA, recovers=True) for _ in range(800))
    assert wrongly <= 3


def test_by_hand_it_changes_once() -> None:
    watch = Watch()
    assert watch.switch("off", "maintenance")
    assert not watch.switch("off", "maintenance")
    assert watch.switch("on", "done")


# ---- the interval --------------------------------------------------------------------------------------------


def test_before_anything_is_seen_the_error_may_be_anything() -> None:
    assert error_interval(0, 0) == (0.0, 1.0)


def test_the_interval_narrows() -> None:
    widths = [high - low for low, high in (error_interval(n // 50, n) for n in (50, 500, 5000))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.02


@settings(max_examples=60)
@given(st.integers(0, 300), st.integers(0, 300))
def test_the_interval_holds_the_observed_share(wrong: int, right: int) -> None:
    low, high = error_interval(wrong, wrong + right)
    share = wrong / max(1, wrong + right)
    assert 0.0 <= low <= share + 1e-9
    assert high >= share - 1e-9
    assert high <= 1.0


@pytest.mark.parametrize("truth", [0.02, 0.3])
def test_it_holds_the_truth_at_all_times_at_once(truth: float) -> None:
    """Of 40 sequences, looked at again and again, at most 5 % may ever miss it; a few more by chance."""
    missed = 0
    for seed in range(40):
        chance, wrong = random.Random(seed), 0
        for number in range(5, 201, 5):
            wrong += sum(chance.random() < truth for _ in range(5))
            low, high = error_interval(wrong, number)
            if not low - 1e-9 <= truth <= high + 1e-9:
                missed += 1
                break
    assert missed <= 5
