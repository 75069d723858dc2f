"""Traces and metrics by the conventions of OpenTelemetry: agentflow[otel].

    with observe(OpenTelemetryObserver()):               # by the providers that the application has configured
        await flow.run({"topic": "tides"})

    invoke_workflow article ─┬─ node plan
                             └─ node write ── chat gpt-4o ─┬─ POST   429
                                                           └─ POST   200

The packages of the extra are needed when the observer is used, not for the import of this name.
"""

from importlib import import_module

from agentflow.errors import MissingExtraError
from agentflow.integrations.opentelemetry.settings import from_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentflow.integrations.opentelemetry.observer import Losses, OpenTelemetryObserver

__all__ = ["Losses", "OpenTelemetryObserver", "from_settings"]


def __getattr__(name: str) -> object:
    if name not in ("Losses", "OpenTelemetryObserver"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.observer"), name)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("opentelemetry"):
            raise
        raise MissingExtraError("OpenTelemetry", "otel") from None
