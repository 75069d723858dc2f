"""All that a manager is told, from what YAML holds.

    {"interval": 15, "grace": 5, "rules": [{"preset": "latency"}], "actions": {"ops": {"webhook": …}}, "silences": […]}

A list is the rules alone. Errors name the field and what is allowed there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentflow.clock import Clock
from agentflow.core.observability.alerts.action import Action
from agentflow.core.observability.alerts.action_mapping import read_action
from agentflow.core.observability.alerts.fields import Fields
from agentflow.core.observability.alerts.rule import AlertRule
from agentflow.core.observability.alerts.silence import Silence, read_silence

__all__ = ["Settings", "read_settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    rules: tuple[AlertRule, ...]
    actions: Mapping[str, Action]
    silences: tuple[Silence, ...]
    interval: float
    grace: float


def read_settings(mapping: Mapping[str, object] | Sequence[object], path: str, *, clock: Clock) -> Settings:
    """Raises ConfigurationError."""
    fields = Fields({"rules": mapping} if isinstance(mapping, list | tuple) else mapping, path)
    now, time = clock.monotonic(), clock.time()
    named = fields.inner("actions") if "actions" in fields else Fields({}, path)
    fields.know("actions")
    settings = Settings(
        tuple([AlertRule.from_mapping(each, path=f"{path}.rules.{n}") for n, each in _list(fields, "rules")]),
        {name: read_action(named.get(name), f"{path}.actions.{name}", clock=clock) for name in named.names()},
        tuple(
            [read_silence(each, f"{path}.silences.{n}", now=now, time=time) for n, each in _list(fields, "silences")]
        ),
        fields.seconds("interval", 15.0),
        fields.seconds("grace", 5.0),
    )
    fields.finish()
    return settings


def _list(fields: Fields, name: str) -> list[tuple[int, Mapping[str, object]]]:
    found = fields.get(name)
    if found is None:
        return []
    if not isinstance(found, list | tuple):
        raise fields.misfit(name, "a list")
    return list(enumerate(found))
