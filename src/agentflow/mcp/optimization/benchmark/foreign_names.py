"""The same numbers under the names, units and definitions of GuideLLM and AIPerf, for what reads their reports.

    guidellm_metrics(measures)   {"time_to_first_token_ms": {"successful": {"mean": …, "percentiles": {"p99": …}}}, …}
    aiperf_metrics(measures)     {"time_to_first_token": {"unit": "ms", "avg": …, "p99": …}, …}

Names were taken from the packages themselves: guidellm 0.8.1 (`benchmark/schemas/metrics.py`, `schemas/base/`) and
aiperf 0.13.0 (`common/models/export_models.py`, schema 1.4, and the tags in `metrics/types/`). So were the definitions:
both count latencies from the moment a request was *sent*. What counts from the intended one has a name of GuideLLM's
as well, `request_scheduled_latency`, and stands under `agentflow` in full. Percentiles are by nearest rank, as
GuideLLM's; AIPerf interpolates between two values.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from agentflow.mcp.optimization.benchmark.measures import Measures
from agentflow.mcp.optimization.benchmark.percentiles import mean, percentile, quantile
from agentflow.mcp.optimization.benchmark.record import UNFINISHED, Record

__all__ = ["AIPERF", "GUIDELLM", "aiperf_metrics", "guidellm_metrics"]

GUIDELLM: Final = "0.8.1"
AIPERF: Final = "0.13.0"

_GUIDELLM_PERCENTILES: Final = {
    "p001": 0.001,
    "p01": 0.01,
    "p05": 0.05,
    "p10": 0.1,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p999": 0.999,
}
_AIPERF_PERCENTILES: Final = (1, 5, 10, 25, 50, 75, 90, 95, 99)

Value = Callable[[Record], "float | None"]


def _ms(value: Value) -> Value:
    def milliseconds(record: Record) -> float | None:
        found = value(record)
        return None if found is None else found * 1000.0

    return milliseconds


def _between_tokens(record: Record) -> float | None:
    """GuideLLM's inter-token latency: from the first token to the last, not to the end of the stream."""
    if record.first is None or record.last is None or record.output_tokens < 2:
        return None
    return (record.last - record.first) / (record.output_tokens - 1)


def _per_token(record: Record) -> float | None:
    """GuideLLM's time per output token counts the first one in."""
    if record.last is None or record.sent is None or not record.output_tokens:
        return None
    return (record.last - record.sent) / record.output_tokens


_REQUESTS: Final[Mapping[str, Value]] = {
    "request_latency": lambda record: record.sent_e2e,
    "request_scheduled_latency": lambda record: record.e2e,
    "request_dispatch_delay": lambda record: None if record.sent is None else record.sent - record.intended,
    "prompt_token_count": lambda record: record.input_tokens,
    "output_token_count": lambda record: record.output_tokens,
    "total_token_count": lambda record: record.input_tokens + record.output_tokens,
    "time_to_first_token_ms": _ms(lambda record: record.sent_ttft),
    "time_per_output_token_ms": _ms(_per_token),
    "inter_token_latency_ms": _ms(_between_tokens),
}
"""GuideLLM's metrics that a single request has."""


def guidellm_metrics(measures: Measures) -> dict[str, Any]:
    """What GuideLLM's report holds as `benchmarks[i].metrics`, as far as we measure it."""
    unfinished = measures.errors[UNFINISHED]
    successful, total = len(measures.answered), len(measures.counted)
    errored = total - successful - unfinished
    metrics: dict[str, Any] = {
        "request_totals": _by_status(successful, errored, unfinished, total),
        "requests_per_second": {"successful": {"mean": measures.throughput}},
        "output_tokens_per_second": {"successful": {"mean": measures.output_throughput}},
        "request_goodput": {"successful": {"mean": measures.goodput}},
        "slo_attainment": None if measures.good_share is None else measures.good_share.value,
        "slo_determined_requests": total,
    }
    for name, value in _REQUESTS.items():
        metrics[name] = {"successful": _guidellm_summary(_told(measures.answered, value))}
    return metrics


def _by_status(successful: int, errored: int, incomplete: int, total: int) -> dict[str, int]:
    return {"successful": successful, "errored": errored, "incomplete": incomplete, "total": total}


def _told(records: Iterable[Record], value: Value) -> list[float]:
    return [found for record in records if (found := value(record)) is not None and math.isfinite(found)]


def _guidellm_summary(values: Sequence[float]) -> dict[str, Any] | None:
    """`values` are in the order of time, one a request."""
    if not values:
        return None
    ordered, groups, average = sorted(values), [(value,) for value in values], mean(values)
    intervals = {name: percentile(ordered, p, groups) for name, p in _GUIDELLM_PERCENTILES.items()}
    return {
        "mean": average.value,
        "median": quantile(ordered, 0.5),
        "mode": statistics.mode(ordered),
        "variance": statistics.pvariance(values),
        "std_dev": statistics.pstdev(values),
        "min": ordered[0],
        "max": ordered[-1],
        "count": len(values),
        "total_sum": math.fsum(values),
        "percentiles": {name: each.value for name, each in intervals.items()},
        "mean_ci": _interval(average.low, average.high),
        "percentile_cis": {name: _interval(each.low, each.high) for name, each in intervals.items()},
    }


def _interval(low: float | None, high: float | None) -> dict[str, float] | None:
    return None if low is None or high is None else {"lower": low, "upper": high}


# ---- AIPerf --------------------------------------------------------------------------------------------------


_RECORD_METRICS: Final[Mapping[str, tuple[str, Value]]] = {
    "request_latency": ("ms", _ms(lambda record: record.sent_e2e)),
    "time_to_first_token": ("ms", _ms(lambda record: record.sent_ttft)),
    "inter_token_latency": ("ms", _ms(lambda record: record.tpot)),
    "output_sequence_length": ("tokens", lambda record: record.output_tokens),
    "input_sequence_length": ("tokens", lambda record: record.input_tokens),
}
"""AIPerf's metrics that a single request has: their unit and value."""


def aiperf_metrics(measures: Measures) -> dict[str, Any]:
    """What AIPerf's JSON export holds at its top, as far as we measure it."""
    answered, window = measures.answered, measures.window.seconds
    metrics: dict[str, Any] = {
        name: _aiperf_summary(unit, _told(answered, value)) for name, (unit, value) in _RECORD_METRICS.items()
    }
    gaps = [gap * 1000.0 for record in answered for gap in record.gaps]
    metrics["inter_chunk_latency"] = _aiperf_summary("ms", gaps)
    numbers = {
        "request_throughput": ("requests/sec", measures.throughput),
        "output_token_throughput": ("tokens/sec", measures.output_throughput),
        "goodput": ("requests/sec", measures.goodput),
        "request_count": ("requests", len(answered)),
        "good_request_count": ("requests", len(measures.good)),
        "error_request_count": ("requests", len(measures.counted) - len(answered)),
        "total_output_tokens": ("tokens", measures.output_tokens),
        "benchmark_duration": ("sec", window),
    }
    for name, (unit, number) in numbers.items():
        metrics[name] = {"unit": unit, "avg": number}
    return metrics


def _aiperf_summary(unit: str, values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {
        "unit": unit,
        "avg": math.fsum(values) / len(values),
        **{f"p{share}": quantile(ordered, share / 100.0) for share in _AIPERF_PERCENTILES},
        "min": ordered[0],
        "max": ordered[-1],
        "std": statistics.pstdev(values),
        "count": len(values),
        "sum": math.fsum(values),
    }
