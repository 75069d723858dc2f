"""What a benchmark found, for the terminal: latencies, what a second brings, what differs, and what to make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from agentflow.mcp.optimization.benchmark import BenchmarkReport
from agentflow.mcp.optimization.benchmark.amounts import between, dollars, of_metric, per_cent, plain, seconds, signed
from agentflow.mcp.optimization.benchmark.comparison import Comparison
from agentflow.mcp.optimization.benchmark.measures import TIMES, Distribution, Measures
from agentflow.mcp.optimization.benchmark.percentiles import Estimate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["print_report"]

_WIDE: Final = 110
_STYLES: Final = {"better": "green", "worse": "red", "same": "dim"}


def print_report(console: Console, report: BenchmarkReport) -> None:
    """Everything but the files' names."""
    wide = console.width >= _WIDE
    console.print(_head(report))
    console.print()
    console.print(_latencies(report, wide))
    console.print()
    console.print(_sums(report))
    for comparison in report.comparisons:
        console.print()
        console.print(_comparison(comparison, wide))
    _print_notes(console, report)


def _head(report: BenchmarkReport) -> Text:
    from rich.text import Text

    setting = report.setting
    return Text.assemble(
        (f"{setting.dataset}", "bold"),
        (
            f"  {setting.arrivals} arrivals, {setting.rate:.3g}/s · {setting.duration:g} s measured after "
            f"{setting.warmup:g} s of warm-up · good: {setting.objective}",
            "dim",
        ),
    )


def _table(titles: Sequence[str]) -> Table:
    """The first column is text, all others are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    columns = [
        Column(title, justify="right" if at else "left", no_wrap=at > 0, overflow="fold")
        for at, title in enumerate(titles)
    ]
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))


def _latencies(report: BenchmarkReport, wide: bool) -> Table:
    """A block a model: its name on the first line where there are several."""
    names = ["p50", "p90", "p95", "p99", "p99.9"] if wide else ["p50", "p90", "p99"]
    table = _table(["", *names, "p99, 95 % interval"])
    for run in report.runs:
        if len(report.runs) > 1:
            table.add_row(_text(run.name, "bold"))
        for time, title in TIMES.items():
            times = run.measures.times[time]
            if times.count:
                table.add_row(title, *(_value(times, name) for name in names), _interval(times))
    return table


def _value(times: Distribution, name: str) -> str:
    return seconds(times.percentiles[name].value)


def _interval(times: Distribution) -> Text:
    return _text(between(times.percentiles["p99"]), "dim")


def _text(words: str, style: str) -> Text:
    from rich.text import Text

    return Text(words, style=style)


def _sums(report: BenchmarkReport) -> Table:
    """A column a model: a fact a line."""
    table = _table(["", *(run.name for run in report.runs)])
    for title, *cells in zip(*map(_facts, [run.measures for run in report.runs]), strict=True):
        named, values = title[0], [title[1], *(cell[1] for cell in cells)]
        if any(value != "–" for value in values):
            table.add_row(_text(named, "dim"), *values)
    return table


def _facts(one: Measures) -> list[tuple[str, str]]:
    quality = [(f"quality: {name}", _ranged(mark)) for name, mark in one.quality.items()]
    return [
        ("requests that count", f"{len(one.counted):,}"),
        ("good", _ranged(one.good_share)),
        ("errors", _ranged(one.error_share)),
        ("goodput, of offered", f"{one.goodput:.3g}/s of {one.offered:.3g}/s"),
        ("answers", f"{one.throughput:.3g}/s"),
        ("output tokens", f"{plain(one.output_throughput)}/s"),
        *quality,
        ("cost", dollars(one.cost)),
        ("a million good tokens", dollars(one.cost_per_million_good)),
    ]


def _ranged(share: Estimate | None) -> str:
    return "–" if share is None else f"{per_cent(share.value)} ({per_cent(share.low)}–{per_cent(share.high)})"


def _comparison(comparison: Comparison, wide: bool) -> Table:
    title = f"{comparison.before} → {comparison.after}"
    table = _table([title, "before", "after", "change", *(["95 % interval"] if wide else []), "p", ""])
    for each in comparison.differences:
        style = _STYLES[each.verdict]
        low, high = signed(each.share(each.low)), signed(each.share(each.high))
        table.add_row(
            each.metric,
            of_metric(each.metric, each.before),
            of_metric(each.metric, each.after),
            _text(signed(each.relative), style),
            *([f"{low} to {high}"] if wide else []),
            "<0.001" if each.holm < 0.001 else f"{each.holm:.3f}",
            _text(each.verdict, style),
        )
    return table


def _print_notes(console: Console, report: BenchmarkReport) -> None:
    lines = [(f"{run.name}: {_errors(run.measures)}", "yellow") for run in report.runs if run.measures.errors]
    lines += [(f"{run.name}: {remark}", "dim") for run in report.runs for remark in run.remarks(report.setting)]
    lines += [(str(verdict), "red" if verdict.failed else "green") for verdict in report.verdicts]
    lines += [(f"not valid: {doubt}", "bold red") for doubt in report.doubts]
    if lines:
        console.print()
    for words, style in lines:
        console.print(_text(words, style))


def _errors(one: Measures) -> str:
    return "errors: " + ", ".join(f"{name} {count:,}" for name, count in one.errors.most_common())
