"""The order of a pipeline's stages: what is said of another one, and how a pipeline is described."""

from __future__ import annotations

from agentflow.core.robustness.stages import STAGES, described, odd_order


class Guard:
    def __init__(self, summary: str) -> None:
        self.summary = summary


class Plain:
    def __str__(self) -> str:
        return "plain"


def test_there_is_one_order_and_each_stage_says_why_it_stands_there() -> None:
    names = ["timeout", "shed", "hedge", "retry", "limit", "pool", "breaker", "attempt_timeout", "faults"]
    assert [stage.name for stage in STAGES] == names
    assert [stage.name for stage in STAGES if stage.each] == names[4:]
    assert all(" " in stage.why for stage in STAGES)


def test_the_order_there_is_is_not_odd_and_neither_is_a_part_of_it() -> None:
    names = [stage.name for stage in STAGES]
    assert odd_order(names) is None
    assert odd_order(names[::2]) is None
    assert odd_order([]) is None


def test_another_order_is_told_with_the_reason_and_what_happens_instead() -> None:
    assert odd_order(["retry", "breaker", "limit", "timeout"]) == (
        "limit was named after breaker, but it comes before it: each attempt is a request, so each takes its share "
        "and waits its turn. What runs is timeout → retry → limit → breaker → call"
    )


def test_a_description_has_a_line_for_each_stage_that_is_there() -> None:
    guards = {"faults": Plain(), "timeout": 60.0, "retry": Guard("3 attempts"), "breaker": Guard("opens")}
    assert described("mine", guards).splitlines() == [
        "mine",
        "  total time-out    60 s",
        "  retry             3 attempts",
        "  each attempt:",
        "    circuit breaker   opens",
        "    fault injector    plain",
        "    the call",
    ]


def test_without_a_stage_for_each_attempt_there_is_no_line_for_them() -> None:
    assert described("mine", {"timeout": 5, "limit": None}).splitlines() == [
        "mine",
        "  total time-out    5 s",
        "  the call",
    ]


def test_a_budget_is_told_with_the_retries_it_bounds() -> None:
    for budget, words in ((Guard("a fifth"), "3 attempts; a fifth"), (Plain(), "3 attempts; plain")):
        told = described("mine", {"retry": Guard("3 attempts"), "budget": budget})
        assert told.splitlines()[1] == f"  retry             {words}"
    assert "a fifth" not in described("mine", {"shed": Guard("7 at once"), "budget": Guard("a fifth")})
