"""How good an answer was, said when the run is over: an event of kind `feedback` for all who watch.

    feedback(reply.run_id, score=1.0, label="helpful")  ──▶  run store, metrics, alerts, traces

It belongs to the run by its id alone, so it may come days later and from another process, as long as somebody watches
there: a run store, most often. Within a run a checker says it with `await emit("feedback", verdict(score=…))`.
"""

from __future__ import annotations

import time
from typing import Literal

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.observers import observations
from agentflow.errors import ConfigurationError

__all__ = ["feedback", "verdict"]


def verdict(
    *,
    score: float | None = None,
    label: str | None = None,
    comment: str | None = None,
    source: Literal["user", "checker"] = "checker",
) -> dict[str, object]:
    """The data of a `feedback` event. `score` is from 0 (useless) to 1 (as good as can be), `label` a word of yours.

    Raises ConfigurationError where nothing is said, or the score is none.
    """
    if score is None and not label and not comment:
        raise ConfigurationError("feedback says nothing: give it a score, a label or a comment")
    said = {"score": _score(score), "label": label or None, "comment": comment or None, "source": source}
    return {name: value for name, value in said.items() if value is not None}


def _score(score: object) -> float | None:
    if score is None:
        return None
    if not isinstance(score, int | float) or not 0.0 <= score <= 1.0:  # which NaN is not, either
        raise ConfigurationError(f"a score is a number from 0 to 1, not {score!r}")
    return float(score)


def feedback(
    run_id: str,
    *,
    score: float | None = None,
    label: str | None = None,
    comment: str | None = None,
    span: int | None = None,
    source: Literal["user", "checker"] = "user",
) -> ExecutionEvent:
    """Tell everybody who watches this process how good a run was, or one span of it. Returns the event.

    Raises ConfigurationError for a score that is none, and where nobody watches: what is said to nobody is lost.
    """
    data = verdict(score=score, label=label, comment=comment, source=source)
    if not isinstance(run_id, str) or not run_id:
        raise ConfigurationError(f"feedback belongs to a run: give it the run's id, not {run_id!r}")
    watching = observations()
    if not watching:
        raise ConfigurationError(
            "nobody would keep this feedback: turn the run store on with `observability: {runs: true}` in models.yml, "
            "or with observe(RunStore(…))"
        )
    event = ExecutionEvent("feedback", run_id, "", "", 1, 0, time.time(), data=data, span=span or 0)
    for each in watching:
        each.see(event)
    return event
