"""A hundred thousand simulated requests through the real guards: what they are for holds, in numbers.

25 variants in eight scenarios (benchmarks/simulation), 4,000 requests each, on virtual time and out of one seed; `make
bench` plays ten times as many. The bounds leave room for other seeds: they were chosen over several.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from benchmarks.simulation.ideal import ideal
from benchmarks.simulation.measures import Busiest, Outcome, fair_shares, jain, percentile
from benchmarks.simulation.provider import Rates, Terms
from benchmarks.simulation.scenarios import SCENARIOS
from benchmarks.simulation.traffic import Tenant, traffic
from benchmarks.simulation.world import Scenario, play

SEED = 1
BURST = 1 / 6  # of a minute's amount, beside what a minute brings


def scenario_of(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


@cache
def played(scenario: str, variant: str) -> Outcome:
    """Each variant is played once, whichever test asks first."""
    of = scenario_of(scenario)
    return play(of, next(each for each in of.variants if each.name == variant), SEED)


# ---- what holds of all -----------------------------------------------------------------------------------------


def test_there_are_a_hundred_thousand_requests() -> None:
    assert sum(scenario.requests * len(scenario.variants) for scenario in SCENARIOS) == 100_000


@pytest.mark.parametrize(
    ("scenario", "variant"),
    [(scenario.name, variant.name) for scenario in SCENARIOS for variant in scenario.variants],
    ids=lambda name: name,
)
def test_every_request_ends_once_and_nobody_waits_beyond_their_patience(scenario: str, variant: str) -> None:
    outcome = played(scenario, variant)
    assert outcome.good + sum(outcome.failures.values()) == outcome.offered
    assert outcome.attempts >= outcome.sent >= outcome.good
    assert outcome.latency(1.0) <= scenario_of(scenario).patience
    assert set(outcome.failures) <= {"limiter", "shed", "breaker", "time-out", "429", "529", "503"}


def test_the_same_seed_gives_the_same_outcome_and_another_one_another() -> None:
    scenario = replace(scenario_of("429 storm"), seconds=15.0)
    variant = scenario.variants[-1]
    first, second, other = (play(scenario, variant, seed) for seed in (7, 7, 8))
    first.cpu = second.cpu = other.cpu = 0.0
    assert first == second
    assert first != other


# ---- calm ------------------------------------------------------------------------------------------------------


def test_in_calm_weather_guards_neither_lose_nor_delay_anything() -> None:
    bare, guarded = played("calm", "no guards"), played("calm", "the client's defaults")
    assert bare.good == guarded.good == guarded.offered
    assert guarded.amplification == 1.0
    assert guarded.latency(0.99) == pytest.approx(bare.latency(0.99), rel=0.02)


# ---- 429 storms: goodput and overshoot -------------------------------------------------------------------------


def test_a_limiter_that_knows_the_rates_is_never_refused_and_never_exceeds_them() -> None:
    outcome = played("429 storm", "limiter knows the rates")
    assert outcome.refused == {}
    assert outcome.amplification == 1.0
    assert outcome.busiest_requests <= 1 + BURST + 0.01
    assert outcome.goodput >= 0.9


def test_a_limiter_that_only_listens_to_the_server_comes_close_to_that() -> None:
    outcome = played("429 storm", "limiter obeys the server")
    assert sum(outcome.refused.values()) < 0.1 * outcome.attempts
    assert outcome.busiest_requests <= (1 + BURST) * 1.1
    assert outcome.goodput >= 0.9


def test_the_defaults_waste_little_where_bare_retries_send_eight_times_what_is_allowed() -> None:
    bare, defaults = played("429 storm", "retries"), played("429 storm", "the client's defaults")
    assert bare.busiest_requests > 6.0
    assert bare.wasted > 0.8
    assert defaults.busiest_requests <= (1 + BURST) * 1.1
    assert defaults.wasted < 0.1
    assert defaults.goodput > bare.goodput


# ---- 529 storms, flapping, slow answers ------------------------------------------------------------------------


def test_a_shedder_halves_what_an_overloaded_provider_must_refuse() -> None:
    bare, shedder = played("529 storm", "retries"), played("529 storm", "shedder (AIMD)")
    assert shedder.refused["529"] < 0.25 * bare.refused["529"]
    assert shedder.goodput > 0.9 * bare.goodput


def test_a_breaker_spares_a_provider_that_is_down_and_is_back_soon_after_it() -> None:
    """As long as an opening is short beside the outages: see docs/simulations.md for what else may happen."""
    bare, breaker = played("flapping", "retries"), played("flapping", "breaker, 3 s")
    assert breaker.spell_attempts < 0.06 * bare.spell_attempts
    assert max(breaker.recovery) <= 15.0
    assert breaker.goodput > 0.65 * bare.goodput


@pytest.mark.parametrize("variant", ["shedder (AIMD)", "shedder (Gradient2)"])
def test_a_shedder_does_not_let_a_slow_provider_work_for_nobody(variant: str) -> None:
    bare, shedder = played("slow provider", "time limits"), played("slow provider", variant)
    assert shedder.goodput > bare.goodput
    assert shedder.wasted < 0.6 * bare.wasted
    assert max(shedder.recovery) < max(bare.recovery)


# ---- retry storms ----------------------------------------------------------------------------------------------


def test_without_a_budget_a_retry_storm_outlives_what_began_it() -> None:
    """Twenty seconds of slow answers, and 140 seconds later the provider still works for callers who have given up."""
    outcome = played("retry storm", "4 attempts, no budget")
    assert outcome.amplification > 3.0
    assert outcome.recovery == [140.0], "never, as long as it was played"
    assert outcome.goodput < 0.3


def test_a_budget_bounds_the_amplification_and_ends_the_storm() -> None:
    outcome = played("retry storm", "4 attempts, budget")
    assert outcome.amplification <= 1.2 + 10 * outcome.seconds / 10 / outcome.offered, "20 %, and ten in ten seconds"
    assert max(outcome.recovery) < 100.0
    assert outcome.goodput > 0.55


def test_with_a_breaker_it_ends_sooner() -> None:
    budget, both = played("retry storm", "4 attempts, budget"), played("retry storm", "budget and breaker")
    assert max(both.recovery) < max(budget.recovery)
    assert both.goodput > budget.goodput
    assert both.wasted < 0.1


# ---- fairness and priorities -----------------------------------------------------------------------------------


def test_a_greedy_tenant_takes_nothing_from_modest_ones_that_are_named() -> None:
    unnamed = played("greedy tenant", "shedder, nobody named")
    named = played("greedy tenant", "shedder, tenants named")
    assert named.fairness > 0.99 > 0.95 > unnamed.fairness
    for tenant, (offered, good, _) in named.tenants.items():
        assert tenant == "greedy" or good > 0.97 * offered
    assert named.good > 0.95 * unnamed.good, "fairness costs next to nothing"


def test_under_twice_the_load_the_important_half_is_answered_and_first_of_all_the_critical() -> None:
    outcome = played("priorities", "shedder, priorities named")
    share = {name: good / offered for name, (offered, good, _) in outcome.priorities.items()}
    assert share["critical"] > 0.97
    assert share["high"] > 0.95
    assert share["low"] < share["normal"] < 0.2
    assert percentile(outcome.priority_latencies["critical"], 0.5) < 2.0


# ---- the instruments themselves --------------------------------------------------------------------------------


def test_jain_is_one_for_equals_and_one_nth_where_one_has_all() -> None:
    assert jain([3.0, 3.0, 3.0]) == 1.0
    assert jain([1.0, 0.0, 0.0, 0.0]) == 0.25


def test_max_min_shares_give_the_modest_all_they_ask_for() -> None:
    assert fair_shares({"a": 10, "b": 2, "c": 3}, 9) == {"b": 2, "c": 3, "a": 4}
    assert fair_shares({"a": 1, "b": 2}, 99) == {"a": 1, "b": 2}


def test_the_busiest_minute_is_found_wherever_it_lies() -> None:
    busiest = Busiest()
    for second in (0, 10, 70, 75, 80, 200):
        busiest.add(float(second), 2)
    assert busiest.most == 6


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0
    assert percentile([], 0.5) == 0.0


def test_the_servers_buckets_give_a_burst_and_then_the_rate() -> None:
    rates = Rates(Terms(requests_per_minute=60, burst=1 / 6))
    for _ in range(10):
        assert rates.wait(1, 0.0) == 0.0
        rates.take(1, 0.0)
    assert rates.wait(1, 0.0) == pytest.approx(1.0)
    assert rates.wait(1, 1.0) == 0.0


def test_the_ideal_answers_what_the_rates_allow_and_all_where_nothing_limits() -> None:
    requests = traffic(3, [Tenant("all", 1.0)], rate=10.0, seconds=100.0, patience=20.0)
    assert len(ideal(Terms(), requests)) == 1_000
    limited = ideal(Terms(requests_per_minute=300, burst=1 / 60), requests)
    assert len(limited) == pytest.approx(5 * 120, rel=0.1)
    alone = ideal(Terms(places=1, per_token=0.0, first=1.0), requests)
    assert len(alone) == pytest.approx(120, rel=0.1)
