"""Moonshot's Kimi: Chat Completions with thoughts that come back, thinking by model, and answers that go on a text.

    Message("assistant", "{")   ──▶  {"role": "assistant", "content": "{", "partial": true}
    ◀── " \\"answer\\": 42}"      ──▶  Response("{ \\"answer\\": 42}")

Written from platform.kimi.ai/docs (api/chat, api/partial, guide/use-kimi-k2-thinking-model, guide/use-thinking-effort).
What else differs from OpenAI stands in its row of `dialects`; usage inside of a choice and cached tokens at the top are
read wherever they come.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

from msgspec.structs import replace

from agentflow.errors import BadRequestError
from agentflow.llm.content import Content, Json, Reasoning, Text, content_of, parts_of
from agentflow.llm.messages import ModelInfo, Request, Response, StreamChunk, Thinking
from agentflow.llm.providers.api import HTTPProvider, Wire
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.batches.endpoint import BatchEndpoint
from agentflow.llm.providers.efforts import effort_of
from agentflow.llm.providers.http import Transport
from agentflow.llm.providers.openai.chat import ChatApi
from agentflow.llm.providers.openai.dialects import dialect_of
from agentflow.llm.providers.openai.provider import read_models

__all__ = ["MoonshotApi", "MoonshotProvider"]

DEFAULT_BASE_URL: Final = "https://api.moonshot.ai/v1"
"""For accounts of platform.kimi.ai; those of platform.kimi.com have keys of their own, for api.moonshot.cn."""

_LEVELS: Final = {"minimal": "low", "low": "low", "medium": "high", "high": "high", "xhigh": "max", "max": "max"}
_ALWAYS: Final = ("kimi-k2.7", "kimi-k2-thinking", "kimi-thinking")
_NEVER: Final = ("moonshot-v1", "kimi-k2-0", "kimi-k2-turbo", "kimi-latest")
_SWITCHED: Final = ("kimi-k2.5", "kimi-k2.6")


class MoonshotApi(ChatApi):
    """Moonshot's dialect. A conversation that ends with the assistant's words is one that the model goes on with."""

    __slots__ = ()

    def write(self, request: Request, *, stream: bool) -> Wire:
        prefix = prefix_of(request)
        if prefix and request.output is not None and request.output.schema is None:
            raise BadRequestError(
                "an answer cannot both go on a given text and be any JSON object; ask for a schema, or for neither",
                model=request.model,
            )
        return super().write(request, stream=stream)

    def _messages(self, request: Request) -> list[dict[str, Json]]:
        messages = super()._messages(request)
        if prefix_of(request):
            messages[-1].setdefault("partial", True)
        return messages

    def _thinks(self, request: Request) -> bool:
        return not request.model.startswith(_NEVER) and super()._thinks(request)

    def _thinking(self, request: Request, thinking: Thinking) -> Mapping[str, Json]:
        """Kimi K3 and later take one of three efforts, K2.5 and K2.6 can be told not to think, some always do."""
        effort, model = effort_of(thinking), request.model
        if effort is None:
            return {}
        if model.startswith(_SWITCHED):
            return {"thinking": {"type": "disabled" if effort == "none" else "enabled"}}
        if model.startswith(_NEVER):
            if effort == "none":
                return {}
            raise self._refused(request, "it does not think; leave thinking out, or choose a Kimi that does")
        if effort == "none":
            raise self._refused(request, "it always thinks; leave thinking out, or ask for low effort")
        return {} if model.startswith(_ALWAYS) else {"reasoning_effort": _LEVELS.get(effort, effort)}


class MoonshotProvider(HTTPProvider):
    """A provider for Kimi's own API.

        provider = MoonshotProvider(ProviderSettings("moonshot", "moonshot", api_key=Secret(…)))

    Where the last turn is the assistant's, its words begin the answer: the model goes on with them, and the response
    holds them too. Options: those of a dialect, as for OpenAIProvider, and those of the transport.
    """

    def __init__(self, settings: ProviderSettings, transport: Transport | None = None) -> None:
        base_url = settings.base_url or DEFAULT_BASE_URL
        self._dialect = dialect_of(settings, base_url, usual="moonshot")
        super().__init__(settings, MoonshotApi(self._dialect), base_url=base_url, transport=transport)

    @property
    def schemas(self) -> bool:
        """Whether an answer can be held to a JSON Schema."""
        return self._dialect.schema == "json_schema"

    async def execute(self, request: Request) -> Response:
        response = await super().execute(request)
        prefix = prefix_of(request)
        return _begun(response, prefix) if prefix else response

    def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        chunks = super().execute_streaming(request)
        prefix = prefix_of(request)
        return _begun_stream(chunks, prefix) if prefix else chunks

    def batches(self) -> BatchEndpoint:
        """Many requests as one file: for kimi-k2.5 and kimi-k2.6, without a temperature and the like."""
        from agentflow.llm.providers.batches.openai import MOONSHOT, FileBatches

        return FileBatches(self, MOONSHOT)

    def understood(self, body: bytes, request: Request, request_id: str | None = None) -> Response:
        response = super().understood(body, request, request_id)
        prefix = prefix_of(request)
        return _begun(response, prefix) if prefix else response

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """The models that this key may use now."""
        answer, source = await self._get("/models")
        return read_models(answer.body, source)


# ---- answers that were begun ---------------------------------------------------------------------------------


def prefix_of(request: Request) -> str:
    """The words that the answer is to begin with; none where the last turn is not the assistant's, or calls tools."""
    last = request.messages[-1] if request.messages else None
    if last is None or last.role != "assistant" or not all(isinstance(part, Text) for part in last.parts):
        return ""
    return last.text


def _begun(response: Response, prefix: str) -> Response:
    return replace(
        response,
        content=_with_prefix(response.content, prefix),
        alternatives=tuple(
            [replace(other, content=_with_prefix(other.content, prefix)) for other in response.alternatives]
        ),
    )


def _with_prefix(content: Content, prefix: str) -> Content:
    """The prefix before the first words; after the thoughts where there are none."""
    parts = list(parts_of(content))
    for at, part in enumerate(parts):
        if isinstance(part, Text):
            parts[at] = replace(part, text=prefix + part.text)
            return content_of(parts)
    thoughts = sum(isinstance(part, Reasoning) for part in parts)
    return content_of([*parts[:thoughts], Text(prefix), *parts[thoughts:]])


async def _begun_stream(chunks: AsyncGenerator[StreamChunk, None], prefix: str) -> AsyncGenerator[StreamChunk, None]:
    """The prefix as a chunk of its own before the first words of each answer, or before its calls or its end."""
    begun: set[int] = set()
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.index not in begun and (chunk.content or chunk.tool_calls or chunk.finish_reason):
                begun.add(chunk.index)
                yield StreamChunk(prefix, index=chunk.index, model=chunk.model, request_id=chunk.request_id)
            yield chunk
