"""Snapshots: what a series answers, how several are one, and how they travel between processes."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.series import Series, check_stat
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.errors import ConfigurationError


def collected(clock: VirtualClock | None = None) -> MetricsSnapshot:
    """Two nodes' durations, a counter and a gauge, over two minutes."""
    clock = clock or VirtualClock()
    metrics = MetricsCollector(clock=clock)
    for _ in range(3):
        for value in (0.1, 0.2, 0.3, 0.4):
            metrics.record("seconds", value, {"node": "write"})
            metrics.record("seconds", value * 10, {"node": "judge"})
        metrics.count("dollars", 0.5, {"node": "write"})
        metrics.gauge("depth", 7.0)
        clock.advance(60.0)
    return metrics.snapshot()


# ---- what a series answers -----------------------------------------------------------------------------------


def test_a_counter_has_a_total_and_a_rate() -> None:
    """Since the beginning, and in a window; the window takes whole slots of 5 s."""
    snapshot = collected()
    assert snapshot.value("dollars") == snapshot.value("dollars", "total") == 1.5
    assert snapshot.value("dollars", "rate") == pytest.approx(1.5 / 180)
    assert snapshot.value("dollars", "total", 60.0) == 0.5
    assert snapshot.value("dollars", "rate", 60.0) == pytest.approx(0.5 / 60)
    assert snapshot.value("dollars", "total", 50.0) == 0.0
    assert snapshot.value("dollars", "total", 300.0) == snapshot.value("dollars", "total", 3600.0) == 1.5


def test_a_gauge_is_what_it_is_in_any_window() -> None:
    snapshot = collected()
    assert snapshot.value("depth") == snapshot.value("depth", "value", 60.0) == 7.0


def test_a_histogram_answers_for_any_percentile() -> None:
    """Of one series and of several together, since the beginning and in a window."""
    snapshot = collected()
    [write] = snapshot.select("seconds", {"node": "write"})
    assert write.value() == write.value("count") == 12.0
    assert write.value("sum") == pytest.approx(3.0)
    assert write.value("mean", 60.0) == pytest.approx(0.25)
    assert (write.value("min"), write.value("max")) == (0.1, 0.4)
    assert write.value("p50") == pytest.approx(0.2, rel=0.01)
    assert (write.value("p0"), write.value("p100")) == (0.1, 0.4)
    assert write.value("rate", 60.0) == pytest.approx(4 / 60)
    assert snapshot.value("seconds", "p99.9") == pytest.approx(4.0, rel=0.01)
    assert snapshot.value("seconds", "count", 60.0) == 8.0
    assert write.buckets([0.1, 0.25, 1.0]) == (3, 6, 12)


def test_without_data_there_is_none() -> None:
    """No series, or none of its values in the window: only what can be counted is zero."""
    snapshot = collected()
    assert snapshot.value("nothing") is None
    assert snapshot.value("seconds", "p99", labels={"node": "nobody"}) is None
    assert snapshot.value("seconds", "p99", 30.0) is None
    assert snapshot.value("seconds", "mean", 30.0) is None
    assert snapshot.value("seconds", "count", 30.0) == snapshot.value("seconds", "sum", 30.0) == 0.0
    assert Series("new", "counter").value("rate") is None


def test_labels_select_the_series_that_contain_them() -> None:
    snapshot = collected()
    assert [each.labels["node"] for each in snapshot.select("seconds")] == ["write", "judge"]
    assert snapshot.select("seconds", {"node": "write", "flow": "x"}) == ()


@pytest.mark.parametrize(
    ("kind", "stat"),
    [
        ("counter", "p99"),
        ("counter", "value"),
        ("gauge", "rate"),
        ("histogram", "median"),
        ("histogram", "p"),
        ("histogram", "p101"),
        ("histogram", "p9.9.9"),
        ("histogram", "p-1"),
        ("histogram", "pnan"),
        ("histogram", "p٩٩"),
        ("histogram", ""),
    ],
)
def test_a_statistic_that_there_is_not_is_refused_with_those_there_are(kind: Any, stat: str) -> None:
    with pytest.raises(ConfigurationError, match="it has "):
        check_stat(kind, stat)
    with pytest.raises(ConfigurationError, match="it has "):
        Series("it", kind).value(stat)


@pytest.mark.parametrize("name", ["dollars", "seconds", "depth"])
def test_a_window_beyond_an_hour_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="at most 3600"):
        collected().value(name, window=7200.0)


