"""The only room that speaks HTTP: what a transport is, and the one that runs on aiohttp."""

from agentflow.llm.providers.http.client import AiohttpTransport
from agentflow.llm.providers.http.transport import Answer, ByteStream, Transport

__all__ = ["AiohttpTransport", "Answer", "ByteStream", "Transport"]
