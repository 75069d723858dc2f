"""Rules that look at what nobody may ever count, because the name of a metric or of a label is misspelt.

    doubts([AlertRule("x", Metric("flow_run"), …)])
        ──▶  the alert rule x looks at the metric flow_run, which AgentFlow does not count; did you mean flow_runs?
    doubts([AlertRule("x", Metric("model_calls"), …, by=("modle",))])
        ──▶  the alert rule x has modle in `by`, which is no label of model_calls; did you mean model?

It is no error: a metric of one's own may have any name and any labels. But a rule that looks at a wrong name never
fires, one without its label in `by` takes everything together, and that should not stay unsaid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Final

from agentflow.core.observability.alerts.quantities import BurnRate, Metric, Quantity, Ratio
from agentflow.core.observability.alerts.rule import AlertRule
from agentflow.core.observability.metrics.names import LABELS, METRICS

__all__ = ["doubts"]

_CLOSE: Final = 0.8


def doubts(rules: Sequence[AlertRule]) -> Iterator[str]:
    """A sentence for each name that is almost that of a metric, and for each label that a metric of ours has not."""
    for rule in rules:
        for name in sorted({metric.name for metric in _metrics(rule.quantity)} - METRICS.keys()):
            if near := get_close_matches(name, METRICS, n=1, cutoff=_CLOSE):
                yield (
                    f"the alert rule {rule.name} looks at the metric {name}, which AgentFlow does not count; "
                    f"did you mean {near[0]}?"
                )
        yield from dict.fromkeys(_label_doubts(rule))


def _label_doubts(rule: AlertRule) -> Iterator[str]:
    for metric in _metrics(rule.quantity):
        known = LABELS.get(metric.name)
        if known is None:
            continue
        for field, labels in (("by", rule.by), ("where", metric.where)):
            for label in labels:
                if label not in known:
                    yield (
                        f"the alert rule {rule.name} has {label} in `{field}`, which is no label of {metric.name}; "
                        f"{_instead(label, known)}"
                    )


def _instead(label: str, known: Sequence[str]) -> str:
    near = get_close_matches(label, known, n=1)
    return f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"


def _metrics(quantity: Quantity) -> tuple[Metric, ...]:
    match quantity:
        case Metric():
            return (quantity,)
        case Ratio(of=first, to=second) | BurnRate(bad=first, total=second):
            return (first, second)
    return ()
