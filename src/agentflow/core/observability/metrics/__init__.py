"""Events as numbers: counted, measured, kept within bounds, handed out as snapshots."""

from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.series import Series
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot

__all__ = ["MetricsCollector", "MetricsSnapshot", "Series"]
