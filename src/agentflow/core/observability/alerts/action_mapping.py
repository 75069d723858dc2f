"""Actions from what YAML holds: one key says which, its value how.

{"log": "agentflow.alerts"}
{"webhook": {"url": "https://example.org/hook", "secret_env": "HOOK_SECRET"}}
{"command": ["./page", "--now"], "timeout": 30}
"""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.clock import Clock
from agentflow.core.observability.alerts.action import Action, Log
from agentflow.core.observability.alerts.command import Command
from agentflow.core.observability.alerts.fields import Fields
from agentflow.core.observability.alerts.webhook import Webhook
from agentflow.errors import ConfigurationError

__all__ = ["read_action"]

_KINDS = ("log", "webhook", "command")


def read_action(mapping: object, path: str, *, clock: Clock) -> Action:
    """Raises ConfigurationError, which names the field and what is allowed there."""
    fields = Fields(mapping, path)
    found = [kind for kind in _KINDS if kind in fields]
    fields.know(*_KINDS)
    if len(found) != 1:
        raise ConfigurationError(f"{path}: an action has exactly one of {', '.join(_KINDS)}")
    with fields.placed():
        match found[0]:
            case "log":
                action: Action = Log(fields.text("log"))
            case "command":
                action = Command(fields.texts("command"), timeout=fields.seconds("timeout", 30.0))
            case _:
                action = _webhook(fields, clock)
    fields.finish()
    return action


def _webhook(fields: Fields, clock: Clock) -> Webhook:
    if isinstance(fields.get("webhook"), Mapping):
        fields = fields.inner("webhook")
        url = fields.text("url") if "url" in fields else None
        fields.know("url")
    else:
        url = fields.text("webhook")
    webhook = Webhook(
        url,
        url_env=fields.text("url_env") if "url_env" in fields else None,
        secret_env=fields.text("secret_env") if "secret_env" in fields else None,
        headers_env=fields.labels("headers_env"),
        timeout=fields.seconds("timeout", 10.0),
        max_attempts=fields.count("max_attempts", 5),
        base_delay=fields.seconds("base_delay", 1.0),
        max_delay=fields.seconds("max_delay", 30.0),
        clock=clock,
    )
    fields.know("url_env", "secret_env")
    if "webhook" not in fields:
        fields.finish()
    return webhook
