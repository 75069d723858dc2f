"""What a run tells whoever watches it."""

from agentflow.core.observability.events import ExecutionEvent, emit, emit_blocking, observed

__all__ = ["ExecutionEvent", "emit", "emit_blocking", "observed"]
