"""Parts taken out, and single weights set to zero."""

from agentflow.mcp.compression.pruning.sparse import sparsify
from agentflow.mcp.compression.pruning.structured import prune

__all__ = ["prune", "sparsify"]
