"""What a snapshot becomes in Prometheus' terms: names, labels, buckets, exemplars, and what telemetry lost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parsed_text
from tests.support.every_metric import let_everything_happen

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.histogram import Distribution
from agentflow.core.observability.metrics.names import METRICS
from agentflow.core.observability.metrics.snapshot import Exemplar, MetricsSnapshot, Series
from agentflow.core.observability.observers import Observation
from agentflow.errors import ConfigurationError
from agentflow.integrations.prometheus import Losses, PrometheusCollector, trace_of
from agentflow.integrations.prometheus.catalogue import CATALOGUE
from agentflow.integrations.prometheus.exposition import open_metrics, text


@dataclass(frozen=True)
class Fixed:
    """Metrics that do not change."""

    series: tuple[Series, ...]

    def snapshot(self) -> MetricsSnapshot:
        return MetricsSnapshot(1_800_000_000.0, self.series)


def shown(*series: Series, **options: object) -> dict[str, float]:
    """Each sample in the text format with its value, but for those about telemetry itself."""
    collector = PrometheusCollector(Fixed(series), losses=Losses(lambda: ()), **options)  # type: ignore[arg-type]
    lines = text(collector).decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples if "overflow" not in name and "build_info" not in name}


def counter(name: str, amount: float = 1.0, **labels: str) -> Series:
    return Series(name, "counter", labels, amount)


def gauge(name: str, amount: float = 1.0, **labels: str) -> Series:
    return Series(name, "gauge", labels, amount)


def histogram(name: str, *values: float, exemplars: tuple[Exemplar, ...] = (), **labels: str) -> Series:
    return Series(name, "histogram", labels, distribution=Distribution.of(values), exemplars=exemplars)


# ---- names -----------------------------------------------------------------------------------------------------


def test_kinds_have_the_endings_that_prometheus_expects() -> None:
    """A counter ends in `_total`, a gauge in nothing, a histogram in `_bucket`, `_count` and `_sum`."""
    assert shown(counter("hedges", 3.0, guard="a"), gauge("flows_in_flight", 2.0, flow="f")) == {
        'agentflow_hedges_total{guard="a"}': 3.0,
        'agentflow_flows_in_flight{flow="f"}': 2.0,
    }
    assert shown(histogram("size_bytes", 1.0), bounds={"size_bytes": [2, 4]}) == {
        'agentflow_size_bytes_bucket{le="2.0"}': 1.0,
        'agentflow_size_bytes_bucket{le="4.0"}': 1.0,
        'agentflow_size_bytes_bucket{le="+Inf"}': 1.0,
        "agentflow_size_bytes_count": 1.0,
        "agentflow_size_bytes_sum": 1.0,
    }


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("ordersPerHour", "agentflow_orders_per_hour_total"),
        ("orders.per-hour", "agentflow_orders_per_hour_total"),
        ("orders_total", "agentflow_orders_total"),
        ("orders_total_total", "agentflow_orders_total"),
        ("orders_count", "agentflow_orders_total"),
        ("2nd", "agentflow_n2nd_total"),
        ("__", "agentflow_unnamed_total"),
        ("größe", "agentflow_gr_e_total"),
    ],
)
def test_any_name_becomes_one_that_prometheus_takes(name: str, sample: str) -> None:
    """Snake case, none of the endings that Prometheus adds itself."""
    assert list(shown(counter(name))) == [sample]


def test_another_prefix_begins_every_name() -> None:
    """One's own metrics and those about telemetry included."""
    metrics = MetricsCollector()
    let_everything_happen(metrics)
    written = text(PrometheusCollector(metrics, prefix="shop_ai", losses=Losses(lambda: [watching(metrics)]))).decode()
    assert {line.split("_")[0] for line in written.splitlines() if not line.startswith("#")} == {"shop"}


@pytest.mark.parametrize("prefix", ["", "Shop", "shop__ai", "_shop", "shop_", "1shop", "shop ai", "shöp"])
def test_a_prefix_that_cannot_begin_a_name_is_refused(prefix: str) -> None:
    """When the collector is made, not when it is asked."""
    with pytest.raises(ConfigurationError, match="prefix"):
        PrometheusCollector(MetricsCollector(), prefix=prefix)


def test_two_metrics_whose_names_become_one_are_added_up() -> None:
    """Of one kind they are one family; a sample that stands twice would be refused."""
    assert shown(counter("a.b", 1.0), counter("a_b", 2.0)) == {"agentflow_a_b_total": 3.0}


