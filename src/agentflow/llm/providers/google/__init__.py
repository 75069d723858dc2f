"""Google's Gemini API, and the same on Vertex."""

from agentflow.llm.providers.google.provider import GoogleProvider

__all__ = ["GoogleProvider"]
