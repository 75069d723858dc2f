"""An observer from what a configuration file says: the entry point `opentelemetry` of agentflow.integrations.

    observability:
      opentelemetry: {endpoint: "http://127.0.0.1:4318", service_name: search, headers_env: OTLP_HEADERS}

The packages of the extra are imported when it is called, not before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from agentflow.core.observability.redaction.known_secrets import know_secret
from agentflow.errors import ConfigurationError, MissingExtraError
from agentflow.integrations.opentelemetry.content import capture, capture_from

if TYPE_CHECKING:
    from agentflow.integrations.opentelemetry.observer import OpenTelemetryObserver

__all__ = ["from_settings"]

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "endpoint": (str,),
    "service_name": (str,),
    "headers_env": (str,),
    "content": (str,),
    "sample": (float, int),
    "timeout": (float, int),
    "interval": (float, int),
    "metrics": (bool,),
    "chunks": (bool,),
    "propagate": (bool,),
    "max_open_spans": (int,),
}

_OWN: Final = {"endpoint", "service_name", "headers_env", "sample", "timeout", "interval", "metrics"}


@dataclass(frozen=True, slots=True)
class _Settings:
    """Where to and how much, each as it was checked."""

    endpoint: str | None = None
    service_name: str | None = None
    headers_env: str | None = None
    content: str | None = None
    sample: float | None = None
    timeout: float = 5.0
    interval: float | None = None
    metrics: bool = True
    chunks: bool = False
    propagate: bool = True
    max_open_spans: int = 10_000


def from_settings(settings: Mapping[str, object]) -> OpenTelemetryObserver:
    """An observer with providers of its own, which are closed when the process ends.

    For the providers: `endpoint` is the collector's OTLP/HTTP address (to which `/v1/traces` is added), `headers_env`
    the name of an environment variable with headers (`name=value,name=value`), `sample` the part of traces that is
    recorded, `timeout` seconds for one request, `metrics` whether there are any (not every collector takes them),
    `interval` seconds between two sendings of them. What is not said is left to the standard variables. Where none of
    these is said, and the application has configured OpenTelemetry itself, its providers are used.

    `content`, `chunks`, `propagate` and `max_open_spans` are those of OpenTelemetryObserver. Raises ConfigurationError,
    which repeats no header and no URL, and MissingExtraError.
    """
    said = _checked(settings)
    headers = _headers(said.headers_env)
    try:
        from agentflow.integrations.opentelemetry.application import configured
        from agentflow.integrations.opentelemetry.observer import OpenTelemetryObserver
        from agentflow.integrations.opentelemetry.providers import OwnProviders
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("opentelemetry"):
            raise
        raise MissingExtraError("OpenTelemetry", "otel") from None
    shared: dict[str, Any] = {
        "content": said.content,
        "chunks": said.chunks,
        "propagate": said.propagate,
        "max_open_spans": said.max_open_spans,
    }
    if configured() and not _OWN & set(settings):
        return OpenTelemetryObserver(**shared)
    wanted = capture_from(os.environ) if said.content is None else capture(said.content)
    own = OwnProviders(
        endpoint=said.endpoint,
        service_name=said.service_name,
        headers=headers,
        sample=said.sample,
        timeout=float(said.timeout),
        interval=said.interval,
        measure=said.metrics,
        logs=wanted.on_events,
    )
    return OpenTelemetryObserver(
        tracer_provider=own.tracers, meter_provider=own.meters, logger_provider=own.loggers, export=own, **shared
    )


def _checked(settings: Mapping[str, object]) -> _Settings:
    given: dict[str, Any] = dict(settings)
    for name, value in given.items():
        if name not in _TYPES:
            raise ConfigurationError(f"opentelemetry: no setting is named {name!r}, only {', '.join(_TYPES)}")
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and bool not in _TYPES[name]):
            expected = _TYPES[name][0].__name__
            raise ConfigurationError(f"opentelemetry: {name} must be {expected}, not {type(value).__name__}")
    said = _Settings(**given)
    if said.content is not None:
        capture(said.content)
    if said.sample is not None and not 0.0 <= said.sample <= 1.0:
        raise ConfigurationError(f"opentelemetry: sample must be from 0 to 1, not {said.sample}")
    for name in ("timeout", "interval", "max_open_spans"):
        number = getattr(said, name)
        if number is not None and not 0 < number < 1e9:
            raise ConfigurationError(f"opentelemetry: {name} must be more than 0, not {number}")
    if said.endpoint is not None:
        _check_endpoint(said.endpoint)
    return said


def _check_endpoint(endpoint: str) -> None:
    """Without repeating it: it may hold a password, which is what is wrong with it."""
    try:
        parts = urlsplit(endpoint)
        parts.port  # noqa: B018 - one that is no number raises here
    except ValueError:
        raise ConfigurationError("opentelemetry: endpoint has a host or port that cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("opentelemetry: endpoint must be a URL that begins with http:// or https://")
    if parts.username is not None or parts.query:
        raise ConfigurationError("opentelemetry: endpoint holds a password or a query; say it in headers_env")


def _headers(variable: str | None) -> dict[str, str] | None:
    """From the environment, as OTEL_EXPORTER_OTLP_HEADERS spells them. Their values are secrets from here on."""
    if variable is None:
        return None
    text = os.environ.get(variable)
    if not text:
        raise ConfigurationError(f"opentelemetry: the environment variable {variable} (headers_env) is not set")
    headers: dict[str, str] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ConfigurationError(f"opentelemetry: {variable} must be name=value,name=value")
        headers[unquote(name).strip().lower()] = unquote(value).strip()
    for value in headers.values():
        know_secret(value)
    return headers
