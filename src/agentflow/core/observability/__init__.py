"""What a run tells whoever watches it, what is made of that, and where it is kept."""

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.observers import Observation, Observer, observe
from agentflow.core.observability.scope import emit, emit_blocking, observed

__all__ = ["ExecutionEvent", "Observation", "Observer", "emit", "emit_blocking", "observe", "observed"]
