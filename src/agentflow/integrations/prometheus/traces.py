"""Which trace a run belongs to, asked of whoever traces it, so that a bucket of a histogram leads to a trace.

    trace_of("1998f3c2a41…")  ──▶  headers(run, 0) of an observer that propagates  ──▶  traceparent: 00-4bf9…4736-…-01

It is asked when metrics are fetched, and only for the few runs that are exemplars then: a run pays nothing for it. A
trace that was not sampled is nowhere to be found, so it is not named; nor is one that its observer has forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from agentflow.core.observability.observers import Observation, observations

__all__ = ["trace_of"]

_SAMPLED: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f][13579bdf](?:-.*)?")


def trace_of(run_id: str, watching: Callable[[], Iterable[Observation]] = observations) -> str | None:
    """The id of the run's trace (W3C Trace Context), from the first observer of this process that knows it."""
    for observation in watching():
        found = _SAMPLED.fullmatch(_traceparent(observation, run_id))
        if found is not None:
            return found[1]
    return None


def _traceparent(observation: Observation, run_id: str) -> str:
    if observation.propagator is not None:
        with suppress(Exception):  # a tracer's fault costs the link, not the metrics
            return observation.propagator.headers(run_id, 0).get("traceparent", "")
    return ""
