"""OpenAI's Responses API, as pure functions each way.

    Request ──write──▶ {"instructions", "input": [item, …], …} ──POST /responses──▶ {"output": [item, …]}, or events
                                                                       ──read, reading──▶ Response, or StreamChunks

Written from OpenAI's API reference, the types of its SDK (3.54) and recorded traffic of OpenAI, Azure and OpenRouter.
What an item is stands in `responses_items`, how answers are read in `responses_output` and
`responses_events`. Unknown fields, items and events pass; a field counts only when it is there.

A leading system turn becomes `instructions`; all else becomes items. What is not modelled goes through `params`:
`store`, `previous_response_id`, `conversation`, `background`, `truncation`, `service_tier`, `text.verbosity`…
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from agentflow.errors import BadRequestError
from agentflow.llm.content import Json, Raw, Text
from agentflow.llm.messages import Message, OutputFormat, Request, Response, Thinking, Tool
from agentflow.llm.providers.api import Wire, merged
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.openai.dialects import effort_of
from agentflow.llm.providers.openai.responses_events import OutputReading
from agentflow.llm.providers.openai.responses_items import NAME, Writing, entry_of, write_items
from agentflow.llm.providers.openai.responses_output import read_count, read_output

__all__ = ["ResponsesApi"]

_CIPHER: Final = "reasoning.encrypted_content"
_LOGPROBS: Final = "message.output_text.logprobs"


class ResponsesApi:
    """The wire format of `POST /responses`.

    Encrypted reasoning is asked for where `store` is false and `thinking` is set: without either it could not be
    replayed, and models that do not reason refuse the wish. Else ask by `params={"include": [...]}`. Marks of what to
    cache go to gpt-5.6 and later, the first that know them; to others they would be an error. `seed` has no word here,
    and `stop`, `top_k` and `n` are refused.
    """

    name = NAME

    def write(self, request: Request, *, stream: bool) -> Wire:
        body = merged(_body(request), _joined(request))
        if stream:
            body["stream"] = True
        elif body.get("stream"):
            del body["stream"]  # a stream is asked for by its own method
        return Wire("/responses", body)

    def read(self, body: bytes, source: Source) -> Response:
        return read_output(body, source)

    def reading(self, source: Source) -> OutputReading:
        return OutputReading(source)

    # ---- counting tokens -------------------------------------------------------------------------------------

    def write_count(self, request: Request) -> Wire:
        """How many input tokens the request has is asked elsewhere, with what of it counts."""
        body = merged(_body(request), _joined(request))
        return Wire("/responses/input_tokens", {name: value for name, value in body.items() if name in _COUNTED})

    def read_count(self, body: bytes, source: Source) -> int:
        return read_count(body, source)


# ---- request -------------------------------------------------------------------------------------------------

_COUNTED: Final = frozenset(
    "conversation input instructions model parallel_tool_calls personality previous_response_id reasoning text "
    "tool_choice tools truncation".split()
)
_GPT: Final = re.compile(r"gpt-(\d{1,3})(?:\.(\d{1,3}))?(?!\d)")
_FIRST_WITH_MARKS: Final = (5, 6)


def _body(request: Request) -> dict[str, Json]:
    """What the request says, before its params."""
    _refuse(request)
    how = Writing(request.model, _takes_marks(request.model), request.params.get("store") is False)
    instructions, turns = _instructions(request.messages, how)
    body: dict[str, Json] = {"model": request.model}
    if instructions is not None:
        body["instructions"] = instructions
    body["input"] = _input(turns, how)
    named: dict[str, Json] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_tokens,
        "parallel_tool_calls": request.parallel_tool_calls,
        "tools": [_tool(tool) for tool in request.tools if isinstance(tool, Tool) or tool.api == NAME] or None,
        "tool_choice": _choice(request),
        "text": {"format": _format(request.output)} if request.output else None,
        "reasoning": _reasoning(request.thinking) if request.thinking else None,
        "include": _include(request) or None,
        "top_logprobs": request.logprobs or None,
        "metadata": dict(request.metadata) or None,
        **_cache(request),
    }
    body.update({name: value for name, value in named.items() if value is not None})
    return body


def _refuse(request: Request) -> None:
    for name, wanted in (
        ("stop", request.stop),
        ("top_k", request.top_k is not None),
        ("n", request.n not in (None, 1)),
    ):
        if wanted:
            raise BadRequestError(
                f"the Responses API has no {name}: leave it out, or use api: chat", model=request.model
            )


def _joined(request: Request) -> Mapping[str, Json]:
    """The params; what they want included is included beside what the request itself needs."""
    params, wanted = request.params, request.params.get("include")
    if not isinstance(wanted, list | tuple):
        return params
    return {**params, "include": [*wanted, *[name for name in _include(request) if name not in wanted]]}


def _instructions(messages: tuple[Message, ...], how: Writing) -> tuple[str | None, tuple[Message, ...]]:
    """The words of a leading system turn, and the other turns. One that has marks or opaque data stays a turn."""
    first = messages[0] if messages else None
    if first is None or first.role != "system" or first.opaque.get(NAME):
        return None, messages
    for part in first.parts:
        if not isinstance(part, Text) or (part.cache and how.marks) or entry_of(part):
            return None, messages
    return first.text, messages[1:]


def _input(messages: tuple[Message, ...], how: Writing) -> Json:
    """The items; one bare user turn may ask by its opaque `shorthand` to be sent as a text alone."""
    items = write_items(messages, how)
    own = messages[0].opaque.get(NAME) if len(messages) == len(items) == 1 else None
    words = messages[0].content if isinstance(own, Mapping) and own.get("shorthand") else None
    return words if isinstance(words, str) else items


def _takes_marks(model: str) -> bool:
    found = _GPT.search(model)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= _FIRST_WITH_MARKS


def _tool(tool: Tool | Raw) -> Json:
    if isinstance(tool, Raw):
        return tool.data
    wire: dict[str, Json] = {
        "type": "function",
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    if tool.strict is not None:
        wire["strict"] = tool.strict
    return wire


def _choice(request: Request) -> Json:
    choice = request.tool_choice
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    if isinstance(choice, str):
        return _named(choice, request.tools)
    return {"type": "allowed_tools", "mode": "required", "tools": [_named(name, request.tools) for name in choice]}


def _named(name: str, tools: Iterable[Tool | Raw]) -> Json:
    """The tool of that name: a function, or one of the provider's own by its name, label or type."""
    own = [tool.data for tool in tools if isinstance(tool, Raw) and tool.api == NAME]
    for data in own:
        if data.get("name") == name and data.get("type") == "custom":
            return {"type": "custom", "name": name}
        if data.get("server_label") == name:
            return {"type": "mcp", "server_label": name}
        if data.get("type") == name:
            return {"type": name}
    return {"type": "function", "name": name}


