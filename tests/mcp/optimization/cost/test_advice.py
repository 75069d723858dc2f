"""What can wait, what may be like, limits that fit nothing, other models: each sort of proposal by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.cost_traffic import MODELS, Traffic

from agentflow.llm.config.prices import Price, Rates
from agentflow.mcp.optimization.cost import Call, CostOptimizer, Proposal, UsageLog
from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot

DAY = 86_400.0
PRICES = PriceSnapshot(
    {
        "large": Price.flat(Rates.stated(3.0, 15.0), batch=0.5),
        "small": Price.flat(Rates.stated(0.3, 1.5), batch=0.5),
        "lab": Price.flat(Rates.stated(1.0, 2.0)),
    },
    "2026-11-26",
    "a test",
)


def log(number: int, made: Callable[[int], dict[str, object]]) -> UsageLog:
    """So many runs of one call each, one a minute."""
    base = {"model": "large", "input_tokens": 1_000, "output_tokens": 100, "cost": 0.0045, "finish_reason": "stop"}
    return UsageLog([Call(at=60.0 * each, run=f"r{each}", **{**base, **made(each)}) for each in range(number)])  # type: ignore[arg-type]


def proposed(calls: UsageLog, kind: str, **terms: object) -> list[Proposal]:
    found = CostOptimizer(calls, prices=PRICES).propose(**terms)  # type: ignore[arg-type]
    return [each for each in found.proposals if each.kind == kind]


# ---- what can wait -------------------------------------------------------------------------------------------


def test_what_can_wait_costs_half() -> None:
    calls = log(100, lambda each: {"slack": DAY if each % 2 else None})
    [found] = proposed(calls, "batch")
    assert found.calls == 50
    assert found.saves.value * calls.days == pytest.approx(50 * 0.0045 / 2)


def test_who_is_patient_can_be_said_by_flow_or_tenant_and_nothing_is_guessed() -> None:
    calls = log(100, lambda each: {"flow": "nightly-report" if each < 30 else "chat", "tenant": "acme"})
    assert proposed(calls, "batch") == []
    assert proposed(calls, "batch", patient=["nightly*"])[0].calls == 30
    assert proposed(calls, "batch", patient=["acme"])[0].calls == 100


def test_a_call_that_others_of_its_run_wait_for_needs_a_day_for_each() -> None:
    two = [
        Call(at=each, run=f"r{each // 2}", model="large", cost=1.0, input_tokens=9, slack=1.5 * DAY)
        for each in range(80)
    ]
    assert proposed(UsageLog(two), "batch") == []


def test_a_model_without_a_batch_price_stays_as_it_is() -> None:
    assert proposed(log(50, lambda _: {"model": "lab", "slack": DAY}), "batch") == []


# ---- limits --------------------------------------------------------------------------------------------------


def test_a_limit_that_is_never_needed_frees_what_it_reserves_and_saves_no_money() -> None:
    calls = log(400, lambda each: {"max_tokens": 8_192, "output_tokens": 100 + each % 7})
    [found] = proposed(calls, "max_tokens")
    assert found.means == "reserved"
    assert not found.is_sure
    assert found.models == {"large": {"max_tokens": 160}}  # 1.5 × 106, up to a multiple of 16
    assert found.saves.value * calls.days == pytest.approx(400 * (8_192 - 160) * 15.0 / 1e6)


def test_a_limit_that_fits_or_is_not_stated_is_left_alone() -> None:
    assert proposed(log(400, lambda _: {"max_tokens": 150}), "max_tokens") == []
    assert proposed(log(400, lambda _: {}), "max_tokens") == []


def test_answers_that_were_cut_are_a_bound_and_no_promise() -> None:
    calls = log(100, lambda each: {"finish_reason": "length" if each % 10 == 0 else "stop"})
    [found] = proposed(calls, "max_tokens")
    assert found.means == "bound"
    assert found.saves.low == 0.0
    assert found.saves.value * calls.days == pytest.approx(10 * 0.0045)


# ---- likeness and repeats that nobody identified ------------------------------------------------------------------


def test_likeness_is_told_as_a_bound_on_top_of_exact_hits() -> None:
    vectors = [(1.0, 0.0), (0.999, 0.04), (0.0, 1.0), (1.0, 0.0)]
    calls = log(
        40, lambda each: {"embedding": vectors[each % 4], "fingerprint": str(vectors[each % 4]), "context": "c"}
    )
    [found] = proposed(calls, "semantic")
    assert found.means == "bound"
    assert found.saves.low == 0.0
    assert found.calls == 1  # only the first 0.999 is like what came before it and not equal to anything
    assert proposed(calls, "semantic", likeness=0.9999) == []


def test_likeness_does_not_reach_across_tenants_or_contexts() -> None:
    assert proposed(log(40, lambda each: {"embedding": (1.0, 0.0), "tenant": str(each)}), "semantic") == []
    assert proposed(log(40, lambda each: {"embedding": (1.0, 0.0), "context": str(each)}), "semantic") == []


def test_without_fingerprints_repeats_are_bounded_by_what_could_be_equal() -> None:
    calls = log(60, lambda each: {"input_tokens": 1_000 + each % 50})
    [found] = proposed(calls, "cache")
    assert (found.means, found.calls, found.saves.low) == ("bound", 10, 0.0)
    assert "nothing in the log says which requests were equal" in found.assumptions


# ---- other models --------------------------------------------------------------------------------------------


def scored(each: int, *, small: float, large: float) -> dict[str, object]:
    """Every other call goes to `small`; scores are 1 as often as stated."""
    is_small, turn = each % 2 == 0, each // 2
    share = small if is_small else large
    model, cost = ("small", 0.00045) if is_small else ("large", 0.0045)
    return {"model": model, "cost": cost, "score": float((turn * 37) % 100 < share * 100), "flow": "f", "step": "s"}


def test_a_cheaper_model_that_is_no_worse_is_proposed() -> None:
    calls = log(2_000, lambda each: scored(each, small=0.95, large=0.95))
    [found] = proposed(calls, "swap")
    assert found.title == "In f/s, ask small instead of large"
    assert found.saves.value * calls.days == pytest.approx(1_000 * (0.0045 - 0.00045))
    assert found.quality is not None
    assert found.quality.low >= found.quality.floor


def test_a_cheaper_model_that_is_worse_or_may_be_is_not() -> None:
    assert proposed(log(2_000, lambda each: scored(each, small=0.85, large=0.95)), "swap") == []
    assert proposed(log(200, lambda each: scored(each, small=0.95, large=0.95)), "swap") == []


def test_a_floor_beyond_all_models_is_said_to_be_beyond_them() -> None:
    calls = log(2_000, lambda each: scored(each, small=0.8, large=0.9))
    found = CostOptimizer(calls, prices=PRICES).propose(quality_floor=0.95)
    assert [each for each in found.proposals if each.kind == "route"] == []
    assert any("sure to reach a quality of 0.950" in note for note in found.notes)


def test_a_mix_of_two_models_meets_a_floor_between_them() -> None:
    calls = log(4_000, lambda each: scored(each, small=0.8, large=0.95))
    [found] = proposed(calls, "route", quality_floor=0.84)
    assert found.quality is not None
    assert 0.84 <= found.quality.low < found.quality.after < 0.875  # less than today's, which costs more
    [(_, shares), (_, point)] = found.details
    assert "small" in shares
    assert "large" in shares
    assert point.endswith("a day")


# ---- together ------------------------------------------------------------------------------------------------


def test_no_dollar_is_saved_twice(findings: Findings) -> None:
    """Together it is less than the sum, and not less than the best of them."""
    chosen = [each.saves.value for each in findings.proposals if each.title in findings.order]
    assert findings.together is not None
    assert len(chosen) >= 3
    assert max(chosen) < findings.together.value < sum(chosen)


def test_a_floor_that_only_dearer_mixes_reach_is_no_proposal() -> None:
    assert proposed(log(4_000, lambda each: scored(each, small=0.8, large=0.95)), "route", quality_floor=0.9) == []


def test_the_same_log_has_the_same_findings(traffic: Traffic, findings: Findings) -> None:
    again = CostOptimizer(traffic.log, prices=traffic.prices).propose()
    assert [each.saves for each in again.proposals] == [each.saves for each in findings.proposals]
    assert again.together == findings.together


def test_what_was_spent_adds_up_in_every_table(traffic: Traffic, findings: Findings) -> None:
    assert set(findings.spend) == {"tenant", "workflow", "model", "step", "day"}
    for rows in findings.spend.values():
        assert sum(row.cost for row in rows) == pytest.approx(findings.spent)
        assert sum(row.calls for row in rows) == len(traffic.log)
    assert {row.key for row in findings.spend["model"]} == set(MODELS)
