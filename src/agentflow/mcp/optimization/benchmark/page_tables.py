"""The report's tables: every percentile with its interval, errors by type, and how the generator itself kept time."""

from __future__ import annotations

from collections.abc import Sequence

from agentflow.mcp.optimization.benchmark.amounts import between, per_cent, plain, seconds
from agentflow.mcp.optimization.benchmark.findings import Findings, Run
from agentflow.mcp.optimization.benchmark.markup import Markup, element
from agentflow.mcp.optimization.benchmark.measures import PERCENTILES, TIMES, Measures
from agentflow.mcp.optimization.benchmark.page_parts import COLOURS, figure, named, scrolling, section
from agentflow.mcp.optimization.benchmark.percentiles import Estimate
from agentflow.mcp.optimization.benchmark.plots import Line, percentile_plot

__all__ = ["errors_section", "generator_section", "numbers_section"]


def numbers_section(findings: Findings) -> Markup | None:
    columns = [*PERCENTILES, "mean"]
    rows = []
    for number, run in enumerate(findings.runs):
        for time, title in TIMES.items():
            times = run.measures.times[time]
            cells = [times.percentiles.get(name) for name in PERCENTILES] + [times.mean]
            rows.append(
                element(
                    "tr",
                    element("th", named(number, run.name)),
                    element("td", title),
                    element("td", plain(times.count), class_="number"),
                    [element("td", _told(cell), class_="number") for cell in cells],
                )
            )
    head = [element("th", name, class_="number") for name in ("values", *columns)]
    table = element(
        "table",
        element(
            "thead",
            element("tr", element("th", "model"), element("th", ""), head),
        ),
        element("tbody", rows),
    )
    return section(
        "Percentiles",
        "Below each its 95% interval, by order statistics, widened where neighbours depend on each other (batch "
        "means). ≥ stands where too few values lie beyond a percentile to bound it.",
        scrolling(table),
    )


def _told(cell: Estimate | None) -> list[str] | str:
    if cell is None:
        return "–"
    bounded = cell.low is not None or cell.high is not None
    return [seconds(cell.value), *([element("small", between(cell))] if bounded else [])]


def errors_section(measures: Sequence[Measures]) -> Markup | None:
    rows = [
        element(
            "tr",
            element("th", named(number, one.name)),
            element("td", element("code", name)),
            element("td", f"{count:,}", class_="number"),
            element("td", per_cent(count / len(one.counted)), class_="number"),
        )
        for number, one in enumerate(measures)
        for name, count in one.errors.most_common()
    ]
    if not rows:
        return None
    return section("Errors", "Of the requests that count.", scrolling(element("table", element("tbody", rows))))


def generator_section(findings: Findings) -> Markup | None:
    setting = findings.setting
    lines = [
        Line(f"{run.name}: {what}", number % COLOURS, lags, dashed=what == "event loop")
        for number, run in enumerate(findings.runs)
        for what, lags in (("sending", run.measures.lag), ("event loop", run.loop_lag))
    ]
    rows = [_generated(number, run) for number, run in enumerate(findings.runs)]
    titles = (
        "model",
        "sent",
        "counted",
        "most under way",
        "input tokens",
        "output tokens",
        "tokens/s",
        "lag p99",
        "loop lag p99",
    )
    head = [element("th", title, class_="number" if index else None) for index, title in enumerate(titles)]
    workers = f"{setting.workers} load process{'es' * (setting.workers != 1)}" if setting.workers else "this process"
    return section(
        "The load generator",
        f"Sent by {workers}, at most {setting.max_in_flight:,} under way, seed {setting.seed}, "
        f"{'with' if setting.guards else 'without'} the client's guards. How late it sent (solid) and how late its "
        f"event loop woke (dashed): beyond {seconds(setting.max_lag)} at the 99th percentile the run is not valid.",
        element("div", figure("its own lag", percentile_plot(lines, bound=setting.max_lag)), class_="pair"),
        scrolling(element("table", element("thead", element("tr", head)), element("tbody", rows))),
    )


def _generated(number: int, run: Run) -> Markup:
    one = run.measures
    lags = [each.percentiles["p99"].value if each.count else None for each in (one.lag, run.loop_lag)]
    cells = [
        plain(sum(record.sent is not None for record in one.records)),
        plain(len(one.counted)),
        plain(one.most_in_flight),
        plain(one.input_tokens),
        plain(one.output_tokens),
        plain(one.output_throughput),
        *map(seconds, lags),
    ]
    return element(
        "tr",
        element("th", named(number, run.name)),
        [element("td", cell, class_="number") for cell in cells],
    )
