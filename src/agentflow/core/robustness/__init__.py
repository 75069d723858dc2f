"""What keeps a run alive when a part of it fails: six guards, each usable alone, and the pipeline that fuses them.

Names alone: each is resolved when first used, so that a flow loads no guard that it does not have.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.core.robustness.adaptive_limit import AIMD, Fixed, Gradient2, Limit
    from agentflow.core.robustness.attempt import idempotency_key
    from agentflow.core.robustness.breaker_window import CountWindow, TimeWindow
    from agentflow.core.robustness.circuit_breaker import BreakerState, CircuitBreaker, Permit
    from agentflow.core.robustness.decision import Decision, Listener
    from agentflow.core.robustness.fallback import Candidate, Fallback, falls_back
    from agentflow.core.robustness.fault_injector import FaultInjector
    from agentflow.core.robustness.hedging import Hedge, Loser
    from agentflow.core.robustness.held import Held
    from agentflow.core.robustness.load_shedder import LoadShedder, Ticket
    from agentflow.core.robustness.operation import Operation
    from agentflow.core.robustness.output_estimate import OutputEstimate
    from agentflow.core.robustness.pipeline import Pipeline, lent
    from agentflow.core.robustness.pipeline_builder import PipelineBuilder, PipelineOrderWarning
    from agentflow.core.robustness.rate_limiter import RateLimiter, Reservation, ServerLimits
    from agentflow.core.robustness.resource_pool import ResourcePool
    from agentflow.core.robustness.retry import RetryPolicy
    from agentflow.core.robustness.retry_budget import RetryBudget
    from agentflow.core.robustness.shedding import Priority
    from agentflow.core.robustness.time_limit import current_deadline, limit, remaining, remaining_ms
    from agentflow.core.robustness.timeout import Adaptive, TimeoutManager
    from agentflow.core.robustness.timing import Timing

__all__ = [
    "AIMD",
    "Adaptive",
    "BreakerState",
    "Candidate",
    "CircuitBreaker",
    "CountWindow",
    "Decision",
    "Fallback",
    "FaultInjector",
    "Fixed",
    "Gradient2",
    "Hedge",
    "Held",
    "Limit",
    "Listener",
    "LoadShedder",
    "Loser",
    "Operation",
    "OutputEstimate",
    "Permit",
    "Pipeline",
    "PipelineBuilder",
    "PipelineOrderWarning",
    "Priority",
    "RateLimiter",
    "Reservation",
    "ResourcePool",
    "RetryBudget",
    "RetryPolicy",
    "ServerLimits",
    "Ticket",
    "TimeWindow",
    "TimeoutManager",
    "Timing",
    "current_deadline",
    "falls_back",
    "idempotency_key",
    "lent",
    "limit",
    "remaining",
    "remaining_ms",
]

_HOMES = {
    "adaptive_limit": "AIMD Fixed Gradient2 Limit",
    "attempt": "idempotency_key",
    "breaker_window": "CountWindow TimeWindow",
    "circuit_breaker": "BreakerState CircuitBreaker Permit",
    "decision": "Decision Listener",
    "fallback": "Candidate Fallback falls_back",
    "fault_injector": "FaultInjector",
    "hedging": "Hedge Loser",
    "held": "Held",
    "load_shedder": "LoadShedder Ticket",
    "operation": "Operation",
    "output_estimate": "OutputEstimate",
    "pipeline": "Pipeline lent",
    "pipeline_builder": "PipelineBuilder PipelineOrderWarning",
    "rate_limiter": "RateLimiter Reservation ServerLimits",
    "resource_pool": "ResourcePool",
    "retry": "RetryPolicy",
    "retry_budget": "RetryBudget",
    "shedding": "Priority",
    "time_limit": "current_deadline limit remaining remaining_ms",
    "timeout": "Adaptive TimeoutManager",
    "timing": "Timing",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