# ---- several processes ---------------------------------------------------------------------------------------


def test_snapshots_of_two_processes_are_one() -> None:
    """Counters and gauges add up; histograms are as if they had been one."""
    both = collected().merged(collected())
    assert both.value("dollars") == 3.0
    assert both.value("dollars", "total", 60.0) == 1.0
    assert both.value("depth") == 14.0
    assert both.value("seconds", "count") == 48.0
    assert both.value("seconds", "p50", 60.0, {"node": "write"}) == pytest.approx(0.2, rel=0.01)
    assert len(both.series) == len(collected().series)


def test_what_was_seen_earlier_is_older_in_the_merged_one() -> None:
    """A process that reported ten minutes ago counts in the total and the hour, and no more in the last minutes."""
    late = VirtualClock()
    late.advance(600.0)
    both = collected(late).merged(collected())
    assert both.time == VirtualClock().time() + 780.0
    assert both.value("dollars", "total", 300.0) == 1.5
    assert both.value("dollars", "total", 3600.0) == both.value("dollars") == 3.0
    assert both.value("dollars", "total", 3600.0) == collected().merged(collected(late)).value("dollars", None, 3600.0)


def test_a_collector_takes_in_what_another_process_has_counted() -> None:
    """Totals and windows, each amount at its age; and again as JSON."""
    clock = VirtualClock()
    clock.advance(1_000_000.0)
    other = VirtualClock(start=clock.time())
    theirs = collected(other)
    clock.advance(180.0)
    metrics = MetricsCollector(clock=clock)
    metrics.count("dollars", 1.0, {"node": "write"})
    metrics.merge(theirs)
    metrics.merge(MetricsSnapshot.from_json(theirs.to_json()))
    merged = metrics.snapshot()
    assert merged.value("dollars") == 4.0
    assert merged.value("dollars", "total", 60.0) == 2.0
    assert merged.value("seconds", "count", 60.0) == 16.0
    assert merged.value("seconds", "p100", 3600.0) == 4.0
    clock.advance(66.0)
    assert metrics.snapshot().value("dollars", "total", 60.0) == 0.0
    assert metrics.snapshot().value("dollars", "total", 300.0) == 4.0


def test_a_report_from_the_future_is_one_of_now() -> None:
    """The wall clocks of two processes differ, or one of them has jumped."""
    clock = VirtualClock()
    metrics = MetricsCollector(clock=clock)
    metrics.merge(collected(VirtualClock(start=clock.time() + 1e6)))
    assert metrics.snapshot().value("dollars", "total", 3600.0) == 1.5


def test_a_metric_of_another_kind_elsewhere_is_refused_and_counted() -> None:
    metrics = MetricsCollector(clock=VirtualClock())
    metrics.gauge("dollars", 1.0)
    metrics.merge(collected())
    snapshot = metrics.snapshot()
    assert snapshot.value("dollars") == 1.0
    assert snapshot.value("samples_refused", labels={"reason": "kind"}) == 1.0
    assert snapshot.value("seconds") == 24.0


# ---- JSON ----------------------------------------------------------------------------------------------------


def test_a_snapshot_comes_back_from_json_and_pickle_as_it_was() -> None:
    snapshot = collected()
    assert MetricsSnapshot.from_json(snapshot.to_json()) == snapshot
    assert MetricsSnapshot.from_json(snapshot.to_json().encode()) == snapshot
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(json_values)
def test_what_is_no_snapshot_is_refused_with_one_error(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="no snapshot of metrics"):
        MetricsSnapshot.from_json(json.dumps(value))


@given(st.data())
def test_a_snapshot_with_something_else_in_one_place_is_refused_or_still_one(data: st.DataObject) -> None:
    """One value anywhere in the text is replaced by any other: nothing but ConfigurationError is ever raised."""
    record = json.loads(collected().to_json())
    place: Any = record
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        read = MetricsSnapshot.from_json(json.dumps(record))
    except ConfigurationError:
        return
    metrics = MetricsCollector(clock=VirtualClock())
    metrics.merge(read)
    metrics.merge(read.merged(read))
    MetricsSnapshot.from_json(metrics.snapshot().to_json())


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe", '{"version": 2, "time": 0, "series": []}'])
def test_broken_text_is_refused(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="no snapshot of metrics"):
        MetricsSnapshot.from_json(text)
