"""Many requests as one: at once where a server takes several (micro-batching), overnight at half price (jobs)."""

from agentflow.mcp.performance.batching.batcher import BatchingProvider, RequestBatcher

__all__ = ["BatchingProvider", "RequestBatcher"]
