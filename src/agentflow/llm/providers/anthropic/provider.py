"""Anthropic's Messages API: requests written, and who calls it.

    Request ──AnthropicApi.write──▶ JSON ──POST /messages──▶ JSON ──read──▶ Response
                                                         └──▶ events ──reading──▶ StreamChunk, StreamChunk, …

Written from the types of Anthropic's own SDK (2.14) and from recorded traffic. What a turn is made of stands in
`blocks`, what is asked of thinking in `thinking`, how answers are read in `answers`.
The API has no word for `seed`, for a turn's `name` or for a cache key: they are left out. `n`, `logprobs` and a JSON
answer without a schema it cannot do: they are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import groupby
from typing import Final
from urllib.parse import quote

import msgspec

from agentflow.errors import BadRequestError, ConfigurationError
from agentflow.llm.content import Json, Part, Raw, ToolResult
from agentflow.llm.messages import Message, ModelInfo, OutputFormat, Request, Response, Tool
from agentflow.llm.providers.anthropic.answers import MessageReading, read_answer
from agentflow.llm.providers.anthropic.blocks import API, blocks_of, cache_mark, own
from agentflow.llm.providers.anthropic.thinking import planned
from agentflow.llm.providers.api import Auth, HTTPProvider, Reading, Wire, decoded, merged
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.batches.endpoint import BatchEndpoint
from agentflow.llm.providers.failures import Source, no_answer
from agentflow.llm.providers.history import ANSWER, WORD, Rules, fitted
from agentflow.llm.providers.http import Transport

__all__ = ["DEFAULT_BASE_URL", "AnthropicApi", "AnthropicProvider"]

DEFAULT_BASE_URL: Final = "https://api.anthropic.com/v1"

_RULES: Final = Rules(API, WORD, media_in_answers=False)
_VERSION: Final = "2023-06-01"
_MAX_TOKENS: Final = 4096  # the API insists on a limit, and every Claude model allows this one
_MARKS: Final = 4  # cache marks that a request may have, that of the whole request among them
_PAGE: Final = 1000  # models on one page of the list, the most there may be
_COUNTED: Final = frozenset(
    "model messages system tools tool_choice thinking output_config cache_control "
    "context_management mcp_servers output_format speed".split()
)


class AnthropicApi:
    """The wire format, as pure functions."""

    name: str = API

    def write(self, request: Request, *, stream: bool) -> Wire:
        body = _body(request)
        _check_marks(body, request.model)
        body = merged(body, request.params)
        if stream or "stream" in body:
            body["stream"] = stream  # the answer is read as what was called for, whatever stands in params
        return Wire("/messages", body)

    def read(self, body: bytes, source: Source) -> Response:
        return read_answer(body, source)

    def reading(self, source: Source) -> Reading:
        return MessageReading(source)


# ---- requests ------------------------------------------------------------------------------------------------


def _body(request: Request) -> dict[str, Json]:
    _check(request)
    plan = planned(request)
    limit = _MAX_TOKENS + plan.tokens if request.max_tokens is None else request.max_tokens  # thoughts count, too
    system, turns = _conversation(request)
    body: dict[str, Json] = {"model": request.model, "max_tokens": limit, "messages": turns}
    given: dict[str, Json] = {
        "system": system or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": list(request.stop) or None,
        "tools": [tool for each in request.tools if (tool := _tool(each)) is not None] or None,
        "tool_choice": _tool_choice(request),
        "thinking": plan.thinking,
        "output_config": _output_config(request.output, plan.effort) or None,
        "metadata": dict(request.labels) or None,
        "cache_control": _cache(request),
    }
    body.update({name: value for name, value in given.items() if value is not None})
    return body


def _check(request: Request) -> None:
    """Refuse what would be lost in silence."""
    if request.n is not None and request.n != 1:
        raise _refused("this API gives one answer a request: ask several times instead of n", request.model)
    if request.logprobs is not None:
        raise _refused("this API gives no log probabilities", request.model)
    if request.output is not None and request.output.schema is None:
        raise _refused("this API gives JSON only to a schema: name one in `output`", request.model)
    if unknown := sorted(set(request.labels) - {"user_id"}):  # the API answers them with a 400 that says less
        raise _refused(f"this API's metadata is user_id alone, and not {', '.join(unknown)}", request.model)


def _refused(problem: str, model: str) -> BadRequestError:
    return BadRequestError(problem, provider=None, model=model)


def _conversation(request: Request) -> tuple[Json, list[Json]]:
    """What stands before the first turn, and the turns. Those of one role in a row the API joins by itself; only the
    results of tools are joined here, since a model that sees them apart stops calling tools in parallel."""
    history = fitted(request.messages, _RULES)
    first = next((at for at, each in enumerate(history) if not _instructs(each)), len(history))
    turns: list[Json] = []
    for role, group in groupby(history[first:], lambda message: message.role):
        messages = list(group)
        turns.extend([_results(messages, request.model)] if role == "tool" else _turns(messages, request.model))
    return _system(history[:first], request.model), turns


def _instructs(message: Message) -> bool:
    return message.role in ("system", "developer")


def _system(messages: tuple[Message, ...], model: str) -> Json:
    """One text stays a text; else blocks."""
    if len(messages) == 1 and isinstance(messages[0].content, str):
        return messages[0].content
    return blocks_of([part for message in messages for part in message.parts], model)


def _turns(messages: Iterable[Message], model: str) -> Iterator[Json]:
    """Turns as they are; one in which this API would find nothing is left out, for it refuses empty ones."""
    for message in messages:
        content: Json = message.content if isinstance(message.content, str) else blocks_of(message.content, model)
        extra = {name: value for name, value in own(message.opaque).items() if name != ANSWER}
        if content or extra or message.role != "assistant":
            yield {"role": "system" if _instructs(message) else message.role, "content": content, **extra}


def _results(messages: list[Message], model: str) -> Json:
    parts: list[Part] = [part for message in messages for part in message.parts]
    if not parts or not all(isinstance(part, ToolResult | Raw) for part in parts):
        raise _refused("a tool's turn is made of ToolResult(id, …) parts, by the id of the call", model)
    return {"role": "user", "content": blocks_of(parts, model)}


def _tool(tool: Tool | Raw) -> dict[str, Json] | None:
    """A function, or a tool that the provider runs itself; such a one of another API is left out."""
    if isinstance(tool, Raw):
        return dict(tool.data) if tool.api == API else None
    wire: dict[str, Json] = {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.parameters or {"type": "object"},
    }
    if tool.strict is not None:
        wire["strict"] = tool.strict
    if tool.cache is not None:
        wire["cache_control"] = cache_mark(tool.cache)
    return wire


def _tool_choice(request: Request) -> dict[str, Json] | None:
    """Which tool, and whether only one at a time; the latter has no place of its own."""
    wanted, parallel = request.tool_choice, request.parallel_tool_calls
    if wanted is None and (parallel is not False or not request.tools):
        return None
    choice = _choice("auto" if wanted is None else wanted, request)
    if parallel is not None and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = not parallel
    return choice


def _choice(wanted: str | tuple[str, ...], request: Request) -> dict[str, Json]:
    if isinstance(wanted, tuple):
        return _one_of(wanted, request)
    if wanted in ("auto", "none"):
        return {"type": wanted}
    return {"type": "any"} if wanted == "required" else {"type": "tool", "name": wanted}


def _one_of(names: tuple[str, ...], request: Request) -> dict[str, Json]:
    if len(names) == 1:
        return {"type": "tool", "name": names[0]}
    if set(names) == {str(tool.data.get("name")) if isinstance(tool, Raw) else tool.name for tool in request.tools}:
        return {"type": "any"}
    raise _refused("this API calls one named tool, or any: give it only the tools that may be called", request.model)


def _output_config(output: OutputFormat | None, effort: str | None) -> dict[str, Json]:
    config: dict[str, Json] = {}
    if effort is not None:
        config["effort"] = effort
    if output is not None and output.schema is not None:
        described = {"description": output.description} if output.description else {}
        config["format"] = {"type": "json_schema", "schema": {**described, **output.schema}}
    return config


def _cache(request: Request) -> dict[str, Json] | None:
    """The mark of the whole request, which the API moves to the last block that can bear it."""
    if request.cache is None:
        return None
    ttl = request.cache.ttl
    return {"type": "ephemeral", "ttl": ttl} if ttl == "5m" else cache_mark(ttl)


def _check_marks(body: Mapping[str, Json], model: str) -> None:
    marks = sum(_marks(body[name]) for name in ("tools", "system", "messages") if name in body)
    marks += "cache_control" in body
    if marks > _MARKS:
        raise _refused(f"this API takes at most {_MARKS} cache marks, and here are {marks}", model)


def _marks(value: Json) -> int:
    """Marks on blocks and on the blocks inside them; the content of a turn is a list of blocks, too."""
    if not isinstance(value, list | tuple):
        return 0
    blocks = [block for block in value if isinstance(block, Mapping)]
    return sum([(block.get("cache_control") is not None) + _marks(block.get("content")) for block in blocks])


# ---- the provider --------------------------------------------------------------------------------------------


class _Counted(msgspec.Struct):
    input_tokens: int


class _Listed(msgspec.Struct):
    id: str
    display_name: str | None = None
    created_at: str | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None


class _Models(msgspec.Struct):
    data: list[_Listed]
    has_more: bool = False
    last_id: str | None = None


_COUNT: Final = msgspec.json.Decoder(_Counted)
_MODELS: Final = msgspec.json.Decoder(_Models)


class AnthropicProvider(HTTPProvider):
    """Claude by Anthropic's own API, or by a server that speaks it.

    Options: `version` of the API, and `beta`, a feature or a list of features that are not yet for everybody; both are
    headers, which `headers` of the settings may also say. Counts tokens, lists models, takes batches.
    """

    def __init__(self, settings: ProviderSettings, transport: Transport | None = None) -> None:
        super().__init__(
            settings,
            AnthropicApi(),
            base_url=settings.base_url or DEFAULT_BASE_URL,
            auth=Auth("x-api-key", ""),
            headers=_headers(settings),
            transport=transport,
        )

    async def count_tokens(self, request: Request) -> int:
        """The input tokens of a request as the API counts them, which is an estimate; it costs nothing."""
        body = self.api.write(request, stream=False).body
        counted = {name: value for name, value in body.items() if name in _COUNTED}
        answer, source = await self._post(Wire("/messages/count_tokens", counted), request.model, request.timeout)
        return decoded(_COUNT, answer.body, source).input_tokens

    def batches(self) -> BatchEndpoint:
        """Many requests as one, answered within a day."""
        from agentflow.llm.providers.batches.anthropic import MessageBatches  # few calls need it

        return MessageBatches(self)

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """The models of today, the newest first."""
        found: list[ModelInfo] = []
        path = f"/models?limit={_PAGE}"
        while True:
            answer, source = await self._get(path)
            page = decoded(_MODELS, answer.body, source)
            found.extend([_model(each) for each in page.data])
            if not page.has_more:
                return tuple(found)
            if not page.last_id or not page.data:
                raise no_answer("the list goes on, but does not say where", answer.body, source)
            path = f"/models?limit={_PAGE}&after_id={quote(page.last_id, safe='')}"


def _model(listed: _Listed) -> ModelInfo:
    return ModelInfo(
        listed.id,
        listed.display_name,
        context=listed.max_input_tokens or None,
        max_output=listed.max_tokens or None,
        created=_seconds(listed.created_at),
    )


def _seconds(created: str | None) -> int | None:
    """Seconds since 1970, the beginning of which stands for an unknown date."""
    try:
        return int(datetime.fromisoformat(created or "").timestamp()) or None
    except (ValueError, OverflowError):
        return None


def _headers(settings: ProviderSettings) -> dict[str, str]:
    version, beta = settings.options.get("version", _VERSION), settings.options.get("beta", [])
    features = [beta] if isinstance(beta, str) else beta
    if not isinstance(version, str) or not version:
        raise _misfit(settings, "version is a text", version)
    if not isinstance(features, list | tuple) or not all(isinstance(each, str) and each for each in features):
        raise _misfit(settings, "beta is a text or a list of texts", beta)
    headers = {"anthropic-version": version}
    if features:
        headers["anthropic-beta"] = ",".join(map(str, features))
    return headers


def _misfit(settings: ProviderSettings, wanted: str, value: object) -> ConfigurationError:
    return ConfigurationError(f"provider {settings.name!r}: {wanted}, not {value!r}")
