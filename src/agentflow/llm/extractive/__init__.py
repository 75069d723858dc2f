"""A real extractive summariser in pure Python: text → sentences → graph → the sentences that stand for the rest."""

from agentflow.llm.extractive.sentences import read
from agentflow.llm.extractive.summary import Budget, Summary, summarise

__all__ = ["Budget", "Summary", "read", "summarise"]
