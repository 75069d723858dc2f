"""A server of metrics from what a configuration file says: the entry point `prometheus` of `agentflow.integrations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.observers import observe
from agentflow.errors import ConfigurationError
from agentflow.integrations.prometheus.exposition import PrometheusCollector, Snapshots
from agentflow.integrations.prometheus.server import MetricsServer, serve_metrics

__all__ = ["from_settings"]

_PORT: Final = 9464
_TYPES: Final[Mapping[str, type]] = {"port": int, "host": str, "prefix": str, "bounds": Mapping}


def from_settings(settings: Mapping[str, object], *, metrics: Snapshots | None = None) -> MetricsServer:
    """`port` (9464), `host` ("127.0.0.1"), `prefix` ("agentflow"), `bounds` (upper bounds of buckets by metric).

    Serves `metrics` until `close()`; without them, what this process does from now on. Raises ConfigurationError and
    MissingExtraError.
    """
    given: dict[str, Any] = dict(settings)
    for name, value in given.items():
        if name not in _TYPES:
            raise ConfigurationError(f"prometheus: no setting is named {name!r}, only {', '.join(_TYPES)}")
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            raise ConfigurationError(f"prometheus: {name} must be {_TYPES[name].__name__}, not {type(value).__name__}")
    counting = MetricsCollector()
    collector = PrometheusCollector(
        metrics or counting,
        prefix=given.get("prefix", "agentflow"),
        bounds=_bounds(given.get("bounds", {})),
    )
    server = serve_metrics(given.get("port", _PORT), collector, host=given.get("host", "127.0.0.1"))
    if metrics is None:
        server.observation = observe(counting)
    return server


def _bounds(said: Mapping[object, object]) -> dict[str, Sequence[float]]:
    bounds: dict[str, Sequence[float]] = {}
    for name, each in said.items():
        numbers = isinstance(each, list) and all(isinstance(one, int | float) for one in each)
        if not isinstance(each, list) or not numbers:
            raise ConfigurationError(f"prometheus: bounds of {name} must be a list of numbers")
        bounds[str(name)] = each
    return bounds
