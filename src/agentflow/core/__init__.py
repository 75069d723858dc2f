"""Flows of nodes: prep → exec → post, shared state, events, robustness. The standard library alone.

What flows are made of is bound at once; the guards of `agentflow.core.robustness`, and what records and counts
(`agentflow.core.observability`), are resolved when first used.
"""

from importlib import import_module

from agentflow.core.batch import Each
from agentflow.core.flow import AsyncFlow, Flow, FlowResult
from agentflow.core.graph import END, Dataflow, Parallel, Path
from agentflow.core.limits import Limits
from agentflow.core.node import AsyncNode, BaseNode, FunctionNode, Node, node
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.observers import Observation, Observer, observe
from agentflow.core.observability.scope import emit, emit_blocking, observed
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.schema import Validator
from agentflow.core.state import ITEM, Key, SharedState, StateDiff
from agentflow.core.stream import BlockingEventStream, EventStream

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.core.observability import (
        AlertManager,
        AlertRule,
        AuditLog,
        MetricsCollector,
        Redactor,
        RunStore,
        configure_logging,
    )
    from agentflow.core.robustness import (
        AIMD,
        Adaptive,
        CircuitBreaker,
        CountWindow,
        Fallback,
        FaultInjector,
        Gradient2,
        Hedge,
        LoadShedder,
        Pipeline,
        PipelineBuilder,
        Priority,
        RateLimiter,
        ResourcePool,
        RetryBudget,
        TimeoutManager,
        TimeWindow,
        Timing,
    )

__all__ = [
    "AIMD",
    "END",
    "ITEM",
    "Adaptive",
    "AlertManager",
    "AlertRule",
    "AsyncFlow",
    "AsyncNode",
    "AuditLog",
    "BaseNode",
    "BlockingEventStream",
    "CircuitBreaker",
    "CountWindow",
    "Dataflow",
    "Each",
    "EventStream",
    "ExecutionEvent",
    "Fallback",
    "FaultInjector",
    "Flow",
    "FlowResult",
    "FunctionNode",
    "Gradient2",
    "Hedge",
    "Key",
    "Limits",
    "LoadShedder",
    "MetricsCollector",
    "Node",
    "Observation",
    "Observer",
    "Parallel",
    "Path",
    "Pipeline",
    "PipelineBuilder",
    "Priority",
    "RateLimiter",
    "Redactor",
    "ResourcePool",
    "RetryBudget",
    "RetryPolicy",
    "RunStore",
    "SharedState",
    "StateDiff",
    "TimeWindow",
    "TimeoutManager",
    "Timing",
    "Validator",
    "configure_logging",
    "emit",
    "emit_blocking",
    "node",
    "observe",
    "observed",
]

_WATCHING = frozenset("AlertManager AlertRule AuditLog MetricsCollector Redactor RunStore configure_logging".split())

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "observability" if name in _WATCHING else "robustness"
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
