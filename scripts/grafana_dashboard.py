"""Writes docs/grafana-dashboard.json, the dashboard for what AgentFlow shows to Prometheus.

    python scripts/grafana_dashboard.py         rows of panels, laid out from left to right, as Grafana imports them

The queries stand here, one a line, where they can be read and reviewed; the JSON is made of them. A test holds the two
together, and asks a Prometheus server every query.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACE = Path(__file__).resolve().parent.parent / "docs" / "grafana-dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
FLOW, MODEL = 'flow=~"$flow"', 'model=~"$model"'
DONE, FAILED, ENDED, IN_VAIN = 'status="done"', 'status="failed"', 'status=~"done|failed"', 'status="error"'
CACHED, INPUT = 'direction="cached"', 'direction="input"'
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Query:
    """PromQL, and what each of its lines is called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """`unit` is Grafana's name of one; `wide` of 24 columns. A table and a stat show the value of now."""

    title: str
    says: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    wide: int = 8
    stacked: bool = False
    red_from: float | None = None


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


def rate(metric: str, by: str, *where: str) -> str:
    return f"sum by ({by}) (rate(agentflow_{metric}_total{_only(where)}[{RATE}]))"


def total(metric: str, *where: str, over: str = "$__range") -> str:
    return f"sum(increase(agentflow_{metric}_total{_only(where)}[{over}]))"


def quantile(share: float, metric: str, by: str, *where: str) -> str:
    buckets = f"rate(agentflow_{metric}_seconds_bucket{_only(where)}[{RATE}])"
    return f"histogram_quantile({share}, sum by ({by}, le) ({buckets}))"


def _only(where: Sequence[str]) -> str:
    return f"{{{','.join(where)}}}" if where else ""


def quantiles(metric: str, by: str, *where: str) -> list[Query]:
    return [Query(quantile(share, metric, by, *where), f"p{share * 100:g} {{{{{by}}}}}") for share in (0.5, 0.95)]


OVERVIEW = Row(
    "Overview",
    [
        Panel(
            "Runs",
            "Runs that ended within the range shown.",
            [Query(total("flow_runs", FLOW))],
            kind="stat",
            wide=4,
        ),
        Panel(
            "Runs done",
            "The share of runs that were done, of those that were done or failed.",
            [Query(f"{total('flow_runs', FLOW, DONE)} / {total('flow_runs', FLOW, ENDED)}")],
            unit="percentunit",
            kind="stat",
            wide=4,
        ),
        Panel(
            "Under way",
            "Runs that have begun and not ended.",
            [Query(f"sum(agentflow_flows_in_flight{{{FLOW}}})")],
            kind="stat",
            wide=4,
        ),
        Panel(
            "Spent in the last hour",
            "In US dollars, as far as prices are known.",
            [Query(total("model_cost_dollars", MODEL, over="1h"))],
            unit="currencyUSD",
            kind="stat",
            wide=4,
        ),
        Panel(
            "Breakers open",
            "Circuit breakers that let nothing through.",
            [Query("count(agentflow_breaker_open >= 1) or vector(0)")],
            kind="stat",
            wide=4,
            red_from=1,
        ),
        Panel(
            "Telemetry lost",
            "What observers lost within the range shown: above 0, other numbers here are too small.",
            [Query(f"{total('telemetry_lost')} or vector(0)")],
            kind="stat",
            wide=4,
            red_from=1,
        ),
        Panel("Runs, by how they ended", "A second.", [Query(rate("flow_runs", "status", FLOW), "{{status}}")], "ops"),
        Panel("How long runs take", "Percentiles.", quantiles("flow_duration", "flow", FLOW), "s"),
        Panel(
            "Runs under way",
            "By flow.",
            [Query(f"sum by (flow) (agentflow_flows_in_flight{{{FLOW}}})", "{{flow}}")],
            stacked=True,
        ),
    ],
)

