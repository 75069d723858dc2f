"""A policy on trial: whose calls it decides, how it is judged, and how it is taken back."""

from __future__ import annotations

import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.routing import CHEAP, DEAR, Known, Watched, answer, ask, priced

from agentflow.core import ExecutionEvent
from agentflow.errors import ConfigurationError, OverloadedError
from agentflow.llm.caller import Caller, asking_as
from agentflow.mcp.optimization.router import Canary, ModelRouter, Rule, Trial
from agentflow.mcp.optimization.router.learning.policy import Forecast
from agentflow.mcp.optimization.router.sequential import Sequence, worse

FORECASTS = {"small": Forecast(0.7, 0.6, 0.8, 0.001), "large": Forecast(0.9, 0.85, 0.95, 0.01)}
USUAL, NEW = Known(FORECASTS, value=10.0, digest="usual"), Known(FORECASTS, value=0.001, digest="new")


def router(fraction: float = 0.3, error: float = 0.05, small: object = "small") -> ModelRouter:
    models = {"small": priced(small, CHEAP), "large": priced("large", DEAR)}
    return ModelRouter(models, policy=USUAL, canary=Canary(NEW, fraction, error), name="auto")


# ---- the test that may be looked at any time -----------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 0.5, 0.9]))
def test_the_bounds_hold_the_mean_and_become_narrow(seed: int, mean: float) -> None:
    rng, seen = random.Random(seed), Sequence(0.001)
    for _ in range(400):
        seen.add(float(rng.random() < mean))
        low, high = seen.bounds
        assert low - 1e-9 <= mean <= high + 1e-9
    assert high - low < 0.45


def test_a_policy_that_is_no_worse_is_seldom_called_worse_however_often_one_looks() -> None:
    """200 trials of 250 outcomes each, looked at after every one: at most 5 % may be called worse; far fewer are."""
    rng, wrong = random.Random(7), 0
    for _ in range(200):
        one, other = Sequence(0.025), Sequence(0.025)
        for _ in range(250):
            one.add(float(rng.random() < 0.8))
            other.add(float(rng.random() < 0.8))
            if worse(one, other):
                wrong += 1
                break
    assert wrong <= 10


def test_a_policy_that_is_worse_is_found_out() -> None:
    rng, found = random.Random(11), []
    for _ in range(50):
        one, other = Sequence(0.025), Sequence(0.025)
        for number in range(1, 2001):
            one.add(float(rng.random() < 0.6))
            other.add(float(rng.random() < 0.9))
            if worse(one, other):
                found.append(number)
                break
    assert len(found) == 50
    assert sorted(found)[25] < 250


def test_outcomes_out_of_range_are_refused() -> None:
    for outcome in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1"):
            Sequence(0.05).add(outcome)
    with pytest.raises(ValueError, match="probability"):
        Sequence(0.0)


# ---- whose calls it decides ----------------------------------------------------------------------------------


def test_a_caller_always_meets_the_same_policy_and_the_share_is_kept() -> None:
    trial = Trial(Canary(NEW, 0.2))
    arms = [trial.arm(f"tenant-{number}") for number in range(5000)]
    assert arms == [trial.arm(f"tenant-{number}") for number in range(5000)]
    assert 0.17 < arms.count("canary") / 5000 < 0.23


async def test_tenants_come_before_runs_and_runs_before_texts() -> None:
    trial = router().trial
    assert trial is not None
    tried = {name: trial.arm(name) for name in ("acme", "zeta", "run-1", "run-2", "run-3", "run-4")}
    for tenant, run in (("acme", "run-1"), ("zeta", "run-2"), (None, "run-3"), (None, "run-4")):
        with asking_as(Caller(tenant, run_id=run)):
            found = router().explain(ask())
        arm = tried[tenant or run]
        assert (found.arm, found.chosen) == (arm, "small" if arm == "canary" else "large")
        assert found.policy == f"known {'new' if arm == 'canary' else 'usual'}"


async def test_the_event_says_whose_choice_it_was() -> None:
    watched = Watched(tenant=_tenant("canary"))
    with watched.asking():
        await router().execute(ask())
    assert (watched.routes[0]["arm"], watched.routes[0]["policy"]) == ("canary", "known new")


def _tenant(arm: str, trial: Trial | None = None) -> str:
    trial = trial or Trial(Canary(NEW, 0.3))
    return next(name for name in map("t{}".format, range(1000)) if trial.arm(name) == arm)


# ---- how it is judged ----------------------------------------------------------------------------------------