def test_two_kinds_of_one_name_are_both_shown() -> None:
    """The later one's name gets an ending: nothing is lost."""
    both = shown(counter("rows", 1.0), gauge("rows", 2.0), gauge("rows_total", 3.0))
    assert both == {"agentflow_rows_total": 1.0, "agentflow_rows_value": 5.0}


def test_what_agentflow_counts_keeps_its_name() -> None:
    """Whatever else is called like it."""
    both = shown(gauge("Hedges", 5.0), counter("hedges", 1.0, guard="a"))
    assert both == {'agentflow_hedges_total{guard="a"}': 1.0, "agentflow_hedges_value": 5.0}


def test_the_catalogue_knows_every_metric() -> None:
    """Each has a help of its own, and says the unit that its name ends in."""
    assert set(METRICS) <= set(CATALOGUE)
    metrics = MetricsCollector()
    let_everything_happen(metrics)
    metrics.count("what fits nowhere")
    families = list(parsed_open_metrics(open_metrics(PrometheusCollector(metrics)).decode()))
    told = {family.name: family for family in families}
    for name, kind in METRICS.items():
        family = told[f"agentflow_{name}"]
        assert (family.type, family.documentation) == (kind, CATALOGUE[name].help)
        unit = name.rpartition("_")[2]
        assert family.unit == (unit if unit in ("seconds", "dollars", "tokens") else "")


# ---- labels ----------------------------------------------------------------------------------------------------

AWKWARD = 'quote " slash \\ line \n tab \t nul \0 snowman ☃ emoji 😀'


def test_values_of_labels_may_be_any_text() -> None:
    """They are escaped, and read back as they were."""
    collector = PrometheusCollector(Fixed((counter("rows", label=AWKWARD),)), losses=Losses(lambda: ()))
    for families in (parsed_text(text(collector).decode()), parsed_open_metrics(open_metrics(collector).decode())):
        [sample] = [sample for family in families for sample in family.samples if "rows" in sample.name]
        assert sample.labels.get("label", AWKWARD) == AWKWARD


@given(st.text(), st.text(min_size=1), st.text())
def test_no_name_and_no_label_makes_it_unreadable(name: str, label: str, value: str) -> None:
    """Whatever was counted, the answer is text that a parser takes."""
    several = Series(name, "counter", {label: value, "le": value, f"{label}.": "x"}, 1.0)
    collector = PrometheusCollector(
        Fixed((several, Series(name, "histogram", several.labels, distribution=Distribution.of([0.2])))),
        losses=Losses(lambda: ()),
    )
    names = [family.name for family in parsed_open_metrics(open_metrics(collector).decode())]
    assert len(names) == len(set(names))


def test_half_a_character_is_shown_as_a_question_mark() -> None:
    """Prometheus takes UTF-8 and nothing else."""
    assert shown(counter("rows", label="a\ud800b")) == {'agentflow_rows_total{label="a?b"}': 1.0}


def test_a_very_long_value_is_cut() -> None:
    """10 MB in a label would be sent with every fetch."""
    [name] = shown(counter("rows", label="x" * 10_000_000))
    assert len(name) < 1_100


def test_labels_whose_names_become_one_stay_apart() -> None:
    """The second gets a number; a histogram's `le` is its own."""
    [name] = shown(Series("rows", "counter", {"user-agent": "a", "user_agent": "b"}, 1.0))
    assert name == 'agentflow_rows_total{user_agent="a",user_agent_2="b"}'
    assert 'agentflow_size_bucket{le="1.0",le_2="x"}' in shown(histogram("size", 1.0, le="x"), bounds={"size": [1.0]})


# ---- buckets ---------------------------------------------------------------------------------------------------


def test_buckets_are_cumulative_and_end_with_the_count() -> None:
    """Each says how many values did not exceed its bound."""
    buckets = shown(histogram("size", 0.5, 1.5, 3.0, 100.0), bounds={"size": [1, 2, 4]})
    assert [value for name, value in buckets.items() if "_bucket" in name] == [1.0, 2.0, 3.0, 4.0]
    assert (buckets["agentflow_size_count"], buckets["agentflow_size_sum"]) == (4.0, 105.0)


@given(st.lists(st.floats(0.0, 1e6), max_size=60), st.lists(st.floats(0.001, 1e6), min_size=1, max_size=9, unique=True))
def test_no_bucket_is_larger_than_the_next(values: list[float], bounds: list[float]) -> None:
    """And each is right but for values within 1.6 % of its bound."""
    ordered = sorted(bounds)
    buckets = shown(histogram("size", *values), bounds={"size": ordered})
    counts = [value for name, value in buckets.items() if "_bucket" in name]
    assert counts == sorted(counts)
    assert counts[-1] == len(values)
    for bound, count in zip(ordered, counts, strict=False):
        assert sum(value <= bound for value in values) <= count <= sum(value <= bound * 1.016 for value in values)


