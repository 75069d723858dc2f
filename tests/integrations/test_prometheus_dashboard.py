"""The shipped dashboard and rules have the shape that Grafana and Prometheus take, and name only what is exported.

That each query is answered by a real server stands in test_prometheus_program.py; this needs no program.
"""

from __future__ import annotations

import json
import re
import runpy
from itertools import combinations
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT
from tests.support.every_metric import let_everything_happen

from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.observers import observe
from agentflow.integrations.prometheus import PrometheusCollector

DASHBOARD: dict[str, Any] = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = (ROOT / "docs" / "prometheus-alerts.yml").read_text(encoding="utf-8")
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The labels of every sample that a process in which everything happens shows."""
    metrics = MetricsCollector()
    let_everything_happen(metrics)
    metrics.count("what fits nowhere")
    with observe(metrics):
        samples = [sample for family in PrometheusCollector(metrics).collect() for sample in family.samples]
    labels: dict[str, set[str]] = {}
    for sample in samples:
        labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def test_the_dashboard_is_the_one_that_its_script_makes() -> None:
    """Whoever changes a query changes it there, and runs `python scripts/grafana_dashboard.py`."""
    assert runpy.run_path(str(ROOT / "scripts" / "grafana_dashboard.py"))["dashboard"]() == DASHBOARD


def test_grafana_can_import_it() -> None:
    """A schema version that it knows; ids and titles that are there once; every query has a place and a letter."""
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in PANELS]
    assert len(titles) == len(set(titles))
    for panel in PANELS:
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(letters) == len(set(letters))
        assert panel["type"] == "row" or letters


def test_no_panel_covers_another() -> None:
    """And none is wider than the page."""
    places = [(panel["title"], panel["gridPos"]) for panel in PANELS]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 and at["w"] > 0 and at["h"] > 0 for _, at in places)
    covered = [
        (one, other)
        for (one, a), (other, b) in combinations(places, 2)
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ]
    assert covered == []


def test_its_rows_are_the_questions_that_are_asked() -> None:
    """What is it doing, why was it slow, what did it cost; what failed, and can these numbers be trusted?"""
    assert [panel["title"] for panel in PANELS if panel["type"] == "row"] == [
        "Overview",
        "Where the time went",
        "Models",
        "Cost",
        "Errors and guards",
        "Telemetry health, and how good answers are",
    ]


def test_every_query_asks_the_chosen_server() -> None:
    """The data source is a variable, as are flow and model; no name of somebody's own server is in the file."""
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == ["datasource", "flow", "model"]
    asked = [part for panel in PANELS for part in (panel, *panel.get("targets", ())) if panel["type"] != "row"]
    assert {part["datasource"]["uid"] for part in asked} == {"${datasource}"}


QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
QUERIES += [rule["expr"] for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_names_only_what_is_exported(exported: dict[str, set[str]], query: str) -> None:
    """Metrics, and the labels that are selected of them."""
    for name, selected in re.findall(r"\b(agentflow_\w+)(?:\{([^}]*)\})?", query):
        assert name in exported
        assert set(re.findall(r"(\w+)\s*=", selected)) <= exported[name] | {"job", "instance"}


def test_everything_that_is_exported_is_shown_somewhere(exported: dict[str, set[str]]) -> None:
    """No metric is counted that no panel shows, but for the means' parts."""
    shown = " ".join(QUERIES)
    ends = ("_total", "_bucket", "_count", "_sum")
    named = {re.sub(rf"({'|'.join(ends)})$", "", name) for name in exported if "rows" not in name}
    assert {name for name in named if name not in shown} == set()