async def test_scores_take_a_canary_back_that_answers_worse(caplog: pytest.LogCaptureFixture) -> None:
    routes = router()
    trial = routes.trial
    assert trial is not None
    rounds = 0
    with caplog.at_level(logging.WARNING, "agentflow.router"):
        while trial.over is None and rounds < 300:
            rounds += 1
            for arm, score in (("canary", 0.3), ("incumbent", 0.9)):
                with asking_as(Caller(_tenant(arm), run_id=f"{arm}-{rounds}")):
                    await routes.execute(ask())
                assert routes.feedback(f"{arm}-{rounds}", score) == 1
    assert trial.over is not None
    assert trial.over.startswith("its answers are worse: at most 0.")
    assert rounds < 100
    assert [record.message for record in caplog.records] == [
        f"auto: the policy on trial is taken back, because {trial.over}"
    ]
    with asking_as(Caller(_tenant("canary"))):
        assert routes.explain(ask()).arm == "incumbent"


async def test_failures_take_a_canary_back_even_where_another_model_stands_in() -> None:
    routes = router(small=OverloadedError("busy"))
    trial = routes.trial
    assert trial is not None
    rounds = 0
    while trial.over is None and rounds < 300:
        rounds += 1
        for arm in ("canary", "incumbent"):
            with asking_as(Caller(_tenant(arm))):
                assert (await routes.execute(ask())).text == "large"
    assert rounds < 100
    assert trial.over is not None
    assert trial.over.startswith("its calls fail more often")


async def test_what_a_rule_decided_says_nothing_of_a_policy() -> None:
    models = {"small": priced("small", CHEAP), "large": priced("large", DEAR)}
    ruled = ModelRouter(models, policy=USUAL, canary=Canary(NEW, 0.3), rules=[Rule("small", tenant=_tenant("canary"))])
    with asking_as(Caller(_tenant("canary"), run_id="run-1")):
        assert ruled.explain(ask()).arm is None
        await ruled.execute(ask())
    ruled.feedback("run-1", 0.0)
    assert ruled.trial is not None
    assert set(ruled.trial.counts.values()) == {0}


async def test_one_that_does_as_well_is_kept() -> None:
    routes, rng = router(), random.Random(3)
    for number in range(200):
        for arm in ("canary", "incumbent"):
            with asking_as(Caller(_tenant(arm), run_id=f"{arm}-{number}")):
                await routes.execute(ask())
            routes.feedback(f"{arm}-{number}", float(rng.random() < 0.8))
    assert routes.trial is not None
    assert routes.trial.over is None
    assert routes.trial.counts == {
        "incumbent scored": 200, "canary scored": 200, "incumbent ended": 200, "canary ended": 200,
    }  # fmt: skip


async def test_it_is_taken_back_by_hand_and_tried_again() -> None:
    routes = router()
    with asking_as(Caller(_tenant("canary"))):
        assert routes.explain(ask()).arm == "canary"
        routes.rollback("the numbers look odd")
        assert routes.explain(ask()).arm == "incumbent"
        assert routes.trial is not None
        assert routes.trial.over == "the numbers look odd"
        routes.trial.restart()
        assert routes.explain(ask()).arm == "canary"
    with pytest.raises(ConfigurationError, match="no canary"):
        ModelRouter({"a": priced("a", CHEAP)}).rollback()


# ---- what is said of an answer -------------------------------------------------------------------------------


async def test_feedback_finds_a_decision_by_run_answer_or_its_own_id() -> None:
    routes = router(small=answer("small", id="chat-7"))
    watched = Watched(tenant=_tenant("canary"), run_id="run-9")
    with watched.asking():
        reply = await routes.execute(ask())
        chunks = [chunk async for chunk in routes.execute_streaming(ask())]
    assert reply.id == "chat-7"
    assert chunks
    assert routes.feedback(watched.routes[0]["choice"], 0.5) == 1
    assert routes.feedback("run-9", 0.5) == 2
    assert routes.feedback("chat-7", 0.5) == 2
    assert routes.feedback(reply, 0.5) == 2
    assert routes.feedback("nothing", 0.5) == 0
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        routes.feedback("run-9", 1.5)


async def test_feedback_events_are_taken_as_they_are_told() -> None:
    routes = router()
    with asking_as(Caller(_tenant("canary"), run_id="run-3")):
        await routes.execute(ask())
    routes.observe(ExecutionEvent("feedback", "run-3", "", "", 1, 0, 0.0, data={"score": 0.4, "source": "user"}))
    routes.observe(ExecutionEvent("feedback", "run-3", "", "", 1, 0, 0.0, data={"label": "odd", "source": "user"}))
    assert routes.trial is not None
    assert routes.trial.counts["canary scored"] == 1


@pytest.mark.parametrize("options", [{"fraction": 0.0}, {"fraction": 1.0}, {"error": 0.0}])
def test_shares_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Canary(NEW, **options)
