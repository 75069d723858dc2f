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
from agentflow.llm.providers.efforts import effort_of
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.history import WORD, Rules, fitted
from agentflow.llm.providers.openai.responses_events import OutputReading
from agentflow.llm.providers.openai.responses_items import NAME, Writing, entry_of, own, write_items
from agentflow.llm.providers.openai.responses_output import read_count, read_output

__all__ = ["ResponsesApi"]

_CIPHER: Final = "reasoning.encrypted_content"
_LOGPROBS: Final = "message.output_text.logprobs"


class ResponsesApi:
    """The wire format of `POST /responses`. `server` is the name of its dialect: ids of items and encrypted reasoning
    go back to that one alone, so its opaque data has a name of its own, as it has in Chat Completions.

    Encrypted reasoning is asked for where `store` is false, since the server then keeps none, and `thinking` is set or
    the model reasons by its nature: others refuse the wish. Else ask by `params={"include": [...]}`. Marks of what to
    cache go to gpt-5.6 and later, the first that know them; to others they would be an error. `seed` has no word here,
    and `stop`, `top_k` and `n` are refused. A `Raw` tool under "responses" is for every server.
    """

    def __init__(self, server: str = "openai") -> None:
        self.name = NAME if server == "openai" else f"{NAME}:{server}"

    def write(self, request: Request, *, stream: bool) -> Wire:
        body = merged(_body(request, self.name), _joined(request))
        if stream:
            body["stream"] = True
        elif body.get("stream"):
            del body["stream"]  # a stream is asked for by its own method
        return Wire("/responses", body)

    def read(self, body: bytes, source: Source) -> Response:
        return read_output(body, source, self.name)

    def reading(self, source: Source) -> OutputReading:
        return OutputReading(source, self.name)

    # ---- counting tokens -------------------------------------------------------------------------------------

    def write_count(self, request: Request) -> Wire:
        """How many input tokens the request has is asked elsewhere, with what of it counts."""
        body = merged(_body(request, self.name), _joined(request))
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
_REASONS: Final = re.compile(r"(?:^|[/:])(?:o\d|codex-|gpt-(?:[5-9]|\d\d))(?!.*chat)")  # gpt-5-chat does not


def _body(request: Request, name: str) -> dict[str, Json]:
    """What the request says, before its params."""
    _refuse(request)
    how = Writing(request.model, name, _takes_marks(request.model), _is_stateless(request))
    instructions, turns = _instructions(request.messages, how)
    tools = [tool for tool in request.tools if isinstance(tool, Tool) or tool.api in (NAME, name)]
    body: dict[str, Json] = {"model": request.model}
    if instructions is not None:
        body["instructions"] = instructions
    body["input"] = _input(fitted(turns, Rules(name, WORD, media_in_answers=False, blanks=True)), how)
    named: dict[str, Json] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_tokens,
        "parallel_tool_calls": request.parallel_tool_calls,
        "tools": [_tool(tool) for tool in tools] or None,
        "tool_choice": _choice(request.tool_choice, tools),
        "text": {"format": _format(request.output)} if request.output else None,
        "reasoning": _reasoning(request.thinking) if request.thinking else None,
        "include": _include(request) or None,
        "top_logprobs": request.logprobs or None,
        "metadata": dict(request.labels) or None,
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
    if first is None or first.role != "system" or own(first.opaque, how.name):
        return None, messages
    for part in first.parts:
        if not isinstance(part, Text) or (part.cache and how.marks) or entry_of(part, how.name):
            return None, messages
    return first.text, messages[1:]


def _input(messages: tuple[Message, ...], how: Writing) -> Json:
    """The items; one bare user turn may ask by its opaque `shorthand` to be sent as a text alone."""
    items = write_items(messages, how)
    if len(messages) == len(items) == 1 and own(messages[0].opaque, how.name).get("shorthand"):
        words = messages[0].content
        return words if isinstance(words, str) else items
    return items


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


def _choice(choice: str | tuple[str, ...] | None, tools: Iterable[Tool | Raw]) -> Json:
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    if isinstance(choice, str):
        return _named(choice, tools)
    return {"type": "allowed_tools", "mode": "required", "tools": [_named(name, tools) for name in choice]}


def _named(name: str, tools: Iterable[Tool | Raw]) -> Json:
    """The tool of that name: a function, or one of the provider's own by its name, label or type."""
    for data in [tool.data for tool in tools if isinstance(tool, Raw)]:
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
    found = [_CIPHER] if _is_stateless(request) and _may_reason(request) else []
    return found if request.logprobs is None else [*found, _LOGPROBS]


def _is_stateless(request: Request) -> bool:
    return request.params.get("store") is False


def _may_reason(request: Request) -> bool:
    """Whether there may be thoughts: they were asked for, or the model has them unasked."""
    if request.thinking is not None:
        return effort_of(request.thinking) != "none"
    return _REASONS.search(request.model) is not None


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