TIME = Row(
    "Where the time went",
    [
        Panel(
            "Of runs, by phase",
            "Seconds of the critical path in each second: what to look at first when something is slow.",
            [Query(rate("wait_seconds", "phase", 'scope="flow"', 'name=~"$flow"'), "{{phase}}")],
            "s",
            wide=12,
            stacked=True,
        ),
        Panel(
            "Of model calls, by phase",
            "Slow because of the limiter, the pool, back-off, or the model itself?",
            [Query(rate("wait_seconds", "phase", 'scope="model"', 'name=~"$model"'), "{{phase}}")],
            "s",
            wide=12,
            stacked=True,
        ),
        Panel(
            "Phases in the range shown",
            "Seconds of all runs together.",
            [
                Query(
                    "sort_desc(sum by (phase) "
                    '(increase(agentflow_wait_seconds_total{scope="flow",name=~"$flow"}[$__range])))',
                    "{{phase}}",
                )
            ],
            "s",
            "bargauge",
        ),
        Panel(
            "Nodes that take most",
            "Seconds of all visits in the range shown.",
            [
                Query(
                    "topk(10, sum by (flow, node) "
                    f"(increase(agentflow_node_duration_seconds_sum{{{FLOW}}}[$__range])))",
                    "{{flow}}/{{node}}",
                )
            ],
            "s",
            "bargauge",
        ),
        Panel("How long nodes take", "Percentiles.", quantiles("node_duration", "node", FLOW), "s"),
    ],
)

MODELS = Row(
    "Models",
    [
        Panel(
            "Calls", "A second.", [Query(rate("model_calls", "model, status", MODEL), "{{model}} {{status}}")], "ops"
        ),
        Panel("How long calls take", "Percentiles, waits included.", quantiles("model_duration", "model", MODEL), "s"),
        Panel(
            "Until the first token",
            "Percentiles, of streamed answers.",
            quantiles("model_first_token", "model", MODEL),
            "s",
        ),
        Panel(
            "Tokens",
            "A second, by direction.",
            [Query(rate("model_tokens", "model, direction", MODEL), "{{model}} {{direction}}")],
        ),
        Panel(
            "Calls under way",
            "By model.",
            [Query(f"sum by (model) (agentflow_model_calls_in_flight{{{MODEL}}})", "{{model}}")],
            stacked=True,
        ),
        Panel(
            "Requests for a call",
            "How many requests to the provider a call took: 1 without retries.",
            [Query(f"{rate('model_attempts', 'model', MODEL)} / {rate('model_calls', 'model', MODEL)}", "{{model}}")],
        ),
        Panel(
            "How long requests take",
            "Percentiles, of single requests.",
            quantiles("attempt_duration", "model", MODEL),
            "s",
        ),
        Panel(
            "Cached input",
            "The share of input tokens that the provider had in its cache.",
            [
                Query(
                    f"{rate('model_tokens', 'model', MODEL, CACHED)} / {rate('model_tokens', 'model', MODEL, INPUT)}",
                    "{{model}}",
                )
            ],
            "percentunit",
        ),
        Panel(
            "Look-ups in caches",
            "A second, by outcome.",
            [Query(rate("cache_lookups", "model, outcome"), "{{model}} {{outcome}}")],
            "ops",
        ),
    ],
)

COST = Row(
    "Cost",
    [
        Panel(
            "Dollars an hour, by model",
            "At the present rate.",
            [Query(f"3600 * {rate('model_cost_dollars', 'model', MODEL)}", "{{model}}")],
            "currencyUSD",
            stacked=True,
        ),
        Panel(
            "Dollars an hour, by flow",
            "At the present rate.",
            [Query(f"3600 * {rate('flow_cost_dollars', 'flow', FLOW)}", "{{flow}}")],
            "currencyUSD",
            stacked=True,
        ),
        Panel(
            "Nodes that cost most",
            "Dollars in the range shown.",
            [
                Query(
                    f"topk(10, sum by (flow, node) (increase(agentflow_node_cost_dollars_total{{{FLOW}}}[$__range])))",
                    "{{flow}}/{{node}}",
                )
            ],
            "currencyUSD",
            "bargauge",
        ),
        Panel(
            "Dollars a run",
            "What a run cost on average.",
            [Query(f"{rate('flow_cost_dollars', 'flow', FLOW)} / {rate('flow_runs', 'flow', FLOW)}", "{{flow}}")],
            "currencyUSD",
        ),
        Panel(
            "Tokens, by node",
            "A second.",
            [Query(rate("node_tokens", "node, direction", FLOW), "{{node}} {{direction}}")],
        ),
        Panel(
            "Saved by caches",
            "Dollars an hour: what the answers had cost that came from a cache.",
            [Query(f"3600 * {rate('cache_saved_dollars', 'model')}", "{{model}}")],
            "currencyUSD",
            stacked=True,
        ),
        Panel(
            "Routes",
            "A second: what was asked for, and who was chosen.",
            [Query(rate("routes", "from, to"), "{{from}} → {{to}}")],
            "ops",
        ),
        Panel(
            "Budgets",
            "Decisions a second, by the kind of account.",
            [Query(rate("budget_decisions", "account, decision"), "{{account}} {{decision}}")],
            "ops",
        ),
        Panel(
            "Requests in one batch",
            "How many requests were sent as one, on average.",
            [Query(f"{rate('batched_requests', 'model')} / {rate('batches', 'model')}", "{{model}}")],
        ),
        Panel(
            "Not in these numbers",
            "Calls whose price is not known, and hedged requests that were paid for in vain; a second.",
            [
                Query(rate("model_unpriced_calls", "model", MODEL), "{{model}} unpriced"),
                Query(rate("model_lost_requests", "model", MODEL), "{{model}} lost"),
            ],
            "ops",
        ),
    ],
)

