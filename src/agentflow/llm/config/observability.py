"""The sections `observability:` and `audit:` of models.yml: what is recorded of runs and model calls, and where.

    observability: {runs: true, metrics: true, logs: {json: true}, prometheus: true, alerts: [{preset: latency}]}
    audit:         {path: .agentflow/audit, key_env: AUDIT_KEY}

`true` turns a part on as it usually is, `false` turns off what a weaker file turned on, and a mapping says how it is to
be. What each field means stands with the part that obeys it: `RunStore`, `MetricsCollector`, `configure_logging`, the
integrations, `AlertManager`, `AuditLog`. `observing.py` makes the parts of this.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, UnsetType

from agentflow.llm.config.entry import Count, Entry, Name, Variable

__all__ = [
    "SECTIONS",
    "AlertSection",
    "Anchoring",
    "Audit",
    "Logs",
    "Metrics",
    "Observability",
    "OpenTelemetry",
    "Prometheus",
    "Redaction",
    "Retain",
    "Rotate",
    "Runs",
]

_Port = Annotated[int, Meta(ge=0, le=65_535)]
_Bytes = Annotated[int, Meta(ge=1)]
_Duration = Annotated[float, Meta(gt=0)]
_Long = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Collector = Annotated[
    str,
    Meta(
        pattern=r"\Ahttps?://[^\s/@?#]+(/[^\s@?#]*)?\Z",
        description="an http:// or https:// address without user name, password or query (headers_env holds those)",
    ),
]
_Mapping = dict[str, Any]


class Runs(Entry, frozen=True):
    """`runs:`, the file in which runs are kept, as in `RunStore`; null is no limit."""

    path: Name | UnsetType = UNSET
    capture: Literal["none", "content"] | UnsetType = UNSET
    max_age: _Duration | UnsetType | None = UNSET
    max_bytes: Annotated[int, Meta(ge=262_144)] | UnsetType | None = UNSET
    max_text: Annotated[int, Meta(ge=100)] | UnsetType = UNSET


class Metrics(Entry, frozen=True):
    """`metrics:`. `max_series` is how many sets of labels each metric may have."""

    max_series: Count | UnsetType = UNSET


class Logs(Entry, frozen=True):
    """`logs:`, as in `configure_logging`. With `runs`, what happens in runs is written as well (`RunLog`)."""

    json: bool | UnsetType = UNSET
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | UnsetType = UNSET
    runs: bool | UnsetType = UNSET


class Prometheus(Entry, frozen=True):
    """`prometheus:`, a server of `/metrics`. `bounds` are upper bounds of buckets, by metric."""

    port: _Port | UnsetType = UNSET
    host: Name | UnsetType = UNSET
    prefix: Name | UnsetType = UNSET
    bounds: dict[str, list[float]] | UnsetType = UNSET


class OpenTelemetry(Entry, frozen=True):
    """`opentelemetry:`, what is sent to a collector. What is not said is left to the standard variables."""

    endpoint: _Collector | UnsetType = UNSET
    service_name: Name | UnsetType = UNSET
    headers_env: Variable | UnsetType = UNSET
    content: Literal["NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"] | UnsetType = UNSET
    sample: _Share | UnsetType = UNSET
    timeout: _Duration | UnsetType = UNSET
    interval: _Duration | UnsetType = UNSET
    metrics: bool | UnsetType = UNSET
    chunks: bool | UnsetType = UNSET
    propagate: bool | UnsetType = UNSET
    max_open_spans: Count | UnsetType = UNSET


class AlertSection(Entry, frozen=True):
    """`alerts:` in its long form, as in `AlertManager.from_mapping`; a list alone is `rules`."""

    rules: list[_Mapping] | UnsetType = UNSET
    actions: dict[str, _Mapping] | UnsetType = UNSET
    silences: list[_Mapping] | UnsetType = UNSET
    interval: float | Name | UnsetType = UNSET
    grace: float | Name | UnsetType = UNSET


class Observability(Entry, frozen=True):
    """`observability:`. `integrations` are observers that other packages offer, by name, and what they are to know."""

    runs: bool | Name | Runs | UnsetType = UNSET
    metrics: bool | Metrics | UnsetType = UNSET
    logs: bool | Logs | UnsetType = UNSET
    prometheus: bool | Prometheus | UnsetType = UNSET
    opentelemetry: bool | OpenTelemetry | UnsetType = UNSET
    alerts: bool | list[_Mapping] | AlertSection | UnsetType = UNSET
    integrations: dict[str, bool | _Mapping] | UnsetType = UNSET


# ---- audit ---------------------------------------------------------------------------------------------------


class Rotate(Entry, frozen=True):
    """`audit.rotate:`, when the log goes on in a new file; bytes and seconds, null is no limit."""

    size: Annotated[int, Meta(ge=4096)] | UnsetType | None = UNSET
    age: _Duration | UnsetType | None = UNSET


class Retain(Entry, frozen=True):
    """`audit.retain:`, when old files go. None that is younger than `at_least` does."""

    age: _Duration | UnsetType | None = UNSET
    size: _Bytes | UnsetType | None = UNSET
    at_least: _Long | UnsetType = UNSET


class Anchoring(Entry, frozen=True):
    """`audit.anchor:` in its long form: where signed heads are put, and how often."""

    path: Name
    records: Count | UnsetType = UNSET
    seconds: _Duration | UnsetType = UNSET


class Redaction(Entry, frozen=True):
    """`audit.redact:`. `patterns` are regular expressions, by the name that stands in the text afterwards."""

    keys: bool | UnsetType = UNSET
    emails: bool | UnsetType = UNSET
    cards: bool | UnsetType = UNSET
    patterns: dict[str, str] | UnsetType = UNSET


class Audit(Entry, frozen=True):
    """`audit:`, as in `AuditSettings`. `key_env` names the variable that holds the log's own key."""

    path: Name | UnsetType = UNSET
    key_env: Variable | UnsetType = UNSET
    on_failure: Literal["closed", "open"] | UnsetType = UNSET
    fsync: Literal["always", "never"] | _Duration | UnsetType = UNSET
    rotate: Rotate | UnsetType = UNSET
    retain: Retain | UnsetType = UNSET
    anchor: Name | Anchoring | UnsetType | None = UNSET
    redact: Redaction | UnsetType = UNSET
    content: Literal["none", "digest", "encrypted"] | UnsetType = UNSET
    actor: Name | UnsetType | None = UNSET
    exclusive: bool | UnsetType = UNSET


SECTIONS: Final = (
    Runs, Metrics, Logs, Prometheus, OpenTelemetry, AlertSection, Audit, Rotate, Retain, Anchoring, Redaction,
)  # fmt: skip
"""Mappings that are laid over each other field by field, as a weaker and a stronger file say them."""
