"""One rule: what to look at, when it is a reason for an alert, for how long, and what is said then.

    AlertRule(
        "slow",
        Metric("model_duration_seconds", stat="p95", window=300),
        Threshold(">", 10, clear=8),
        by=("provider", "model"),
        for_=60,
    )
    AlertRule.from_mapping({"name": "slow", "metric": "model_duration_seconds", "stat": "p95", "window": "5m",
                            "by": ["provider", "model"], "above": 10, "clear": 8, "for": "1m"})

Both are the same rule. `to_mapping` gives the second form, in which it comes from YAML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from agentflow.core.observability.alerts.fields import Fields
from agentflow.core.observability.alerts.preset_fields import PRESETS, with_preset
from agentflow.core.observability.alerts.quantities import Quantity
from agentflow.core.observability.alerts.rule_parts import COMPARISONS, read_condition, read_quantity
from agentflow.core.observability.alerts.threshold import Absent, Condition
from agentflow.errors import ConfigurationError

__all__ = ["AlertRule", "NoData"]

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_DURATIONS: Final = ("for", "keep_firing_for", "repeat")


class NoData(StrEnum):
    """What a missing value means."""

    OK = "ok"  # the same as one that is no reason for an alert
    ALERTING = "alerting"  # the same as one that is
    KEEP = "keep"  # nothing: the state stays as it is
    NO_DATA = "no_data"  # a state of its own, which is told like firing


@dataclass(frozen=True, slots=True)
class AlertRule:
    """All durations are seconds.

    It fires once the condition has held for `for_`, and is resolved once it has not held for `keep_firing_for`. `by`
    are labels: each group of series with the same values of them is watched by itself. `severity` is an open word
    (info, warning and critical are known to the log); `labels` are added to those of the group, and `summary` to the
    message. While it fires, `repeat` reminds as often as that; None never does. `no_data` says what it means that there
    is no value. `actions` are the names of those that are told; None is all.
    """

    name: str
    quantity: Quantity
    condition: Condition
    for_: float = field(default=0.0, kw_only=True)
    keep_firing_for: float = field(default=0.0, kw_only=True)
    by: tuple[str, ...] = field(default=(), kw_only=True)
    severity: str = field(default="warning", kw_only=True)
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING, kw_only=True)
    summary: str = field(default="", kw_only=True)
    repeat: float | None = field(default=None, kw_only=True)
    no_data: NoData = field(default=NoData.OK, kw_only=True)
    actions: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigurationError("name: found nothing, allowed is a text")
        for name, seconds in zip(_DURATIONS, (self.for_, self.keep_firing_for, self.repeat), strict=True):
            if seconds is not None and not 0 <= seconds < math.inf:
                raise ConfigurationError(f"{name}: found {seconds}, allowed is a finite number of seconds, 0 or more")
        if self.repeat == 0:
            raise ConfigurationError("repeat: found 0, allowed is more than 0 seconds")
        by: object = self.by
        if isinstance(by, str) or len(set(self.by)) != len(self.by):
            raise ConfigurationError(f"by: found {self.by!r}, allowed are names of labels, each once")

    @property
    def asks_for_data(self) -> bool:
        """Whether it is a reason for an alert that there is no value."""
        return isinstance(self.condition, Absent) or self.no_data in (NoData.ALERTING, NoData.NO_DATA)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], *, path: str = "rule") -> AlertRule:
        """A rule from what YAML holds. `path` is where that stands. Raises ConfigurationError, which names the field
        and what is allowed there."""
        fields = Fields(_completed(mapping, path), _place(mapping, path))
        with fields.placed():
            rule = cls(
                fields.text("name"),
                read_quantity(fields),
                read_condition(fields),
                for_=fields.seconds("for", 0.0),
                keep_firing_for=fields.seconds("keep_firing_for", 0.0),
                by=fields.texts("by"),
                severity=fields.text("severity", "warning"),
                labels=fields.labels("labels"),
                summary=fields.text("summary", " ").strip(),
                repeat=fields.seconds("repeat", 0.0) if "repeat" in fields else None,
                no_data=NoData(fields.choice("no_data", list(NoData), NoData.OK)),
                actions=fields.texts("actions") if "actions" in fields else None,
            )
            fields.know("preset", "repeat", "actions")
            fields.finish()
        return rule

    def to_mapping(self) -> dict[str, object]:
        """The same as plain data; `from_mapping` gives the rule back."""
        return {
            "name": self.name,
            **self.quantity.to_mapping(),
            **self.condition.to_mapping(),
            **({"for": self.for_} if self.for_ else {}),
            **({"keep_firing_for": self.keep_firing_for} if self.keep_firing_for else {}),
            **({"by": list(self.by)} if self.by else {}),
            "severity": self.severity,
            **({"labels": dict(self.labels)} if self.labels else {}),
            **({"summary": self.summary} if self.summary else {}),
            **({"repeat": self.repeat} if self.repeat is not None else {}),
            **({"no_data": self.no_data.value} if self.no_data is not NoData.OK else {}),
            **({"actions": list(self.actions)} if self.actions is not None else {}),
        }


def _completed(mapping: object, path: str) -> object:
    """With what its preset says, if it names one."""
    if not isinstance(mapping, Mapping) or mapping.get("preset") is None:
        return mapping
    preset = Fields(mapping, path).choice("preset", list(PRESETS), "")
    return with_preset(preset, mapping, COMPARISONS)


def _place(mapping: object, path: str) -> str:
    """Where it stands, by its name where it has one."""
    name = mapping.get("name") or mapping.get("preset") if isinstance(mapping, Mapping) else None
    return f"{path} {name}" if isinstance(name, str) else path
