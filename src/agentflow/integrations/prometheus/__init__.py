"""Metrics for a Prometheus server to fetch: agentflow[prometheus].

    with serve_metrics(9464): ...                               one line: counts this process, and serves what it counts
    PrometheusCollector(metrics)                                for a registry that you have
    wsgi_app(collector), asgi_app(collector)                    for a server that you have
    SnapshotFolder(folder, metrics)                             for several processes behind one `/metrics`

    MetricsCollector ──snapshot──▶ families ──▶ exposition (text, OpenMetrics) ──▶ answering ──▶ server, apps

The package `prometheus-client` is needed when a collector is made, not for the import.
"""

from agentflow.integrations.prometheus.apps import asgi_app, wsgi_app
from agentflow.integrations.prometheus.exposition import PrometheusCollector
from agentflow.integrations.prometheus.folder import SnapshotFolder
from agentflow.integrations.prometheus.losses import Losses, Lossy
from agentflow.integrations.prometheus.server import MetricsServer, serve_metrics
from agentflow.integrations.prometheus.settings import from_settings
from agentflow.integrations.prometheus.traces import trace_of

__all__ = [
    "Losses",
    "Lossy",
    "MetricsServer",
    "PrometheusCollector",
    "SnapshotFolder",
    "asgi_app",
    "from_settings",
    "serve_metrics",
    "trace_of",
    "wsgi_app",
]
