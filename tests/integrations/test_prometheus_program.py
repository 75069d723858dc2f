"""A real Prometheus server fetches, stores and answers what we show; promtool finds nothing to complain of.

MetricsCollector ──▶ serve_metrics ◀──every second── prometheus ◀── queries, rules, the dashboard's panels
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT
from tests.support.every_metric import let_everything_happen
from tests.support.prometheus_program import Prometheus, prometheus, promtool

from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.names import METRICS
from agentflow.core.observability.observers import observe
from agentflow.integrations.prometheus import PrometheusCollector, serve_metrics
from agentflow.integrations.prometheus.exposition import text

pytestmark = pytest.mark.service

RULES = ROOT / "docs" / "prometheus-alerts.yml"
DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A server that has fetched several times from a process in which everything happens, again and again."""
    metrics = MetricsCollector(max_series=50)
    with (
        observe(metrics),
        serve_metrics(0, _Lively(metrics)) as ours,
        prometheus(tmp_path_factory.mktemp("prometheus"), scraping=ours.port, rules=[RULES]) as program,
    ):
        program.until("count_over_time(agentflow_flow_runs_total[5m]) > 3")
        yield program


class _Lively:
    """A collector that lets everything happen just before it is asked, so that each fetch finds more."""

    def __init__(self, metrics: MetricsCollector) -> None:
        self._metrics = metrics
        self._collector = PrometheusCollector(metrics, trace_id=lambda run_id: "4bf92f3577b34da6a3ce929d0e0e4736")
        self._fetched = 0

    def collect(self) -> Any:
        self._fetched += 1
        let_everything_happen(self._metrics)
        for number in range(60):
            self._metrics.count("flood", labels={"id": f"{self._fetched}-{number}"})
        self._metrics.count("what does not fit")
        return self._collector.collect()


