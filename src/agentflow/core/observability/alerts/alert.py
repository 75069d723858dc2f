"""What an alert says: which rule, of what, how bad, since when."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from agentflow.core.observability.alerts.states import AlertState

__all__ = ["Alert", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule, for what it watches, at the moment at which its state changed or somebody is reminded of it.

    `value` is what was measured, None where nothing was. `labels` are those of what is watched and those of the rule.
    `message` says all this in one line. `fingerprint` is the same for all that is ever said of this rule and these
    labels; `id` is this message's own (empty where
    nobody was told anything). `time` is wall time in seconds since 1970, and `since` when it began to be
    pending, to fire or to lack data (for one that is resolved: when that had begun). `repeated` is True for reminders,
    `silenced` where a silence keeps it from whoever would have been told.
    """

    rule: str
    state: AlertState
    previous: AlertState
    severity: str
    value: float | None
    labels: Mapping[str, str]
    message: str
    fingerprint: str
    id: str
    time: float
    since: float
    repeated: bool = False
    silenced: bool = False
    summary: str = ""
    actions: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def finite_value(self) -> float | None:
        """`value` where JSON can hold it."""
        return self.value if self.value is not None and math.isfinite(self.value) else None

    def to_json(self) -> dict[str, object]:
        """As JSON can hold it; what webhooks and commands get."""
        return {
            "id": self.id,
            "rule": self.rule,
            "state": self.state.value,
            "previous": self.previous.value,
            "severity": self.severity,
            "value": self.finite_value,
            "labels": dict(self.labels),
            "message": self.message,
            "summary": self.summary,
            "fingerprint": self.fingerprint,
            "time": self.time,
            "since": self.since,
            "repeated": self.repeated,
        }


def fingerprint(rule: str, labels: Mapping[str, str]) -> str:
    """The same for the same rule and labels, in whatever process and order."""
    text = json.dumps([rule, sorted(labels.items())], ensure_ascii=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]
