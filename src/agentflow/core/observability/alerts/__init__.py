"""Rules over metrics, and what is done when one of them is broken."""

from agentflow.core.observability.alerts.action import Action, Callback, Log
from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.alerts.command import Command
from agentflow.core.observability.alerts.evaluator import Evaluation
from agentflow.core.observability.alerts.lane import ActionCounts
from agentflow.core.observability.alerts.manager import AlertCounts, AlertManager
from agentflow.core.observability.alerts.presets import breaker_open, burn_rate, cost_per_hour, error_rate, latency
from agentflow.core.observability.alerts.quantities import BurnRate, Metric, Ratio
from agentflow.core.observability.alerts.rule import AlertRule, NoData
from agentflow.core.observability.alerts.signature import is_genuine
from agentflow.core.observability.alerts.silence import Silence
from agentflow.core.observability.alerts.states import AlertState
from agentflow.core.observability.alerts.threshold import Absent, Threshold
from agentflow.core.observability.alerts.webhook import Webhook

__all__ = [
    "Absent",
    "Action",
    "ActionCounts",
    "Alert",
    "AlertCounts",
    "AlertManager",
    "AlertRule",
    "AlertState",
    "BurnRate",
    "Callback",
    "Command",
    "Evaluation",
    "Log",
    "Metric",
    "NoData",
    "Ratio",
    "Silence",
    "Threshold",
    "Webhook",
    "breaker_open",
    "burn_rate",
    "cost_per_hour",
    "error_rate",
    "is_genuine",
    "latency",
]