GUARDS = Row(
    "Errors and guards",
    [
        Panel(
            "Errors",
            "A second, by type.",
            [Query(rate("errors", "scope, error_type"), "{{scope}} {{error_type}}")],
            "ops",
        ),
        Panel(
            "Calls that failed",
            "The share of a model's calls that ended in an error.",
            [
                Query(
                    f"{rate('model_calls', 'model', MODEL, IN_VAIN)} / {rate('model_calls', 'model', MODEL)}",
                    "{{model}}",
                )
            ],
            "percentunit",
        ),
        Panel(
            "Retries",
            "A second: of requests, by error, and of nodes.",
            [
                Query(rate("model_retries", "model, error_type", MODEL), "{{model}} {{error_type}}"),
                Query(rate("node_retries", "node", FLOW), "{{node}}"),
            ],
            "ops",
        ),
        Panel(
            "Circuit breakers",
            "0 closed, 0.5 half open, 1 open; of several processes, the worst.",
            [Query("max by (guard) (agentflow_breaker_open)", "{{guard}}")],
            kind="state-timeline",
        ),
        Panel(
            "Changes of breakers",
            "A second, by the new state.",
            [Query(rate("breaker_transitions", "guard, to"), "{{guard}} {{to}}")],
            "ops",
        ),
        Panel(
            "Refused",
            "Calls that a guard refused; a second.",
            [Query(rate("rejections", "guard, error_type"), "{{guard}} {{error_type}}")],
            "ops",
        ),
        Panel(
            "Waiting for guards",
            "95th percentiles, of those calls that waited.",
            [
                Query(quantile(0.95, f"{what}_wait", "guard"), f"{{{{guard}}}} {what}")
                for what in ("limiter", "shedder", "pool")
            ],
            "s",
        ),
        Panel(
            "Fallbacks and hedges",
            "A second.",
            [
                Query(rate("fallbacks", "from, to"), "{{from}} → {{to}}"),
                Query(rate("hedges", "guard"), "{{guard}} hedged"),
            ],
            "ops",
        ),
        Panel(
            "Tools",
            "Calls a second, and their 95th percentile in seconds.",
            [
                Query(rate("tool_calls", "tool, status"), "{{tool}} {{status}}"),
                Query(quantile(0.95, "tool_duration", "tool"), "{{tool}} p95"),
            ],
        ),
        Panel(
            "Visits of nodes that failed",
            "A second.",
            [Query(rate("node_visits", "flow, node", FLOW, FAILED), "{{flow}}/{{node}}")],
            "ops",
        ),
        Panel(
            "Nodes under way",
            "By node.",
            [Query(f"sum by (flow, node) (agentflow_nodes_in_flight{{{FLOW}}})", "{{flow}}/{{node}}")],
            stacked=True,
        ),
        Panel(
            "Parked, gone on, undone",
            "A second: runs that were parked, runs that went on, and what nodes had done that was undone.",
            [
                Query(rate("flow_interruptions", "flow", FLOW), "{{flow}} parked"),
                Query(rate("flow_resumes", "flow", FLOW), "{{flow}} went on"),
                Query(rate("node_compensations", "node, status", FLOW), "{{node}} undone, {{status}}"),
            ],
            "ops",
        ),
    ],
)