def _format(output: OutputFormat) -> Json:
    if output.schema is None:
        return {"type": "json_object"}
    wire: dict[str, Json] = {"type": "json_schema", "name": output.name, "schema": output.schema}
    if output.strict is not None:
        wire["strict"] = output.strict
    if output.description is not None:
        wire["description"] = output.description
    return wire


def _reasoning(thinking: Thinking) -> Json:
    effort = effort_of(thinking)
    wire: dict[str, Json] = {} if effort is None else {"effort": effort}
    if thinking.show:
        wire["summary"] = "auto"
    return wire or None


def _include(request: Request) -> list[str]:
    thinks = request.thinking is not None and effort_of(request.thinking) != "none"
    found = [_CIPHER] if thinks and request.params.get("store") is False else []
    return found if request.logprobs is None else [*found, _LOGPROBS]


def _cache(request: Request) -> dict[str, Json]:
    """The key, and the lifetime where the API has that one; else caching is automatic."""
    cache = request.cache
    if cache is None:
        return {}
    wire: dict[str, Json] = {"prompt_cache_key": cache.key}
    if cache.ttl in ("24h", "in_memory"):
        wire["prompt_cache_retention"] = cache.ttl
    elif cache.ttl in ("30m", "12h") and _takes_marks(request.model):
        wire["prompt_cache_options"] = {"ttl": cache.ttl}
    return wire
