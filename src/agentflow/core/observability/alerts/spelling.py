"""Rules that look at a metric which nobody may ever count, because its name is misspelt.

    doubts([AlertRule("x", Metric("flow_run"), …)])
        ──▶  the alert rule x looks at the metric flow_run, which AgentFlow does not count; did you mean flow_runs?

It is no error: a metric of one's own may have any name. But such a rule never fires, and that should not stay unsaid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Final

from agentflow.core.observability.alerts.quantities import BurnRate, Metric, Quantity, Ratio
from agentflow.core.observability.alerts.rule import AlertRule
from agentflow.core.observability.metrics.names import METRICS

__all__ = ["doubts"]

_CLOSE: Final = 0.8


def doubts(rules: Sequence[AlertRule]) -> Iterator[str]:
    """A sentence for each name that is almost that of a metric."""
    for rule in rules:
        for name in sorted({metric.name for metric in _metrics(rule.quantity)} - METRICS.keys()):
            if near := get_close_matches(name, METRICS, n=1, cutoff=_CLOSE):
                yield (
                    f"the alert rule {rule.name} looks at the metric {name}, which AgentFlow does not count; "
                    f"did you mean {near[0]}?"
                )


def _metrics(quantity: Quantity) -> tuple[Metric, ...]:
    match quantity:
        case Metric():
            return (quantity,)
        case Ratio(of=first, to=second) | BurnRate(bad=first, total=second):
            return (first, second)
    return ()
