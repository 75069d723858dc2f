"""OpenAI's Chat Completions, and every server that speaks it: the request as JSON, and who reads the answers.

    Request ──write──▶ {"model": …, "messages": […], "tools": […]} ──POST /chat/completions──▶ …
    … ──read──▶ Response          … ──reading──▶ StreamChunk, StreamChunk, …

Turns are written by `chat_messages`; whole answers are read by `chat_answers`, streams by
`chat_stream`. How servers differ stands in `dialects`, and what an error means in `failures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentflow.errors import BadRequestError
from agentflow.llm.content import Json, Raw
from agentflow.llm.messages import OutputFormat, PromptCache, Request, Response, Thinking, Tool
from agentflow.llm.providers.api import Reading, Wire, merged
from agentflow.llm.providers.efforts import effort_of
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.openai.chat_answers import read_response
from agentflow.llm.providers.openai.chat_messages import cache_mark, wire_messages
from agentflow.llm.providers.openai.chat_plain import read_plain
from agentflow.llm.providers.openai.chat_stream import ChatReading
from agentflow.llm.providers.openai.dialects import DIALECTS, Dialect, thinking_fields

__all__ = ["ChatApi"]

_PATH: Final = "/chat/completions"
_CHOICES: Final = ("auto", "none", "required")


class ChatApi:
    """One dialect of Chat Completions. Its name is the dialect's, so that what one server sent is never laid before
    another."""

    __slots__ = ("dialect", "name")

    def __init__(self, dialect: Dialect = DIALECTS["openai"]) -> None:
        self.dialect = dialect
        self.name = dialect.name

    def write(self, request: Request, *, stream: bool) -> Wire:
        """The body of a request. `request.params` win over what is set by name, except whether it streams, and that a
        stream is asked for usage where the server understands that."""
        body: dict[str, Json] = {
            "model": request.model,
            "messages": self._messages(request),
        }
        self._put_sampling(request, body)
        self._put_tools(request, body)
        if request.output is not None:
            body["response_format"] = self._response_format(request.output, request)
        if request.thinking is not None:
            body.update(self._thinking(request, request.thinking))
        if request.cache is not None:
            body.update(self._cache(request.cache))
        if request.labels and self._knows(request, "metadata"):
            if self.dialect.metadata_needs_store and request.params.get("store") is not True:
                raise self._refused(request, "OpenAI labels only what it may keep: add .param('store', True)")
            body["metadata"] = dict(request.labels)
        merged(body, request.params)
        return Wire(_PATH, self._streamed(body) if stream else _unstreamed(body))

    def read(self, body: bytes, source: Source) -> Response:
        plain = None if self.dialect.cost else read_plain(body, source, self.name)
        return read_response(body, source, self.dialect) if plain is None else plain

    def reading(self, source: Source) -> Reading:
        return ChatReading(source, self.dialect)

    def _messages(self, request: Request) -> list[dict[str, Json]]:
        blank = self.dialect.reasoning_field if self.dialect.reasoning_required and self._thinks(request) else None
        return wire_messages(request.messages, self.dialect, request.model, blank=blank)

    def _thinks(self, request: Request) -> bool:
        """Whether the model will think, as far as the request says: unless it is told not to."""
        told = request.params.get("thinking")
        if isinstance(told, Mapping) and "type" in told:
            return told["type"] != "disabled"
        return request.thinking is None or effort_of(request.thinking) != "none"

    # ---- how ------------------------------------------------------------------------------------------------

    def _put_sampling(self, request: Request, body: dict[str, Json]) -> None:
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.top_p is not None:
            body["top_p"] = request.top_p
        if request.max_tokens is not None:
            body[self.dialect.max_tokens_field] = request.max_tokens
        if request.stop:
            body["stop"] = request.stop
        if request.seed is not None and self.dialect.seed:
            body[self.dialect.seed_field] = request.seed
        if request.top_k is not None and self._knows(request, "top_k"):
            body["top_k"] = request.top_k
        if request.n is not None and (request.n == 1 or self._knows(request, "n")):
            body.update({"n": request.n} if self.dialect.n else {})
        if request.logprobs is not None and self._knows(request, "logprobs"):
            body["logprobs"] = True
            if request.logprobs:
                body["top_logprobs"] = request.logprobs

    def _response_format(self, output: OutputFormat, request: Request) -> dict[str, Json]:
        if output.schema is None and self.dialect.schema != "none":
            return {"type": "json_object"}
        if self.dialect.schema != "json_schema" or output.schema is None:
            raise self._refused(
                request, "it cannot be held to a JSON Schema; ask for a tool call of that shape instead"
            )
        shape: dict[str, Json] = {"name": output.name, "schema": output.schema}
        if output.description is not None:
            shape["description"] = output.description
        if output.strict is not None:
            shape["strict"] = output.strict
        return {"type": "json_schema", "json_schema": shape}

    def _thinking(self, request: Request, thinking: Thinking) -> Mapping[str, Json]:
        return thinking_fields(request, thinking, self.dialect)

    def _cache(self, cache: PromptCache) -> Mapping[str, Json]:
        """Hints: what the server has no word for it does by itself, or not at all."""
        said: dict[str, Json] = {"cache_control": cache_mark(cache.ttl)} if self.dialect.cache_marks else {}
        if cache.key is not None and self.dialect.cache_key:
            said["prompt_cache_key"] = cache.key
        if cache.ttl is not None and self.dialect.cache_retention:
            said["prompt_cache_retention"] = "24h" if cache.ttl == "24h" else "in_memory"
        return said

    def _streamed(self, body: dict[str, Json]) -> dict[str, Json]:
        body["stream"] = True
        if self.dialect.stream_options:
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
        return body

    # ---- tools -----------------------------------------------------------------------------------------------

    def _put_tools(self, request: Request, body: dict[str, Json]) -> None:
        tools, choice = request.tools, request.tool_choice
        if isinstance(choice, tuple) and not self.dialect.allowed_tools:
            # The same thing said to a server that knows no `allowed_tools`: it sees only those.
            tools = tuple([tool for tool in tools if isinstance(tool, Raw) or tool.name in choice])
            choice = choice[0] if len(choice) == 1 else "required"
        wires = [wire for wire in map(self._tool, tools) if wire is not None]
        if wires:
            body["tools"] = wires
        if choice is not None:
            body["tool_choice"] = self._choice(choice, request)
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls

    def _tool(self, tool: Tool | Raw) -> Json:
        if isinstance(tool, Raw):
            return tool.data if tool.api == self.name else None
        function: dict[str, Json] = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        if tool.parameters:
            function["parameters"] = tool.parameters
        if tool.strict is not None:
            function["strict"] = tool.strict
        wire: dict[str, Json] = {"type": "function", "function": function}
        if tool.cache is not None and self.dialect.cache_marks:
            wire["cache_control"] = cache_mark(tool.cache)
        return wire

    def _choice(self, choice: str | tuple[str, ...], request: Request) -> Json:
        if choice not in ("auto", "none") and not self.dialect.forced_tools:
            raise self._refused(request, "it chooses its tools itself; leave tool_choice out, or say auto")
        if isinstance(choice, tuple):
            named: Json = [_function(name) for name in choice]
            return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named}}
        return choice if choice in _CHOICES else _function(choice)

    # ---- refusals --------------------------------------------------------------------------------------------

    def _knows(self, request: Request, what: str) -> bool:
        if not getattr(self.dialect, what):
            raise self._refused(request, f"{self.name} has no {what}; leave it out")
        return True

    def _refused(self, request: Request, message: str) -> BadRequestError:
        return BadRequestError(f"this API cannot be asked that: {message}", model=request.model)


def _function(name: str) -> dict[str, Json]:
    return {"type": "function", "function": {"name": name}}


def _unstreamed(body: dict[str, Json]) -> dict[str, Json]:
    """Whoever wants one answer gets one; only that it should not stream may be said."""
    if body.get("stream") is not False:
        body.pop("stream", None)
    body.pop("stream_options", None)
    return body
