"""What was spent, and what would have been cheaper: proposals with intervals, a report, a patch for models.yml."""

from agentflow.mcp.optimization.cost.call import Call
from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.optimizer import CostOptimizer
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
from agentflow.mcp.optimization.cost.proposal import Proposal
from agentflow.mcp.optimization.cost.recorded import recorded_log
from agentflow.mcp.optimization.cost.usage_log import UsageLog

__all__ = ["Call", "CostOptimizer", "Estimate", "PriceSnapshot", "Proposal", "UsageLog", "recorded_log"]