def test_buckets_never_shrink_as_values_come() -> None:
    """A counter that goes back would read as a restart: from fetch to fetch each bucket only grows."""
    metrics, before = MetricsCollector(), [0.0] * 99
    for value in (0.0099, 0.0101, 0.01, 0.00995, 5.0, 0.3, 1e-9, 1e9, 0.0):
        metrics.record("tool_duration_seconds", value, {"tool": "t"})
        now = [value for name, value in shown(*metrics.snapshot().series).items() if "tool_duration" in name]
        assert all(new >= old for new, old in zip(now, before, strict=False))
        before = now


@pytest.mark.parametrize("bounds", [[], [1.0, 1.0], [2.0, 1.0], [1.0, math.inf], [math.nan], list(range(101))])
def test_bounds_that_cannot_be_are_refused(bounds: list[float]) -> None:
    """They must be finite and grow, and 100 are enough."""
    with pytest.raises(ConfigurationError, match=r"bounds|buckets"):
        PrometheusCollector(MetricsCollector(), bounds={"size": bounds})


# ---- exemplars -------------------------------------------------------------------------------------------------


def exemplars(series: Series, **options: object) -> dict[str, tuple[Mapping[str, str], float]]:
    """By the bucket in which each stands."""
    collector = PrometheusCollector(Fixed((series,)), losses=Losses(lambda: ()), **options)  # type: ignore[arg-type]
    families = parsed_open_metrics(open_metrics(collector).decode())
    samples = [sample for family in families for sample in family.samples if sample.exemplar]
    return {sample.labels["le"]: (sample.exemplar.labels, sample.exemplar.value) for sample in samples}


THREE = histogram(
    "size",
    0.4,
    0.6,
    9.0,
    exemplars=(Exemplar(0.4, "old", 1.0), Exemplar(0.6, "new", 2.0), Exemplar(9.0, "far", 3.0)),
)


def test_each_bucket_has_its_newest_run_as_its_exemplar() -> None:
    """In the bucket that its value fell into; beyond all bounds that is +Inf."""
    found = exemplars(THREE, bounds={"size": [1.0, 2.0]}, trace_id=lambda run_id: None)
    assert found == {"1.0": ({"run_id": "new"}, 0.6), "+Inf": ({"run_id": "far"}, 9.0)}


def test_an_exemplar_names_the_trace_of_its_run() -> None:
    """Beside the run, if whoever traces it knows one."""
    traces = {"new": "ab" * 16}
    found = exemplars(THREE, bounds={"size": [1.0]}, trace_id=traces.get)
    assert found["1.0"][0] == {"run_id": "new", "trace_id": "ab" * 16}
    assert found["+Inf"][0] == {"run_id": "far"}


def test_an_exemplar_is_no_longer_than_openmetrics_allows() -> None:
    """128 characters of names and values: what has no room is left out, and the answer stays valid."""
    series = histogram("size", 0.5, exemplars=(Exemplar(0.5, "r" * 200, 1.0),))
    found = exemplars(series, bounds={"size": [1.0]}, trace_id=lambda run_id: "ab" * 16)
    assert found == {"1.0": ({"trace_id": "ab" * 16}, 0.5)}


def test_the_text_format_has_no_exemplars() -> None:
    """It knows none, and would not be read."""
    assert "#" not in "".join(shown(THREE))


class Traced:
    """An observer that knows the trace of some runs, as one for OpenTelemetry does."""

    inline = True

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def observe(self, event: ExecutionEvent) -> None: ...

    def headers(self, run_id: str, span: int) -> Mapping[str, str]:
        if run_id == "broken":
            raise RuntimeError("no")
        return {"traceparent": self.traceparent} if run_id == "known" else {}


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("traceparent", "run_id", "found"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", "known", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-00", "known", None),  # not sampled: nobody has it
        (f"00-{TRACE}-00f067aa0ba902b7-01", "another", None),
        (f"00-{TRACE}-00f067aa0ba902b7-01", "broken", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", "known", None),
        ("nonsense", "known", None),
    ],
)
def test_the_trace_is_asked_of_who_propagates_it(traceparent: str, run_id: str, found: str | None) -> None:
    """From the `traceparent` that requests of the run would carry; a tracer that fails costs the link alone."""
    watching = [Observation(MetricsCollector()), Observation(Traced(traceparent))]
    assert trace_of(run_id, lambda: watching) == found


# ---- what telemetry lost ---------------------------------------------------------------------------------------


