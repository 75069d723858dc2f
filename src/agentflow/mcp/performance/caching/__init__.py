"""Answers that were given before: the cache, what it keeps them in, and what it says of itself."""

from agentflow.mcp.performance.caching.keys import secret_from_file, secret_from_text
from agentflow.mcp.performance.caching.response_cache import ResponseCache
from agentflow.mcp.performance.caching.semantic_tier import Asked, SemanticTier, Verdict
from agentflow.mcp.performance.caching.sqlite_store import SqliteStore
from agentflow.mcp.performance.caching.store import CacheStore, Totals
from agentflow.mcp.performance.caching.tally import CacheStatistics

__all__ = [
    "Asked",
    "CacheStatistics",
    "CacheStore",
    "ResponseCache",
    "SemanticTier",
    "SqliteStore",
    "Totals",
    "Verdict",
    "secret_from_file",
    "secret_from_text",
]