def test_it_fetches_what_we_show(server: Prometheus) -> None:
    """The target is up, in the format with exemplars, and no fetch has failed."""
    [target] = server.api("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert server.value("agentflow_build_info") == 1.0
    assert server.value("min_over_time(up[5m])") == 1.0


def test_it_answers_rates_and_quantiles(server: Prometheus) -> None:
    """Counters have rates; the median of calls that all took 1.5 s lies in the bucket from 1 s to 2 s."""
    assert server.value('sum(rate(agentflow_model_calls_total{status="ok"}[1m]))') > 0
    median = server.value("histogram_quantile(0.5, sum by (le) (rate(agentflow_attempt_duration_seconds_bucket[1m])))")
    assert 1.0 <= median <= 2.0
    mean = server.value(
        "rate(agentflow_attempt_duration_seconds_sum[1m]) / rate(agentflow_attempt_duration_seconds_count[1m])"
    )
    assert mean == pytest.approx(1.5)


@pytest.mark.parametrize("name", [name for name, kind in METRICS.items() if kind == "histogram"])
def test_buckets_add_up_to_their_count(server: Prometheus, name: str) -> None:
    """For every histogram: +Inf is the count, and a larger bound has as many or more."""
    whole = server.ask(f'agentflow_{name}_bucket{{le="+Inf"}} - ignoring (le) agentflow_{name}_count')
    assert {float(sample["value"][1]) for sample in whole} == {0.0}
    buckets = server.ask(f"sum by (le) (agentflow_{name}_bucket)")
    counts = [float(each["value"][1]) for each in sorted(buckets, key=lambda each: float(each["metric"]["le"]))]
    assert counts == sorted(counts)


def test_it_keeps_exemplars_with_traces(server: Prometheus) -> None:
    """A bucket leads to the trace and the run of the newest call in it."""
    found = server.api(
        "query_exemplars",
        query="agentflow_model_duration_seconds_bucket",
        start="1700000000",
        end="4000000000",
    )
    labels = [exemplar["labels"] for series in found for exemplar in series["exemplars"]]
    assert labels
    assert all(each["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736" and each["run_id"] for each in labels)


def test_it_knows_what_each_metric_means(server: Prometheus) -> None:
    """Every metric that AgentFlow counts is there with its type and its help."""
    told = server.api("metadata")
    for name, kind in METRICS.items():
        # Fetched as OpenMetrics, a counter's family is named without the ending of its samples.
        [meaning] = told[f"agentflow_{name}"]
        assert meaning["type"] == kind
        assert meaning["help"]
        if name.endswith("_seconds"):
            assert meaning["unit"] == "seconds"


def test_what_telemetry_loses_is_seen(server: Prometheus) -> None:
    """Series beyond the cap and samples that fit nothing are counted where they can be alerted on."""
    assert server.value('agentflow_series_overflow_total{metric="flood"}') > 0
    assert server.value('agentflow_samples_refused_total{reason="name"}') > 0
    assert server.ask('agentflow_telemetry_lost_total{observer="MetricsCollector", reason="raised"} == 0')


def test_no_label_names_a_run_or_a_user(server: Prometheus) -> None:
    """What grows without bound is no label."""
    used = set(server.api("labels"))
    assert used & {"run_id", "run", "user", "tenant", "prompt", "path", "url", "trace_id"} == set()


# ---- promtool ------------------------------------------------------------------------------------------------


def test_promtool_finds_nothing_to_complain_of() -> None:
    """`promtool check metrics`: no lint, whatever names the program's own metrics have."""
    metrics = MetricsCollector(max_series=50)
    let_everything_happen(metrics)
    for name in ("ordersPerHour", "rows_total", "a_count", "queue_bucket", "x_sum", "latency_created"):
        metrics.count(name, labels={"userAgent": 'quote " slash \\ line \n end'})
        metrics.gauge(f"{name}_now", 1.0)
    with observe(metrics):
        checked = promtool("check", "metrics", said=text(PrometheusCollector(metrics)))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_shipped_rules_are_valid() -> None:
    """`promtool check rules`, with every lint that it has."""
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_shipped_rules_fire_when_they_should_and_only_then() -> None:
    """`promtool test rules` plays series against them (prometheus_alerts.yml); no rule is left out of it."""
    played = Path(__file__).with_name("prometheus_alerts.yml")
    checked = promtool("test", "rules", played)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    scenes = yaml.safe_load(played.read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for scene in scenes for case in scene["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in _rules() if "alert" in rule}


# ---- what is shipped, asked of the server ----------------------------------------------------------------------


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return panels


PANEL_QUERIES = [(panel["title"], target["expr"]) for panel in _panels() for target in panel.get("targets", ())]


@pytest.mark.parametrize(("title", "query"), PANEL_QUERIES, ids=[title for title, _ in PANEL_QUERIES])
def test_every_panel_has_something_to_show(server: Prometheus, title: str, query: str) -> None:
    """Each query of the dashboard is answered, and not with nothing: its names and labels are those that we export."""
    asked = query.replace("$__rate_interval", "1m").replace("$__range", "1h")
    asked = asked.replace("$flow", ".*").replace("$model", ".*")
    assert "$" not in asked
    if title == "Lost":  # where nothing is lost, nothing is shown
        asked = asked.removesuffix("> 0")
    assert server.until(asked, patience=15)


def test_the_dashboard_s_variables_have_values(server: Prometheus) -> None:
    """`label_values(metric, label)` of each variable finds the flow and the model."""
    listed = json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]
    asked = [re.fullmatch(r"label_values\((\w+), (\w+)\)", each["query"]["query"]) for each in listed[1:]]
    found = [server.api(f"label/{match[2]}/values", **{"match[]": match[1]}) for match in asked if match]
    assert found == [["digest"], ["gpt-4o"]]


def test_every_rule_is_evaluated_without_an_error(server: Prometheus) -> None:
    """The server that has loaded them says so of each."""
    server.until('ALERTS{alertname="AgentFlowTooManySeries"}')
    rules = [rule for group in server.api("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(_rules())
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule.get("lastError")} == {}


def test_the_rules_alert_of_what_happens(server: Prometheus) -> None:
    """A process that spends, fails and has a breaker open is alerted of, by the labels that the rules promise."""
    for alert in ("AgentFlowBreakerOpen", "AgentFlowModelErrors", "AgentFlowTooManySeries"):
        [*alerts] = server.until(f'ALERTS{{alertname="{alert}"}}')
        assert alerts


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_rule_names_only_what_is_exported(server: Prometheus, rule: dict[str, Any]) -> None:
    """A metric that is misspelled would alert of nothing for ever."""
    exported = set(server.api("label/__name__/values"))
    named = set(re.findall(r"\bagentflow[_:][\w:]+", rule["expr"]))
    assert named <= exported | {each["record"] for each in _rules() if "record" in each}
