"""What it means for a run's row that a further stretch of it begins: how long nobody ran it, and where its time went.

    stretch 0  ├──── 40 s ────┤ parked                          ended = 40
    stretch 1                          ├── 5 s ──┤ done         began at 3640: parked += 3600

    go_on(connection, number, news)         before the row is changed: the news get to know what the row says
    cancel(connection, number, at)          nobody was running it, and it was ended for good

The time between is `waiting` where the run was parked, and `stopped` where its process died, or was told to stop. A
process that died did not say when: what was last heard of it counts.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from agentflow.core.observability.attribution import Parts, merged
from agentflow.core.observability.store.cleaning import to_json
from agentflow.core.observability.store.rows import CANCEL_RUN
from agentflow.core.observability.store.tally import News

__all__ = ["cancel", "go_on"]

_STANDING: Final = (
    "SELECT stretch, status, coalesce(ended, seen - started), started, breakdown FROM runs WHERE number = ?"
)


def go_on(connection: sqlite3.Connection, number: int, news: News) -> None:
    """`news` are those of a later stretch than the first. They get to know how long nobody ran the run before it, and
    where all of its time went until now."""
    [[stretch, status, until, _, breakdown]] = connection.execute(_STANDING, (number,))
    if news.stretch < stretch:
        return  # of a process that did not know that another one had gone on with its run
    if news.began is not None:
        news.parked = max(0.0, news.began - until)
    if news.parked or news.breakdown is not None:
        news.breakdown = merged(_known(breakdown), _between(status, news.parked), news.breakdown or {})


def cancel(connection: sqlite3.Connection, number: int, at: float) -> None:
    """`at` is wall time. Nothing happens to a run that has ended."""
    [[_, status, until, started, breakdown]] = connection.execute(_STANDING, (number,))
    parked = max(0.0, at - started - until)
    parts = to_json(merged(_known(breakdown), _between(status, parked)))
    connection.execute(CANCEL_RUN, {"number": number, "at": at, "parked": parked, "breakdown": parts})


def _known(breakdown: str | None) -> Parts:
    return json.loads(breakdown) if breakdown else {}


def _between(status: str, seconds: float) -> Parts:
    return {"waiting" if status == "waiting" else "stopped": seconds} if seconds else {}
