"""docs/metrics.md names every metric with its labels, and no other: held against what a busy moment leaves behind."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.every_metric import let_everything_happen

from agentflow.clock import VirtualClock
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.names import LABELS, METRICS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
BOOKKEEPING = {"series_overflow": {"metric"}, "samples_refused": {"reason"}}


def tables() -> dict[str, tuple[str, set[str]]]:
    """The metrics of the page by name: the kind that heads their table, and their labels."""
    found, kind = {}, ""
    for line in PAGE.splitlines():
        if head := re.match(r"\| (counter|gauge|histogram) \|", line):
            kind = head[1]
        elif row := re.match(r"\| `(\w+)` \| ([\w, ]+) \|", line):
            if kind:
                found[row[1]] = (kind, set(row[2].split(", ")))
        elif not line.startswith("|"):
            kind = ""
    return found


def test_the_page_names_every_metric_and_its_kind() -> None:
    assert {name: kind for name, (kind, _) in tables().items()} == METRICS


def test_the_page_names_the_labels_of_each() -> None:
    metrics = MetricsCollector(clock=VirtualClock())
    let_everything_happen(metrics)
    seen: dict[str, set[str]] = {**BOOKKEEPING}
    for series in metrics.snapshot().series:
        seen.setdefault(series.name, set()).update(series.labels)
    assert {name: labels for name, (_, labels) in tables().items()} == {name: seen[name] for name in METRICS}


def test_what_alerts_know_of_labels_is_what_the_page_says() -> None:
    assert {name: labels for name, (_, labels) in tables().items()} == {name: set(LABELS[name]) for name in LABELS}
