"""Rules that are ready to use: for slow calls, failing calls, spending, and open breakers.

    latency(above=10)                                  in code
    {"preset": "latency", "above": 10}                 as a mapping, and so in YAML

Both are the same rule. In a mapping every field of the rule may be replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentflow.core.observability.alerts.rule import AlertRule

__all__ = ["breaker_open", "burn_rate", "cost_per_hour", "error_rate", "latency"]

_CALLS = ("provider", "model")


def latency(
    *,
    above: float = 30.0,
    clear: float | None = None,
    metric: str = "model_duration_seconds",
    stat: str = "p95",
    window: float = 300.0,
    by: Sequence[str] = _CALLS,
    where: Mapping[str, str] = {},
    for_: float = 60.0,
    severity: str = "warning",
    name: str = "latency",
) -> AlertRule:
    """Calls are slow: a percentile of their seconds over the last minutes, for each model. It clears at four fifths of
    the limit."""
    return _rule(
        "latency",
        above=above,
        **({} if clear is None else {"clear": clear}),
        metric=metric,
        stat=stat,
        window=window,
        by=list(by),
        where=dict(where),
        severity=severity,
        name=name,
        **{"for": for_},
    )


def error_rate(
    *,
    above: float = 0.05,
    clear: float | None = None,
    minimum: float = 10.0,
    window: float = 300.0,
    by: Sequence[str] = _CALLS,
    where: Mapping[str, str] = {},
    for_: float = 60.0,
    severity: str = "critical",
    name: str = "error-rate",
) -> AlertRule:
    """Calls fail: the share of them in the last minutes, for each model, once there were `minimum` calls. It clears at
    four fifths of the limit."""
    return _rule(
        "error-rate",
        above=above,
        **({} if clear is None else {"clear": clear}),
        ratio={"minimum": minimum},
        window=window,
        by=list(by),
        where=dict(where),
        severity=severity,
        name=name,
        **{"for": for_},
    )


def burn_rate(
    *,
    objective: float = 0.99,
    above: float = 14.4,
    long: float = 3600.0,
    short: float = 300.0,
    minimum: float = 10.0,
    by: Sequence[str] = (),
    where: Mapping[str, str] = {},
    severity: str = "critical",
    name: str = "burn-rate",
) -> AlertRule:
    """So many calls fail that the error budget of `objective` is used up `above` times as fast as it may be, over the
    long window and the short one. (The Site Reliability Workbook, chapter 5.)"""
    return _rule(
        "burn-rate",
        above=above,
        burn_rate={"objective": objective, "long": long, "short": short, "minimum": minimum},
        by=list(by),
        where=dict(where),
        severity=severity,
        name=name,
    )


def cost_per_hour(
    *,
    above: float = 10.0,
    by: Sequence[str] = (),
    where: Mapping[str, str] = {},
    severity: str = "warning",
    name: str = "cost-per-hour",
) -> AlertRule:
    """Model calls cost much: dollars of the last hour, all models together."""
    return _rule("cost-per-hour", above=above, by=list(by), where=dict(where), severity=severity, name=name)


def breaker_open(
    *,
    by: Sequence[str] = ("guard",),
    where: Mapping[str, str] = {},
    for_: float = 0.0,
    severity: str = "critical",
    name: str = "breaker-open",
) -> AlertRule:
    """A circuit breaker is open. It is resolved when the breaker is closed; one that probes counts as open still."""
    return _rule("breaker-open", by=list(by), where=dict(where), severity=severity, name=name, **{"for": for_})


def _rule(preset: str, **fields: object) -> AlertRule:
    return AlertRule.from_mapping({"preset": preset, **fields})
