"""Whether the application has set up OpenTelemetry itself."""

from __future__ import annotations

from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, get_tracer_provider

__all__ = ["configured"]


def configured() -> bool:
    """Whether there is a global provider of traces."""
    return not isinstance(get_tracer_provider(), ProxyTracerProvider | NoOpTracerProvider)
