"""Flows of nodes: prep → exec → post, shared state, events, robustness. The standard library alone."""

from agentflow.core.batch import Each
from agentflow.core.flow import AsyncFlow, Flow, FlowResult
from agentflow.core.graph import END, Dataflow, Parallel, Path
from agentflow.core.limits import Limits
from agentflow.core.node import AsyncNode, BaseNode, FunctionNode, Node, node
from agentflow.core.observability.events import ExecutionEvent, emit, emit_blocking, observed
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.schema import Validator
from agentflow.core.state import ITEM, Key, SharedState, StateDiff
from agentflow.core.stream import BlockingEventStream, EventStream

__all__ = [
    "END",
    "ITEM",
    "AsyncFlow",
    "AsyncNode",
    "BaseNode",
    "BlockingEventStream",
    "Dataflow",
    "Each",
    "EventStream",
    "ExecutionEvent",
    "Flow",
    "FlowResult",
    "FunctionNode",
    "Key",
    "Limits",
    "Node",
    "Parallel",
    "Path",
    "RetryPolicy",
    "SharedState",
    "StateDiff",
    "Validator",
    "emit",
    "emit_blocking",
    "node",
    "observed",
]
