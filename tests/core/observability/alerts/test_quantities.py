"""What a rule looks at, read from real metrics: groups, ratios, burn rates."""

from __future__ import annotations

import pytest
from tests.support.alerting import Gauges

from agentflow.clock import VirtualClock
from agentflow.core.observability.alerts.quantities import BurnRate, Metric, Ratio
from agentflow.core.observability.alerts.threshold import Absent, Threshold
from agentflow.core.observability.metrics.collector import MetricsCollector

FAILED = Metric("model_calls", where={"status": "error"})
ALL = Metric("model_calls")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def metrics(clock: VirtualClock) -> MetricsCollector:
    return MetricsCollector(clock=clock)


def calls(metrics: MetricsCollector, number: float, status: str, model: str = "a") -> None:
    metrics.count("model_calls", number, {"provider": "lab", "model": model, "status": status})


def test_without_by_all_series_are_one_group_that_is_always_there(metrics: MetricsCollector) -> None:
    assert ALL.read(metrics.snapshot(), ()) == {(): None}
    calls(metrics, 2, "ok")
    calls(metrics, 3, "error", "b")
    assert ALL.read(metrics.snapshot(), ()) == {(): 5.0}


def test_by_makes_a_group_of_each_value_whatever_other_labels_there_are(metrics: MetricsCollector) -> None:
    calls(metrics, 2, "ok")
    calls(metrics, 1, "error")
    calls(metrics, 3, "error", "b")
    assert ALL.read(metrics.snapshot(), ("model",)) == {("a",): 3.0, ("b",): 3.0}
    assert FAILED.read(metrics.snapshot(), ("model",)) == {("a",): 1.0, ("b",): 3.0}


def test_a_label_that_a_series_lacks_is_empty(metrics: MetricsCollector) -> None:
    metrics.count("mine", 1, {"a": "x"})
    metrics.count("mine", 1, {"b": "y"})
    assert Metric("mine").read(metrics.snapshot(), ("a",)) == {("x",): 1.0, ("",): 1.0}


def test_a_percentile_of_a_group_is_that_of_its_series_together(metrics: MetricsCollector) -> None:
    for seconds in range(1, 101):
        metrics.record("model_duration_seconds", seconds, {"provider": "ab"[seconds % 2], "model": "m"})
    read = Metric("model_duration_seconds", "p90", 300.0).read(metrics.snapshot(), ("model",))
    assert read[("m",)] == pytest.approx(90, rel=0.05)


def test_a_window_forgets(metrics: MetricsCollector, clock: VirtualClock) -> None:
    metrics.record("model_duration_seconds", 5.0, {"model": "m"})
    slow = Metric("model_duration_seconds", "p95", 60.0)
    assert slow.read(metrics.snapshot(), ())[()] == pytest.approx(5, rel=0.05)
    clock.advance(120)
    assert slow.read(metrics.snapshot(), ()) == {(): None}


def test_a_ratio_is_a_share_and_nothing_failed_is_none_of_it(metrics: MetricsCollector) -> None:
    calls(metrics, 8, "ok")
    calls(metrics, 2, "error")
    calls(metrics, 5, "ok", "b")
    assert Ratio(FAILED, ALL).read(metrics.snapshot(), ("model",)) == {("a",): 0.2, ("b",): 0.0}


def test_a_ratio_of_too_little_is_no_value(metrics: MetricsCollector, clock: VirtualClock) -> None:
    share = Ratio(Metric("model_calls", window=60.0, where={"status": "error"}), Metric("model_calls", window=60.0), 5)
    assert share.read(metrics.snapshot(), ()) == {(): None}
    calls(metrics, 4, "error")
    assert share.read(metrics.snapshot(), ()) == {(): None}
    calls(metrics, 1, "ok")
    assert share.read(metrics.snapshot(), ()) == {(): 0.8}
    clock.advance(600)  # nobody called: 0 of 0
    assert share.read(metrics.snapshot(), ()) == {(): None}


def test_a_burn_rate_is_how_often_the_budget_is_used(metrics: MetricsCollector) -> None:
    calls(metrics, 98, "ok")
    calls(metrics, 2, "error")
    assert BurnRate(FAILED, ALL, 0.99).read(metrics.snapshot(), ())[()] == pytest.approx(2.0)


def test_a_burn_rate_asks_both_windows(metrics: MetricsCollector, clock: VirtualClock) -> None:
    burn = BurnRate(FAILED, ALL, 0.99)
    calls(metrics, 1000, "ok")
    clock.advance(1800)
    calls(metrics, 50, "error")  # a short trouble after much that went well: the short window alone would fire
    assert burn.read(metrics.snapshot(), ())[()] == pytest.approx(50 / 1050 * 100)
    clock.advance(600)
    calls(metrics, 10, "ok")  # it is over: the long window alone would go on firing
    assert burn.read(metrics.snapshot(), ())[()] == 0.0


def test_the_burn_rate_of_the_workbook_fires_when_a_month_s_budget_would_last_two_days(
    metrics: MetricsCollector, clock: VirtualClock
) -> None:
    """99.9 % in 30 days: at 14.4 times the allowed rate an hour takes 2 % of the budget."""
    burn, fires = BurnRate(FAILED, ALL, 0.999), Threshold(">", 14.4)
    for _ in range(12):
        calls(metrics, 9850, "ok")
        calls(metrics, 150, "error")  # 1.5 % is 15 times 0.1 %
        assert fires.holds(burn.read(metrics.snapshot(), ())[()], firing=False)
        clock.advance(300)


def test_a_burn_rate_of_too_little_is_no_value(metrics: MetricsCollector) -> None:
    calls(metrics, 9, "error")
    assert BurnRate(FAILED, ALL, 0.99, minimum=10).read(metrics.snapshot(), ()) == {(): None}


def test_a_gauge_of_several_series_is_their_sum() -> None:
    gauges = Gauges()
    gauges.set("flows_in_flight", 2, flow="a")
    gauges.set("flows_in_flight", 3, flow="b")
    assert Metric("flows_in_flight").read(gauges(), ()) == {(): 5.0}


@pytest.mark.parametrize(
    ("sign", "holds"),
    [(">", [0, 0, 1]), (">=", [0, 1, 1]), ("<", [1, 0, 0]), ("<=", [1, 1, 0]), ("==", [0, 1, 0])],
)
def test_each_sign_means_what_it_says(sign: str, holds: list[int]) -> None:
    assert [Threshold(sign, 2.0).holds(value, firing=False) for value in (1.0, 2.0, 3.0)] == [bool(x) for x in holds]


def test_what_fires_goes_on_until_it_is_clear() -> None:
    above, below = Threshold(">", 10, clear=8), Threshold("<", 10, clear=12)
    assert [above.holds(9, firing) for firing in (False, True)] == [False, True]
    assert [below.holds(11, firing) for firing in (False, True)] == [False, True]
    assert not above.holds(8, firing=True)
    assert not below.holds(12, firing=True)


def test_nothing_and_what_is_no_number_are_no_value() -> None:
    for missing in (None, float("nan")):
        assert Threshold(">", 1).holds(missing, firing=True) is None
        assert Absent().holds(missing, firing=False)
    assert not Absent().holds(0.0, firing=False)
    assert Threshold(">", 1).holds(float("inf"), firing=False)
