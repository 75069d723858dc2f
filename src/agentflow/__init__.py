"""AgentFlow: async flows that call language models.

    from agentflow import AsyncFlow, AgentFlow, node

Names alone: each is resolved when first used, so that `import agentflow` costs next to nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers take the name for true; importing `typing` would be most of this import's cost
if TYPE_CHECKING:
    from agentflow.core import (
        END,
        ITEM,
        AsyncFlow,
        AsyncNode,
        BaseNode,
        Dataflow,
        Each,
        EventStream,
        ExecutionEvent,
        Flow,
        FlowResult,
        Key,
        Limits,
        Node,
        Parallel,
        RetryPolicy,
        SharedState,
        Validator,
        emit,
        emit_blocking,
    )
    from agentflow.core.durability import (
        Durability,
        Interrupt,
        SqliteDurability,
        interrupt,
        interrupt_blocking,
        sleep,
        storable,
    )
    from agentflow.core.node import node  # from there: `agentflow.core.node` may be the module to a type checker
    from agentflow.core.observability import (
        AlertManager,
        AlertRule,
        AuditLog,
        MetricsCollector,
        Observer,
        Redactor,
        RunStore,
        configure_logging,
        observe,
    )
    from agentflow.core.robustness import (
        CircuitBreaker,
        Fallback,
        FaultInjector,
        Hedge,
        LoadShedder,
        Pipeline,
        PipelineBuilder,
        Priority,
        RateLimiter,
        ResourcePool,
        RetryBudget,
        TimeoutManager,
        Timing,
        idempotency_key,
    )
    from agentflow.errors import AgentFlowError
    from agentflow.llm import (
        AgentFlow,
        AnthropicProvider,
        Audio,
        Conversation,
        Document,
        GoogleProvider,
        Image,
        LLMClient,
        LLMClientBuilder,
        LLMNode,
        LLMProvider,
        Message,
        ModelRegistry,
        MoonshotProvider,
        OpenAIProvider,
        Request,
        Response,
        ScriptedProvider,
        SSEParser,
        StreamChunk,
        StreamingResponse,
        Tool,
        ToolCall,
        Usage,
    )
    from agentflow.mcp import (
        BatchJob,
        Benchmark,
        Budget,
        CostOptimizer,
        EdgeDeployment,
        ModelRouter,
        RequestBatcher,
        ResponseCache,
    )

    __version__: str

__all__ = [
    "END",
    "ITEM",
    "AgentFlow",
    "AgentFlowError",
    "AlertManager",
    "AlertRule",
    "AnthropicProvider",
    "AsyncFlow",
    "AsyncNode",
    "Audio",
    "AuditLog",
    "BaseNode",
    "BatchJob",
    "Benchmark",
    "Budget",
    "CircuitBreaker",
    "Conversation",
    "CostOptimizer",
    "Dataflow",
    "Document",
    "Durability",
    "Each",
    "EdgeDeployment",
    "EventStream",
    "ExecutionEvent",
    "Fallback",
    "FaultInjector",
    "Flow",
    "FlowResult",
    "GoogleProvider",
    "Hedge",
    "Image",
    "Interrupt",
    "Key",
    "LLMClient",
    "LLMClientBuilder",
    "LLMNode",
    "LLMProvider",
    "Limits",
    "LoadShedder",
    "Message",
    "MetricsCollector",
    "ModelRegistry",
    "ModelRouter",
    "MoonshotProvider",
    "Node",
    "Observer",
    "OpenAIProvider",
    "Parallel",
    "Pipeline",
    "PipelineBuilder",
    "Priority",
    "RateLimiter",
    "Redactor",
    "Request",
    "RequestBatcher",
    "ResourcePool",
    "Response",
    "ResponseCache",
    "RetryBudget",
    "RetryPolicy",
    "RunStore",
    "SSEParser",
    "ScriptedProvider",
    "SharedState",
    "SqliteDurability",
    "StreamChunk",
    "StreamingResponse",
    "TimeoutManager",
    "Timing",
    "Tool",
    "ToolCall",
    "Usage",
    "Validator",
    "__version__",
    "configure_logging",
    "emit",
    "emit_blocking",
    "idempotency_key",
    "interrupt",
    "interrupt_blocking",
    "node",
    "observe",
    "sleep",
    "storable",
]

_HOMES = {
    "core": """
        END ITEM AsyncFlow AsyncNode BaseNode Dataflow Each EventStream ExecutionEvent Flow FlowResult Key
        Limits Node Parallel RetryPolicy SharedState Validator emit emit_blocking node
    """,
    "core.durability": """
        Durability Interrupt SqliteDurability interrupt interrupt_blocking sleep storable
    """,
    "core.observability": """
        AlertManager AlertRule AuditLog MetricsCollector Observer Redactor RunStore configure_logging observe
    """,
    "core.robustness": """
        CircuitBreaker Fallback FaultInjector Hedge LoadShedder Pipeline PipelineBuilder Priority RateLimiter
        ResourcePool RetryBudget TimeoutManager Timing idempotency_key
    """,
    "errors": "AgentFlowError",
    "llm": """
        AgentFlow AnthropicProvider Audio Conversation Document GoogleProvider Image LLMClient
        LLMClientBuilder LLMNode LLMProvider Message ModelRegistry MoonshotProvider OpenAIProvider Request
        Response SSEParser ScriptedProvider StreamChunk StreamingResponse Tool ToolCall Usage
    """,
    "mcp": "BatchJob Benchmark Budget CostOptimizer EdgeDeployment ModelRouter RequestBatcher ResponseCache",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker that saw __getattr__ would believe in every name

    def __getattr__(name: str) -> object:
        if name in _HOME_OF:
            value = getattr(import_module(_HOME_OF[name]), name)
        elif name == "__version__":
            value = import_module("importlib.metadata").version("agentflow-engine")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
