"""What AgentFlow counts, in words, and the bounds of its histograms: one line a metric.

    CATALOGUE["model_duration_seconds"]  ──▶  Entry(help, unit "seconds", bounds 0.1 … 600)

A metric of your own needs no line here: its unit is read from its name, its bounds are those of seconds (or of a score,
where the name says so), and `Bounds` gives it others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from agentflow.errors import ConfigurationError

__all__ = ["CATALOGUE", "UNITS", "Entry", "checked_bounds"]

UNITS: Final = ("seconds", "dollars", "tokens", "bytes", "ratio")
"""Units that a name may end in; Prometheus asks for base units, so there are no milliseconds."""

Bounds = tuple[float, ...]

# Most bounds are 1.5 to 2.5 times the one before: a quantile is off by that at most. They lie where such things last.
_LONG: Final[Bounds] = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_CALL: Final[Bounds] = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_NODE: Final[Bounds] = (0.001, 0.005, 0.025, *_CALL)
_FIRST: Final[Bounds] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0)
_TOOL: Final[Bounds] = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_WAIT: Final[Bounds] = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SCORE: Final[Bounds] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric: what it says of itself, and the upper bounds of its buckets, if it is a histogram."""

    help: str
    bounds: Bounds = _CALL


CATALOGUE: Final[Mapping[str, Entry]] = {
    # counters
    "flow_runs": Entry("Runs of a flow that ended, by how: done, failed or cancelled."),
    "flow_interruptions": Entry("How often runs of a flow were parked, to wait for an answer or a timer."),
    "flow_resumes": Entry("How often runs of a flow went on, after they were parked or their process had died."),
    "node_compensations": Entry("How often what a node had done was undone, by how: done, failed or cancelled."),
    "node_visits": Entry("Visits of a node that ended, by how: done, failed or cancelled."),
    "node_retries": Entry("Attempts at a node's work that were made again."),
    "model_calls": Entry(
        "Calls of a model that ended, by how: ok, error or cancelled. One call may take several attempts."
    ),
    "model_attempts": Entry("Requests to a provider that ended, by how: ok, error or cancelled."),
    "model_retries": Entry("Requests to a provider that were made again, by the error that led to it."),
    "model_tokens": Entry(
        "Tokens used, by direction: input, output, cached (part of input), reasoning (part of output)."
    ),
    "model_cost_dollars": Entry("What calls of a model cost, in US dollars, as far as prices are known."),
    "model_unpriced_calls": Entry("Calls of a model whose price is not known, so whose cost is in no other number."),
    "model_lost_requests": Entry("Hedged requests that lost, and whose tokens were paid for all the same."),
    "node_tokens": Entry("Tokens used by the model calls of a node, by direction."),
    "node_cost_dollars": Entry("What the model calls of a node cost, in US dollars."),
    "flow_cost_dollars": Entry("What the model calls of a flow cost, in US dollars."),
    "flow_tokens": Entry("Tokens used by the model calls of a flow, by direction."),
    "tool_calls": Entry("Calls of a tool that ended, by how: ok, error, cancelled or refused."),
    "errors": Entry("Errors by where they happened (flow, node, model, attempt or tool) and of what type they are."),
    "rejections": Entry("Calls that a guard refused, so that nothing was sent, by the error that said so."),
    "breaker_transitions": Entry("Changes of a circuit breaker's state, by the new one."),
    "fallbacks": Entry("Calls that another model answered in place of the one that was asked."),
    "hedges": Entry("Second requests that were sent because the first was slow."),
    "cache_lookups": Entry("Look-ups in the cache of a model, by outcome: hit or miss."),
    "cache_saved_dollars": Entry("What answers from a cache had cost when they were asked for, in US dollars."),
    "routes": Entry("Choices of a router, by the entry that was asked for and the model that was chosen."),
    "budget_decisions": Entry("What budgets decided, by the kind of account."),
    "batches": Entry("Requests that were sent as one, by why they were sent just then."),
    "batched_requests": Entry("Requests that were sent in one with others."),
    "wait_seconds": Entry("Where the time went, by phase, on the critical path of a flow, a node or a model call."),
    "alert_transitions": Entry("Changes of an alert rule's state, by the new one."),
    "feedback": Entry("Judgements of answers, by their label."),
    # gauges
    "flows_in_flight": Entry("Runs of a flow that are under way."),
    "nodes_in_flight": Entry("Visits of a node that are under way."),
    "model_calls_in_flight": Entry("Calls of a model that are under way."),
    "breaker_open": Entry("State of a circuit breaker: 0 closed, 0.5 half open, 1 open."),
    # histograms
    "flow_duration_seconds": Entry("How long runs of a flow took.", _LONG),
    "node_duration_seconds": Entry("How long visits of a node took.", _NODE),
    "model_duration_seconds": Entry("How long calls of a model took, waiting and attempts included.", _CALL),
    "model_first_token_seconds": Entry("How long it took until the first piece of a streamed answer came.", _FIRST),
    "tool_duration_seconds": Entry("How long calls of a tool took.", _TOOL),
    "limiter_wait_seconds": Entry("How long calls waited for a rate limit.", _WAIT),
    "shedder_wait_seconds": Entry("How long calls waited to be let in by a load shedder.", _WAIT),
    "pool_wait_seconds": Entry("How long calls waited for a connection or another thing of a pool.", _WAIT),
    "attempt_duration_seconds": Entry("How long single requests to a provider took.", _CALL),
    "feedback_score": Entry("How good answers were judged to be, from 0 to 1.", _SCORE),
    # telemetry about telemetry
    "build_info": Entry("The version of AgentFlow; the value is always 1."),
    "series_overflow": Entry("Observations that went to the series `other`, since a metric had too many label sets."),
    "samples_refused": Entry("Samples that no metric could take, by why: its name, kind, labels or value did not fit."),
    "telemetry_events": Entry("Events that an observer was given."),
    "telemetry_lost": Entry(
        "What an observer lost, by why. Anything above 0 means that numbers elsewhere are too small."
    ),
}


def checked_bounds(bounds: Sequence[float]) -> Bounds:
    """Upper bounds of buckets: finite and growing; +Inf is added by itself. Raises ConfigurationError."""
    checked = tuple([float(bound) for bound in bounds])
    growing = all(low < high for low, high in pairwise(checked))
    if not checked or not growing or not all(math.isfinite(bound) for bound in checked):
        raise ConfigurationError(f"bounds of buckets must be finite numbers that grow, not {list(bounds)}")
    if len(checked) > 100:
        raise ConfigurationError(f"{len(checked)} buckets are too many: each is a series of its own; 100 are allowed")
    return checked
