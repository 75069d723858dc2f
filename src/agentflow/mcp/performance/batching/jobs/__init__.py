"""Batch jobs: many requests at half the price, durable from the first intent to the last answer."""

from agentflow.mcp.performance.batching.jobs.job import BatchJob
from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy
from agentflow.mcp.performance.batching.jobs.result import BatchResult, BatchStatus

__all__ = ["BatchJob", "BatchPolicy", "BatchResult", "BatchStatus"]
