"""What a run tells whoever watches it, what is made of that, and where it is kept.

Events and observers are bound at once; what records, counts, alerts and audits is resolved when first used.
"""

from importlib import import_module

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.observers import Observation, Observer, observe
from agentflow.core.observability.scope import emit, emit_blocking, observed

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.core.observability.alerts import AlertManager, AlertRule
    from agentflow.core.observability.audit import AuditLog, acting_as, use_audit
    from agentflow.core.observability.feedback import verdict
    from agentflow.core.observability.kinds import KINDS, event_schema
    from agentflow.core.observability.logs.lines import JsonLines, TextLines
    from agentflow.core.observability.logs.run_log import RunLog
    from agentflow.core.observability.logs.setup import BindScope, configure_logging
    from agentflow.core.observability.metrics.collector import MetricsCollector
    from agentflow.core.observability.metrics.snapshot import MetricsSnapshot, Series
    from agentflow.core.observability.redaction.known_secrets import know_secret
    from agentflow.core.observability.redaction.redactor import Redactor, redact
    from agentflow.core.observability.store import RunReader, RunStore
    from agentflow.core.observability.trace.tree import Trace, trace_of

__all__ = [
    "KINDS",
    "AlertManager",
    "AlertRule",
    "AuditLog",
    "BindScope",
    "ExecutionEvent",
    "JsonLines",
    "MetricsCollector",
    "MetricsSnapshot",
    "Observation",
    "Observer",
    "Redactor",
    "RunLog",
    "RunReader",
    "RunStore",
    "Series",
    "TextLines",
    "Trace",
    "acting_as",
    "configure_logging",
    "emit",
    "emit_blocking",
    "event_schema",
    "know_secret",
    "observe",
    "observed",
    "redact",
    "trace_of",
    "use_audit",
    "verdict",
]

_HOMES = {
    "alerts": "AlertManager AlertRule",
    "audit": "AuditLog acting_as use_audit",
    "feedback": "verdict",
    "kinds": "KINDS event_schema",
    "redaction.known_secrets": "know_secret",
    "logs.lines": "JsonLines TextLines",
    "logs.setup": "BindScope configure_logging",
    "metrics.collector": "MetricsCollector",
    "redaction.redactor": "Redactor redact",
    "logs.run_log": "RunLog",
    "metrics.series": "Series",
    "metrics.snapshot": "MetricsSnapshot",
    "store": "RunReader RunStore",
    "trace.tree": "Trace trace_of",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
