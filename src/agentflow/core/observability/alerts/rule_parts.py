"""What a rule looks at, and when that is a reason for an alert, read from a mapping.

    {"metric": "flows_in_flight", "above": 100}                                       ──▶  Metric, Threshold
    {"ratio": {"of": {…}, "to": "model_calls"}, "window": 300, "above": 0.05}         ──▶  Ratio, Threshold
    {"burn_rate": {"bad": {…}, "total": "model_calls", "objective": 0.99}, "above": 14.4}  ──▶  BurnRate, Threshold
    {"metric": "heartbeat", "absent": True}                                           ──▶  Metric, Absent

`where`, `stat` and `window` of the rule hold for each metric in it that does not say otherwise.
"""

from __future__ import annotations

from agentflow.core.observability.alerts.fields import Fields
from agentflow.core.observability.alerts.quantities import BurnRate, Metric, Quantity, Ratio
from agentflow.core.observability.alerts.threshold import WORDS, Absent, Condition, Threshold
from agentflow.errors import ConfigurationError

__all__ = ["COMPARISONS", "QUANTITIES", "read_condition", "read_quantity"]

QUANTITIES = ("metric", "ratio", "burn_rate")
COMPARISONS = (*WORDS, "absent")


def read_quantity(fields: Fields) -> Quantity:
    match _only_one(fields, QUANTITIES):
        case "metric":
            return _metric(fields, "metric", fields)
        case "ratio":
            inner = fields.inner("ratio")
            ratio = Ratio(_part(inner, "of", fields), _part(inner, "to", fields), inner.number("minimum", 0.0))
            inner.finish()
            return ratio
        case _:
            if "window" in fields:
                raise ConfigurationError("window: unknown field beside burn_rate, which has long and short")
            inner = fields.inner("burn_rate")
            rate = BurnRate(
                _part(inner, "bad", fields),
                _part(inner, "total", fields),
                inner.number("objective"),
                inner.seconds("long", 3600.0),
                inner.seconds("short", 300.0),
                inner.number("minimum", 0.0),
            )
            inner.finish()
            return rate


def read_condition(fields: Fields) -> Condition:
    word = _only_one(fields, COMPARISONS)
    if word != "absent":
        return Threshold(WORDS[word], fields.number(word), fields.number("clear") if "clear" in fields else None)
    if not fields.flag("absent"):
        raise fields.misfit("absent", "true")
    if "clear" in fields:
        raise ConfigurationError("clear: unknown field beside absent, which has no limit")
    return Absent()


def _part(fields: Fields, name: str, rule: Fields) -> Metric:
    """A metric as its name, or as a mapping that may say more."""
    if isinstance(fields.get(name), str):
        return _metric(Fields({"metric": fields.get(name)}, f"{fields.path}.{name}"), "metric", rule)
    inner = fields.inner(name)
    metric = _metric(inner, "metric", rule)
    inner.finish()
    return metric


def _metric(fields: Fields, name: str, rule: Fields) -> Metric:
    stat = (fields if "stat" in fields else rule).get("stat")
    if stat is not None and not isinstance(stat, str):
        raise (fields if "stat" in fields else rule).misfit("stat", "a text such as rate or p95")
    windowed = fields if "window" in fields else rule
    for each in (fields, rule):
        each.know("stat", "window", "where")
    return Metric(
        fields.text(name),
        stat,
        windowed.seconds("window", 0.0) if "window" in windowed else None,
        {**rule.labels("where"), **fields.labels("where")},
    )


def _only_one(fields: Fields, names: tuple[str, ...]) -> str:
    found = [name for name in names if name in fields]
    fields.know(*names, "clear")
    if len(found) != 1:
        what = f"{' and '.join(found)} exclude each other" if found else "something is missing"
        raise ConfigurationError(f"{fields.path}: {what}; a rule has exactly one of {', '.join(names)}")
    return found[0]