HEALTH = Row(
    "Telemetry health, and how good answers are",
    [
        Panel(
            "Lost",
            "What observers lost in the range shown, by why.",
            [
                Query(
                    "sum by (observer, reason) (increase(agentflow_telemetry_lost_total[$__range])) > 0",
                    "{{observer}} {{reason}}",
                )
            ],
            kind="table",
        ),
        Panel(
            "Events",
            "Given to observers; a second.",
            [Query(rate("telemetry_events", "observer"), "{{observer}}")],
            "ops",
        ),
        Panel(
            "Too many series, or what fitted none",
            "Observations that went to the series `other`, and samples that were refused; a second.",
            [
                Query(f"{rate('series_overflow', 'metric')} > 0", "{{metric}}"),
                Query(rate("samples_refused", "reason"), "refused: {{reason}}"),
            ],
            "ops",
        ),
        Panel(
            "Alerts of AgentFlow's own rules",
            "Changes in the range shown.",
            [
                Query(
                    "sum by (rule, state) (increase(agentflow_alert_transitions_total[$__range]))", "{{rule}} {{state}}"
                )
            ],
            kind="table",
        ),
        Panel(
            "Feedback",
            "The mean score, from 0 to 1.",
            [
                Query(
                    f"sum by (flow) (rate(agentflow_feedback_score_sum{{{FLOW}}}[{RATE}])) / "
                    f"sum by (flow) (rate(agentflow_feedback_score_count{{{FLOW}}}[{RATE}]))",
                    "{{flow}}",
                )
            ],
            "percentunit",
        ),
        Panel("Feedback, by label", "A second.", [Query(rate("feedback", "label"), "{{label}}")], "ops"),
        Panel(
            "Versions",
            "Of AgentFlow, by process.",
            [Query("agentflow_build_info", "{{instance}} {{version}}")],
            kind="table",
            wide=12,
        ),
        Panel(
            "Tokens, by flow",
            "A second.",
            [Query(rate("flow_tokens", "flow, direction", FLOW), "{{flow}} {{direction}}")],
            wide=12,
        ),
    ],
)


def dashboard() -> dict[str, Any]:
    rows = [OVERVIEW, TIME, MODELS, COST, GUARDS, HEALTH]
    return {
        "uid": "agentflow",
        "title": "AgentFlow",
        "description": "What flows and models do, where the time and the money went, and whether telemetry is whole.",
        "tags": ["agentflow", "llm"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_datasource(), _variable("flow", "flow_runs"), _variable("model", "model_calls")]},
        "panels": list(_laid_out(rows)),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _variable(label: str, metric: str) -> dict[str, Any]:
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": f"label_values(agentflow_{metric}_total, {label})",
        "query": {"query": f"label_values(agentflow_{metric}_total, {label})", "refId": label},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _laid_out(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """From left to right, row by row; each panel with a number of its own."""
    number, y = 1, 0
    for row in rows:
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
        }
        number, x, y, high = number + 1, 0, y + 1, 0
        for panel in row.panels:
            if x + panel.wide > 24:
                x, y, high = 0, y + high, 0
            tall = 4 if panel.kind == "stat" else 8
            yield _panel(panel, number, {"h": tall, "w": panel.wide, "x": x, "y": y})
            number, x, high = number + 1, x + panel.wide, max(high, tall)
        y += high


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    now = panel.kind in ("stat", "table", "bargauge")  # the value of now, and no line
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _look(panel), "overrides": []},
        "options": _options(panel.kind),
        "targets": [_target(query, "ABC"[at], now, panel.kind) for at, query in enumerate(panel.queries)],
        **({"transformations": [_COLUMNS]} if panel.kind == "table" else {}),
    }


def _target(query: Query, letter: str, now: bool, kind: str) -> dict[str, Any]:
    return {
        "refId": letter,
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "exemplar": "histogram_quantile" in query.expr,
        "instant": now,
        "range": not now,
        "format": "table" if kind == "table" else "time_series",
    }


def _look(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    drawn = {"stacking": {"mode": "normal" if panel.stacked else "none"}, "fillOpacity": 30 if panel.stacked else 8}
    custom = {"custom": {**drawn, "lineWidth": 1, "showPoints": "never"}} if panel.kind == "timeseries" else {}
    states = {"mappings": _STATES} if panel.kind == "state-timeline" else {}
    return {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}, **custom, **states}


def _options(kind: str) -> dict[str, Any]:
    last = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if kind == "timeseries":
        return {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}}
    if kind == "stat":
        return {**last, "colorMode": "value", "graphMode": "none"}
    if kind == "bargauge":
        return {**last, "orientation": "horizontal", "displayMode": "gradient"}
    return {}


_STATES = [
    {
        "type": "value",
        "options": {
            "0": {"text": "closed", "color": "green", "index": 0},
            "0.5": {"text": "half open", "color": "yellow", "index": 1},
            "1": {"text": "open", "color": "red", "index": 2},
        },
    }
]
_COLUMNS = {"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True}}}


if __name__ == "__main__":
    PLACE.write_text(json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(PLACE)
