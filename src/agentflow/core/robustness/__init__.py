"""What keeps a run alive when a part of it fails."""

from agentflow.core.robustness.retry import RetryPolicy

__all__ = ["RetryPolicy"]
