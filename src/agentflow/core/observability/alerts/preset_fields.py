"""The rules that are ready to use, as mappings; whoever names one may replace each of its fields.

preset: latency
above: 10           ──▶  the rule `latency` with another limit
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["PRESETS", "with_preset"]

_CALLS: Final = ["provider", "model"]
_FAILED: Final = {"metric": "model_calls", "where": {"status": "error"}}

PRESETS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "latency": {
            "name": "latency",
            "metric": "model_duration_seconds",
            "stat": "p95",
            "window": 300,
            "by": _CALLS,
            "above": 30,
            "clear": 24,
            "for": 60,
            "summary": "Model calls take long.",
        },
        "error-rate": {
            "name": "error-rate",
            "ratio": {"of": _FAILED, "to": "model_calls", "minimum": 10},
            "window": 300,
            "by": _CALLS,
            "above": 0.05,
            "clear": 0.04,
            "for": 60,
            "severity": "critical",
            "summary": "Too many model calls fail.",
        },
        "burn-rate": {
            "name": "burn-rate",
            "burn_rate": {"bad": _FAILED, "total": "model_calls", "objective": 0.99, "minimum": 10},
            "above": 14.4,
            "severity": "critical",
            "summary": "At this rate a month's error budget is gone in two days.",
        },
        "cost-per-hour": {
            "name": "cost-per-hour",
            "metric": "model_cost_dollars",
            "window": 3600,
            "above": 10,
            "summary": "Model calls cost much: dollars of the last hour.",
        },
        "breaker-open": {
            "name": "breaker-open",
            "metric": "breaker_open",
            "by": ["guard"],
            "at_least": 1,
            "clear": 0.5,
            "severity": "critical",
            "summary": "A circuit breaker keeps calls back.",
        },
    }
)
"""`breaker_open` is 1 while a breaker is open and 0.5 while it probes: the alert ends when it is closed."""


def with_preset(name: str, fields: Mapping[str, object], comparisons: tuple[str, ...]) -> dict[str, object]:
    """The preset's fields, and over them those that were given.

    Another limit moves the preset's `clear` along with it; another comparison does away with it.
    """
    base = dict(PRESETS[name])
    given = [each for each in comparisons if fields.get(each) is not None]
    if given:
        word = next(each for each in comparisons if each in base)
        limit, clear = base.pop(word), base.pop("clear", None)
        if given == [word] and "clear" not in fields and clear is not None:
            base["clear"] = _in_proportion(clear, limit, fields[word])
    for quantity in ("ratio", "burn_rate"):
        inner, more = base.get(quantity), fields.get(quantity)
        if isinstance(inner, Mapping) and isinstance(more, Mapping):
            fields = {**fields, quantity: {**inner, **more}}
    return {**base, **fields}


def _in_proportion(clear: object, old: object, new: object) -> object:
    if isinstance(clear, int | float) and isinstance(old, int | float) and isinstance(new, int | float):
        return clear if new == old else new * clear / old
    return None  # what is no number is complained of where it is read
