"""Keeps alerts from being told for a while: those whose labels match.

    Silence({"rule": "latency", "model": "gpt-4*"}, until=…)

Every name must match; `rule` and `severity` may be named like labels. `*`, `?` and `[…]` stand for what they stand for
in file names. A silence changes what is told, and nothing else: states go on, and are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from agentflow.core.observability.alerts.fields import Fields

__all__ = ["Silence", "read_silence"]


@dataclass(frozen=True, slots=True, eq=False)
class Silence:
    """`until` is in seconds of the clock that evaluation goes by, which never goes back. One that matches nothing in
    particular (`{}`) silences everything."""

    match: Mapping[str, str]
    until: float
    reason: str = ""

    def covers(self, labels: Mapping[str, str], now: float) -> bool:
        """Whether it keeps back an alert of these labels, `rule` and `severity` among them."""
        return now < self.until and all(
            fnmatchcase(labels.get(name, ""), pattern) for name, pattern in self.match.items()
        )


def read_silence(mapping: object, path: str, *, now: float, time: float) -> Silence:
    """`{match: {rule: latency}, for: 2h}`, or with `until:` and a date and time of ISO 8601 with its time zone.

    `now` is the time of the evaluation's clock, `time` wall time: what comes to be read as a date is kept as a
    duration, so that a wall clock that is set does no harm afterwards.
    """
    fields = Fields(mapping, path)
    match, reason = fields.labels("match"), fields.text("reason", " ").strip()
    if ("for" in fields) == ("until" in fields):
        raise fields.misfit("for", "a duration, or in its place until: a date and time")
    seconds = fields.seconds("for", 0.0) if "for" in fields else _moment(fields) - time
    fields.know("for", "until")
    fields.finish()
    return Silence(match, now + seconds, reason)


def _moment(fields: Fields) -> float:
    allowed = "a date and time with its zone, such as 2026-12-01T08:00:00Z"
    try:
        moment = datetime.fromisoformat(fields.text("until"))
    except ValueError:
        raise fields.misfit("until", allowed) from None
    if moment.tzinfo is None:
        raise fields.misfit("until", allowed)
    return moment.timestamp()
