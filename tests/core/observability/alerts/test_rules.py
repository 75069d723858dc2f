"""Rules: the same in code and as a mapping, and a mistake in one is named with what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.observability.alerts.preset_fields import PRESETS
from agentflow.core.observability.alerts.presets import breaker_open, burn_rate, cost_per_hour, error_rate, latency
from agentflow.core.observability.alerts.quantities import BurnRate, Metric, Ratio
from agentflow.core.observability.alerts.rule import AlertRule, NoData
from agentflow.core.observability.alerts.spelling import doubts
from agentflow.core.observability.alerts.threshold import Absent, Condition, Threshold
from agentflow.errors import ConfigurationError

SLOW: dict[str, object] = {"name": "slow", "metric": "model_duration_seconds", "above": 10}
SHARE: dict[str, object] = {"of": {"metric": "model_calls", "where": {"status": "error"}}, "to": "model_calls"}


def read(**fields: object) -> AlertRule:
    return AlertRule.from_mapping({**SLOW, **fields})


def complaint(**fields: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(**fields)
    return str(caught.value)


# ---- as a mapping


def test_a_mapping_is_the_same_rule_as_code() -> None:
    mapping = {
        "name": "slow",
        "metric": "model_duration_seconds",
        "stat": "p95",
        "window": "5m",
        "where": {"provider": "openai"},
        "by": ["provider", "model"],
        "above": 10,
        "clear": 8,
        "for": "1m",
        "keep_firing_for": 120,
        "repeat": "1h",
        "severity": "critical",
        "labels": {"team": "search"},
        "summary": "Slow.",
        "no_data": "keep",
        "actions": ["ops"],
    }
    assert AlertRule.from_mapping(mapping) == AlertRule(
        "slow",
        Metric("model_duration_seconds", "p95", 300.0, {"provider": "openai"}),
        Threshold(">", 10.0, 8.0),
        by=("provider", "model"),
        for_=60.0,
        keep_firing_for=120.0,
        repeat=3600.0,
        severity="critical",
        labels={"team": "search"},
        summary="Slow.",
        no_data=NoData.KEEP,
        actions=("ops",),
    )


@pytest.mark.parametrize(
    ("word", "sign"), [("above", ">"), ("at_least", ">="), ("below", "<"), ("at_most", "<="), ("equals", "==")]
)
def test_each_comparison_has_its_word(word: str, sign: str) -> None:
    mapping = {"name": "n", "metric": "m", word: 3}
    assert AlertRule.from_mapping(mapping).condition == Threshold(sign, 3.0)


def test_a_rule_may_look_for_what_is_absent() -> None:
    assert AlertRule.from_mapping({"name": "n", "metric": "m", "absent": True}).condition == Absent()


def test_a_ratio_takes_window_stat_and_where_from_the_rule() -> None:
    rule = AlertRule.from_mapping(
        {"name": "n", "ratio": SHARE, "window": 60, "where": {"provider": "lab"}, "above": 0.1}
    )
    assert rule.quantity == Ratio(
        Metric("model_calls", None, 60.0, {"provider": "lab", "status": "error"}),
        Metric("model_calls", None, 60.0, {"provider": "lab"}),
    )


def test_a_part_of_a_ratio_may_have_its_own_window() -> None:
    share = {"of": {"metric": "a", "window": 60, "stat": "rate"}, "to": {"metric": "a", "window": 3600, "stat": "rate"}}
    rule = AlertRule.from_mapping({"name": "n", "ratio": share, "above": 2})
    assert rule.quantity == Ratio(Metric("a", "rate", 60.0), Metric("a", "rate", 3600.0))


def test_a_burn_rate_has_two_windows_and_an_objective() -> None:
    burn = {"bad": SHARE["of"], "total": "model_calls", "objective": 0.999, "long": "1h", "short": "5m", "minimum": 5}
    rule = AlertRule.from_mapping({"name": "n", "burn_rate": burn, "above": 14.4})
    bad = Metric("model_calls", where={"status": "error"})
    assert rule.quantity == BurnRate(bad, Metric("model_calls"), 0.999, 3600.0, 300.0, 5.0)


def test_labels_may_be_numbers_and_truth_values_as_yaml_has_them() -> None:
    assert read(labels={"tier": 1, "paged": True}).labels == {"tier": "1", "paged": "true"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": None}, "rule: the field name is missing; it holds a text"),
        ({"above": None}, "rule slow: something is missing; a rule has exactly one of above, at_least"),
        ({"below": 1}, "rule slow: above and below exclude each other"),
        ({"metric": None}, "rule slow: something is missing; a rule has exactly one of metric, ratio, burn_rate"),
        ({"ratio": SHARE}, "rule slow: metric and ratio exclude each other"),
        ({"above": "10"}, "rule slow.above: found '10', allowed is a number"),
        ({"above": True}, "rule slow.above: found True, allowed is a number"),
        ({"above": float("nan")}, "rule slow.above: found nan, allowed is a number"),
        ({"clear": 11}, "rule slow.clear: found 11.0, allowed is a finite number, at most 10"),
        (
            {"above": None, "below": 10, "clear": 9},
            "slow.clear: found 9.0, allowed is a finite number, at least 10",
        ),
        ({"above": None, "equals": 10, "clear": 9}, "rule slow.clear: found 9.0, allowed is nothing"),
        ({"above": None, "absent": True, "clear": 9}, "rule slow.clear: unknown field beside absent"),
        ({"above": None, "absent": False}, "rule slow.absent: found False, allowed is true"),
        ({"stat": "p101"}, "rule slow.stat: found 'p101', allowed are total, rate"),
        ({"stat": 95}, "rule slow.stat: found 95, allowed is a text such as rate or p95"),
        ({"window": 7200}, "rule slow.window: found 7200.0, allowed is more than 0 and at most 3600 seconds"),
        ({"window": 0}, "rule slow.window: found 0.0, allowed is more than 0"),
        ({"window": "5 minutes"}, "rule slow.window: found '5 minutes', allowed is seconds, 0 or more, or a duration"),
        ({"for": -1}, "rule slow.for: found -1, allowed is seconds, 0 or more"),
        ({"for": "inf"}, "rule slow.for: found 'inf'"),
        ({"repeat": 0}, "rule slow.repeat: found 0, allowed is more than 0 seconds"),
        ({"no_data": "fire"}, "rule slow.no_data: found 'fire', allowed is ok | alerting | keep | no_data"),
        ({"by": ["a", "a"]}, "rule slow.by: found ('a', 'a'), allowed are names of labels, each once"),
        ({"by": [1]}, "rule slow.by: found [1], allowed is a list of texts"),
        ({"labels": ["a"]}, "rule slow.labels: found ['a'], allowed is a mapping of texts"),
        ({"labels": {"a": None}}, "rule slow.labels: found {'a': None}, allowed is a mapping of texts"),
        ({"severity": 1}, "rule slow.severity: found 1, allowed is a text"),
        ({"sevrity": "x"}, "rule slow.sevrity: unknown field; did you mean severity?"),
        ({"colour": "x"}, "rule slow.colour: unknown field; known are"),
        ({"preset": "slowness"}, "rule.preset: found 'slowness', allowed is latency | error-rate"),
        ({"preset": ["latency"]}, "rule.preset: found ['latency'], allowed is latency | error-rate"),
        ({"metric": None, "ratio": {"of": "a"}}, "rule slow.ratio.to: found None, allowed is a mapping"),
        ({"metric": None, "ratio": "a"}, "rule slow.ratio: found 'a', allowed is a mapping"),
        ({"metric": None, "ratio": {**SHARE, "minimum": -1}}, "ratio.minimum: found -1.0, allowed is a finite number"),
        ({"metric": None, "ratio": {**SHARE, "off": 1}}, "rule slow.ratio.off: unknown field; did you mean of?"),
        (
            {"metric": None, "burn_rate": {"bad": "a", "total": "b", "objective": 99}},
            "rule slow.burn_rate.objective: found 99.0, allowed is a number between 0 and 1",
        ),
        (
            {"metric": None, "burn_rate": {"bad": "a", "total": "b", "objective": 0.9, "short": "1h"}},
            "rule slow.burn_rate.short: found 3600, allowed is less than 3600",
        ),
        (
            {"metric": None, "window": 60, "burn_rate": {"bad": "a", "total": "b", "objective": 0.9}},
            "rule slow.window: unknown field beside burn_rate, which has long and short",
        ),
    ],
)
def test_a_misfit_is_named_with_what_is_allowed(fields: dict[str, Any], words: str) -> None:
    assert words in complaint(**fields)


@pytest.mark.parametrize("mapping", [None, [], "latency", 3])
def test_what_is_no_mapping_is_refused(mapping: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^alerts\.rules\.0: found .*, allowed is a mapping"):
        AlertRule.from_mapping(mapping, path="alerts.rules.0")


def test_a_statistic_that_the_metric_has_not_is_found_before_it_is_needed() -> None:
    said = complaint(metric="flow_runs", stat="p95")
    assert "stat: flow_runs is a counter, and a counter has no 'p95'; it has total, rate" in said
    assert read(metric="a_metric_of_mine", stat="p95").quantity == Metric("a_metric_of_mine", "p95")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metric": "flow_run"}, ["flow_run, which AgentFlow does not count; did you mean flow_runs?"]),
        ({"metric": None, "ratio": {"of": "model_call", "to": "model_calls"}}, ["did you mean model_calls?"]),
        ({"metric": "flow_runs"}, []),
        ({"metric": "orders_waiting"}, []),
    ],
)
def test_a_metric_that_is_almost_one_of_ours_is_doubted(fields: dict[str, Any], said: list[str]) -> None:
    rule = AlertRule.from_mapping({name: value for name, value in (SLOW | fields).items() if value is not None})
    found = list(doubts([rule]))
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"by": ["modle"]}, ["modle in `by`, which is no label of model_duration_seconds; did you mean model?"]),
        ({"where": {"flw": "f"}, "metric": "flow_runs"}, ["flw in `where`, which is no label of flow_runs; did you"]),
        ({"by": ["tenant"]}, ["tenant in `by`, which is no label of model_duration_seconds; it has provider, model"]),
        ({"metric": None, "ratio": SHARE, "by": ["modle"]}, ["modle"]),
        ({"metric": None, "ratio": {"of": "errors", "to": "model_calls"}, "by": ["model"]}, ["label of errors"]),
        ({"by": ["provider", "model"], "where": {"model": "kimi"}}, []),
        ({"metric": "orders_waiting", "by": ["shop"], "where": {"floor": "2"}}, []),
        *[({"metric": None, "above": None, "name": None, "preset": preset}, []) for preset in PRESETS],
    ],
)
def test_a_label_that_a_metric_of_ours_has_not_is_doubted(fields: dict[str, Any], said: list[str]) -> None:
    rule = AlertRule.from_mapping({name: value for name, value in (SLOW | fields).items() if value is not None})
    found = list(doubts([rule]))
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(complaint(above="x" * 10_000)) < 200


def test_code_is_checked_like_a_mapping() -> None:
    with pytest.raises(ConfigurationError, match="by: found 'model', allowed are names of labels"):
        AlertRule("n", Metric("m"), Threshold(">", 1), by="model")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="sign: found '≥', allowed are >, >="):
        Threshold("≥", 1)


# ---- there and back

names = st.text("abcdefgh_", min_size=1, max_size=8)
numbers = st.floats(-1e6, 1e6)
durations = st.floats(0, 1e6)
labels = st.dictionaries(names, names, max_size=3)
metrics = st.builds(
    Metric,
    names,
    st.sampled_from([None, "rate", "p95", "p99.9", "mean", "value"]),
    st.none() | st.floats(1, 3600),
    labels,
)
counters = st.builds(Metric, names, where=labels)
quantities = st.one_of(
    metrics,
    st.builds(Ratio, metrics, metrics, st.floats(0, 1e6)),
    st.builds(BurnRate, counters, counters, st.floats(0.01, 0.99), st.just(3600.0), st.floats(1, 3599)),
)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    sign = draw(st.sampled_from([">", ">=", "<", "<=", "==", "absent"]))
    if sign == "absent":
        return Absent()
    limit, slack = draw(numbers), draw(st.none() | st.floats(0, 10))
    clear = None if slack is None or sign == "==" else limit - slack if sign[0] == ">" else limit + slack
    return Threshold(sign, limit, clear)


rules = st.builds(
    AlertRule,
    names,
    quantities,
    conditions(),
    for_=durations,
    keep_firing_for=durations,
    by=st.lists(names, unique=True, max_size=3).map(tuple),
    severity=names,
    labels=labels,
    summary=st.just("") | names,
    repeat=st.none() | st.floats(1, 1e6),
    no_data=st.sampled_from(NoData),
    actions=st.none() | st.lists(names, max_size=2).map(tuple),
)


@given(rules)
def test_every_rule_comes_back_from_its_mapping(rule: AlertRule) -> None:
    assert AlertRule.from_mapping(rule.to_mapping()) == rule


# ---- presets


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("latency", latency()),
        ("error-rate", error_rate()),
        ("burn-rate", burn_rate()),
        ("cost-per-hour", cost_per_hour()),
        ("breaker-open", breaker_open()),
    ],
)
def test_a_preset_is_the_same_by_name_and_as_a_function(name: str, rule: AlertRule) -> None:
    assert AlertRule.from_mapping({"preset": name}) == rule


def test_every_preset_has_a_function() -> None:
    rules = [latency(), error_rate(), burn_rate(), cost_per_hour(), breaker_open()]
    assert [rule.name for rule in rules] == list(PRESETS)


def test_each_field_of_a_preset_can_be_replaced() -> None:
    fields: dict[str, object] = {"above": 10, "by": ["flow"], "metric": "flow_duration_seconds", "for": 0}
    rule = AlertRule.from_mapping({"preset": "latency", "name": "slow-flow", "severity": "info", **fields})
    assert rule == latency(
        above=10, by=["flow"], metric="flow_duration_seconds", for_=0, name="slow-flow", severity="info"
    )


def test_another_limit_moves_where_a_preset_clears() -> None:
    assert latency(above=10).condition == Threshold(">", 10.0, 8.0)
    assert AlertRule.from_mapping({"preset": "latency", "above": 10}).condition == Threshold(">", 10.0, 8.0)
    assert latency(above=10, clear=9).condition == Threshold(">", 10.0, 9.0)


def test_another_comparison_does_away_with_where_a_preset_clears() -> None:
    rule = AlertRule.from_mapping({"preset": "latency", "at_least": 10})
    assert rule.condition == Threshold(">=", 10.0)
    assert AlertRule.from_mapping({"preset": "latency", "above": 10, "clear": None}).condition == Threshold(">", 10.0)


def test_a_part_of_a_preset_s_ratio_can_be_replaced() -> None:
    assert AlertRule.from_mapping({"preset": "error-rate", "ratio": {"minimum": 50}}) == error_rate(minimum=50)


def test_a_limit_of_a_preset_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"rule latency\.above: found 'ten', allowed is a number"):
        AlertRule.from_mapping({"preset": "latency", "above": "ten"})