class Forgetful:
    """An observer that loses things and says so."""

    inline = True

    def __init__(self) -> None:
        self.losses: object = {"disk full": 3}

    def observe(self, event: ExecutionEvent) -> None:
        if event.kind == "bad":
            raise ValueError("no")


def watching(observer: object) -> Observation:
    return Observation(observer)  # type: ignore[arg-type]


def event(kind: str) -> ExecutionEvent:
    return ExecutionEvent(kind, "run", "flow", "", 1, 1, 1.0)


def lost(losses: Losses) -> dict[str, float]:
    told = {each.labels.get("reason", "given"): each.amount for each in losses.series()}
    assert {each.labels["observer"] for each in losses.series()} <= {"Forgetful"}
    return told


def test_what_observers_were_given_and_lost_is_counted() -> None:
    """What they raised at, what they had no room for, and what they say themselves; zeros as well."""
    observation = watching(Forgetful())
    losses = Losses(lambda: [observation])
    for kind in ("good", "bad", "bad"):
        observation.see(event(kind))
    assert lost(losses) == {"given": 3.0, "raised": 2.0, "too slow": 0.0, "disk full": 3.0}


def test_what_a_closed_observer_lost_stays_counted() -> None:
    """A counter never goes back, and two observers of one kind are added up."""
    first, second = watching(Forgetful()), watching(Forgetful())
    there = [first, second]
    losses = Losses(lambda: there)
    first.see(event("bad"))
    assert lost(losses)["raised"] == 1.0
    first.see(event("bad"))
    there.remove(first)
    assert lost(losses) == {"given": 2.0, "raised": 2.0, "too slow": 0.0, "disk full": 6.0}
    assert lost(losses)["raised"] == 2.0


@dataclass(frozen=True)
class Account:
    evicted: int = 4
    failed: int = 5


@pytest.mark.parametrize(
    ("told", "more"), [(Account(), {"evicted": 4.0, "failed": 5.0}), ({"a": "b"}, {}), (None, {}), ("no", {})]
)
def test_losses_may_be_told_in_several_ways(told: object, more: dict[str, float]) -> None:
    """In a mapping or a dataclass; what is neither, or no number, keeps nothing else from being told."""
    observer = Forgetful()
    observer.losses = told
    observation = watching(observer)
    assert lost(Losses(lambda: [observation])) == {"given": 0.0, "raised": 0.0, "too slow": 0.0, **more}


def test_a_flood_of_label_sets_is_bounded_and_shown() -> None:
    """What is beyond the cap is one series, and the number of what went there is shown; others say 0."""
    metrics = MetricsCollector(max_series=10)
    for number in range(1_000):
        metrics.count("flood", labels={"id": str(number)})
    metrics.count("calm")
    written = text(PrometheusCollector(metrics, losses=Losses(lambda: ()))).decode()
    assert written.count("agentflow_flood_total{") == 11
    assert 'agentflow_flood_total{id="other"} 990.0' in written
    assert 'agentflow_series_overflow_total{metric="flood"} 990.0' in written
    assert 'agentflow_series_overflow_total{metric="calm"} 0.0' in written


def test_a_key_in_a_label_comes_out_redacted() -> None:
    """Whatever a program counts by, no key is shown to whoever can fetch metrics."""
    metrics = MetricsCollector()
    metrics.count("rows", labels={"key": "sk-proj-" + "a1B2" * 12})
    assert b"a1B2" not in text(PrometheusCollector(metrics))


# ---- beside other collectors -----------------------------------------------------------------------------------


def test_it_stands_in_a_registry_beside_others() -> None:
    """Registering asks nothing of it; twice with different prefixes is fine."""
    registry = CollectorRegistry(auto_describe=True)
    for prefix in ("one", "two"):
        registry.register(PrometheusCollector(Fixed((counter("rows"),)), prefix=prefix, losses=Losses(lambda: ())))
    assert registry.get_sample_value("one_rows_total") == registry.get_sample_value("two_rows_total") == 1.0


def test_each_question_takes_one_snapshot_and_keeps_nothing() -> None:
    """There is no second bookkeeping: what is shown is what the collector of metrics holds then."""
    asked: Iterator[MetricsSnapshot] = iter([MetricsSnapshot(1.0, (counter("a"),)), MetricsSnapshot(2.0)])

    class Once:
        def snapshot(self) -> MetricsSnapshot:
            return next(asked)

    collector = PrometheusCollector(Once(), losses=Losses(lambda: ()))
    assert b"agentflow_a_total 1.0" in text(collector)
    assert b"agentflow_a_total" not in text(collector)
