"""Several models behind one name: filters, rules, a policy that may have learned, a cascade; each with its reason.

ModelRouter({"small": small, "large": large}, value=0.01)          in code
auto: {router: {candidates: [small, large], lambda: 0.01}}         in models.yml
"""

from agentflow.mcp.optimization.router.canary import Canary, Trial
from agentflow.mcp.optimization.router.candidate import Candidate, Pool
from agentflow.mcp.optimization.router.cascade import Cascade
from agentflow.mcp.optimization.router.decision import Decision
from agentflow.mcp.optimization.router.exploring import Exploration
from agentflow.mcp.optimization.router.judge import Accept, Checker
from agentflow.mcp.optimization.router.router import ModelRouter
from agentflow.mcp.optimization.router.rules import Rule

__all__ = [
    "Accept",
    "Canary",
    "Candidate",
    "Cascade",
    "Checker",
    "Decision",
    "Exploration",
    "ModelRouter",
    "Pool",
    "Rule",
    "Trial",
]
