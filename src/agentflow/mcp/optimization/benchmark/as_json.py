"""Findings as plain data for a file, and a file as measures again, to compare with.

    document(findings)        {"format": …, "config": …, "benchmarks": [{"metrics": …, "aiperf": …, "agentflow": …}], …}
    baseline("before.json")   the measures of a file, each model's under its name

`benchmarks[i].metrics` has GuideLLM's names, `benchmarks[i].aiperf` AIPerf's (see `foreign_names`), and
`benchmarks[i].agentflow` our own, in seconds, from the intended moment. Numbers that do not exist, and those that are
infinite, are null. No prompt and no answer is written down.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from agentflow.errors import DocumentError
from agentflow.mcp.optimization.benchmark.comparison import Comparison
from agentflow.mcp.optimization.benchmark.findings import Findings, Run
from agentflow.mcp.optimization.benchmark.foreign_names import AIPERF, GUIDELLM, aiperf_metrics, guidellm_metrics
from agentflow.mcp.optimization.benchmark.measures import Distribution, Measures, Window
from agentflow.mcp.optimization.benchmark.objective import Objective
from agentflow.mcp.optimization.benchmark.percentiles import Estimate
from agentflow.mcp.optimization.benchmark.record import Record

__all__ = ["FORMAT", "Baseline", "baseline", "document", "plan_of"]

FORMAT: Final = "agentflow.benchmark/1"
_ROW: Final = (
    "index intended sent first last ended held input_tokens output_tokens estimated cost error finish cache_hit worker"
).split()


def document(findings: Findings) -> dict[str, Any]:
    """All of it, requests included."""
    found = {
        "format": FORMAT,
        "metadata": {
            "agentflow_version": version("agentflow-engine"),
            "python_version": platform.python_version(),
            "platform": platform.platform(),
            "names": {"metrics": f"guidellm {GUIDELLM}", "aiperf": f"aiperf {AIPERF}"},
        },
        "config": asdict(findings.setting),
        "valid": findings.valid,
        "doubts": findings.doubts,
        "benchmarks": [_run(run, findings) for run in findings.runs],
        "comparisons": [_comparison(each) for each in findings.comparisons],
        "gates": [asdict(verdict) for verdict in findings.verdicts],
    }
    made: dict[str, Any] = _finite(found)
    return made


def _run(run: Run, findings: Findings) -> dict[str, Any]:
    measures, window = run.measures, run.measures.window
    return {
        "model": run.name,
        "start_time": run.began + window.start,
        "end_time": run.began + window.end,
        "duration": window.seconds,
        "warmup_duration": window.start,
        "cooldown_duration": findings.setting.cooldown,
        "doubts": run.doubts(findings.setting),
        "remarks": run.remarks(findings.setting),
        "metrics": guidellm_metrics(measures),
        "aiperf": aiperf_metrics(measures),
        "agentflow": _ours(run),
        "objective": asdict(measures.objective),
        "marks": {name: {str(index): mark for index, mark in marks.items()} for name, marks in measures.marks.items()},
        "request_fields": _ROW,
        "requests": [[getattr(record, name) for name in _ROW] for record in measures.records],
    }


def _ours(run: Run) -> dict[str, Any]:
    measures = run.measures
    return {
        "times": {name: _distribution(each) for name, each in measures.times.items()},
        "sent_times": {name: _distribution(each) for name, each in measures.sent_times.items()},
        "lag": _distribution(measures.lag),
        "loop_lag": _distribution(run.loop_lag),
        "requests": len(measures.counted),
        "answered": len(measures.answered),
        "good": len(measures.good),
        "outside_the_window": len(measures.records) - len(measures.counted),
        "errors": dict(measures.errors),
        "error_share": _estimate(measures.error_share),
        "good_share": _estimate(measures.good_share),
        "offered": measures.offered,
        "throughput": measures.throughput,
        "goodput": measures.goodput,
        "output_throughput": measures.output_throughput,
        "most_in_flight": measures.most_in_flight,
        "input_tokens": measures.input_tokens,
        "output_tokens": measures.output_tokens,
        "good_tokens": measures.good_tokens,
        "answers_with_estimated_tokens": measures.estimated,
        "cost": measures.cost,
        "cost_per_million_good": measures.cost_per_million_good,
        "quality": {name: _estimate(each) for name, each in measures.quality.items()},
    }


def _distribution(each: Distribution) -> dict[str, Any]:
    percentiles = {name: _estimate(estimate) for name, estimate in each.percentiles.items()}
    return {"count": each.count, "mean": _estimate(each.mean), **percentiles}


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _comparison(each: Comparison) -> dict[str, Any]:
    rows = [{**asdict(row), "verdict": row.verdict, "relative": row.relative} for row in each.differences]
    return {"before": each.before, "after": each.after, "paired": each.paired, "differences": rows}


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(inner) for inner in value]
    return value


# ---- read back -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier run's measures. `plan` tells whether the same requests were made at the same moments."""

    measures: Mapping[str, Measures]
    plan: tuple[object, ...]


_PLAN: Final = ("fingerprint", "arrivals", "rate", "duration", "warmup", "cooldown", "seed")


def plan_of(config: Mapping[str, Any]) -> tuple[object, ...]:
    """What makes two runs' requests the same, one by one."""
    return tuple(config.get(name) for name in _PLAN)


def baseline(path: str | Path) -> Baseline:
    """A file that `document` was written to. Raises DocumentError for another."""
    path = Path(path)
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DocumentError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DocumentError(f"{path}: this is no report of agentflow bench: its format is not {FORMAT}")
    try:
        measures = {each["model"]: _measures(each) for each in found["benchmarks"]}
        return Baseline(measures, plan_of(found["config"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError(f"{path}: the report is damaged: {type(error).__name__}: {error}") from error


def _measures(run: Mapping[str, Any]) -> Measures:
    names = run["request_fields"]
    records = tuple([Record(**dict(zip(names, row, strict=True))) for row in run["requests"]])
    window = Window(run["warmup_duration"], run["warmup_duration"] + run["duration"])
    marks = {name: {int(index): mark for index, mark in given.items()} for name, given in run["marks"].items()}
    return Measures(run["model"], records, window, Objective(**run["objective"]), marks)
