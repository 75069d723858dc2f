"""Runs in a file: RunStore records them, RunReader reads them while that goes on."""

from agentflow.core.observability.store.records import CostRow, Feedback, LossRecord, Outcome, RunRecord
from agentflow.core.observability.store.run_reader import Following, RunReader
from agentflow.core.observability.store.run_store import DEFAULT_PATH, RunStore

__all__ = [
    "DEFAULT_PATH",
    "CostRow",
    "Feedback",
    "Following",
    "LossRecord",
    "Outcome",
    "RunReader",
    "RunRecord",
    "RunStore",
]
