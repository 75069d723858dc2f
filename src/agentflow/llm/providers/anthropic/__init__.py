"""Anthropic's Messages API."""

from agentflow.llm.providers.anthropic.provider import AnthropicProvider

__all__ = ["AnthropicProvider"]
