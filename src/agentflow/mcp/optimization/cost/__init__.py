"""What was spent, and what would have been cheaper: proposals with intervals, a report, a patch for models.yml.

Names alone: each is resolved when first used, because an analysis loads numpy and reading a log does not.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.mcp.optimization.cost.call import Call
    from agentflow.mcp.optimization.cost.findings import Findings
    from agentflow.mcp.optimization.cost.forecast import Estimate
    from agentflow.mcp.optimization.cost.optimizer import CostOptimizer
    from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
    from agentflow.mcp.optimization.cost.proposal import Proposal
    from agentflow.mcp.optimization.cost.recorded import recorded_log
    from agentflow.mcp.optimization.cost.usage_log import UsageLog
    from agentflow.mcp.optimization.cost.writing import write_patch, write_picture, write_report

__all__ = [
    "Call",
    "CostOptimizer",
    "Estimate",
    "Findings",
    "PriceSnapshot",
    "Proposal",
    "UsageLog",
    "recorded_log",
    "write_patch",
    "write_picture",
    "write_report",
]

_HOMES = {
    "call": "Call",
    "findings": "Findings",
    "forecast": "Estimate",
    "optimizer": "CostOptimizer",
    "price_snapshot": "PriceSnapshot",
    "proposal": "Proposal",
    "recorded": "recorded_log",
    "usage_log": "UsageLog",
    "writing": "write_patch write_picture write_report",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
