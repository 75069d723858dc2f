"""OpenAI's APIs, and every server that speaks them: Chat Completions by dialect, Responses, embeddings."""

from agentflow.llm.providers.openai.provider import OpenAIProvider

__all__ = ["OpenAIProvider"]
