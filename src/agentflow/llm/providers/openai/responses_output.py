"""What OpenAI's Responses API answers in one piece, and what it says of the answer as a whole.

{"status": "completed", "output": [item, …], "usage": …}  ──read_output──▶  Response
the same, at the end of a stream                          ──end_chunk──▶  StreamChunk
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from agentflow.errors import ModelError
from agentflow.llm.content import Json, Part, ToolCall, content_of
from agentflow.llm.messages import Response, StreamChunk, TokenLogprob, Usage
from agentflow.llm.providers.api import decoded
from agentflow.llm.providers.failures import Source, no_answer, too_deep, wire_error
from agentflow.llm.providers.lenient import count, mapping, mappings, number, text
from agentflow.llm.providers.openai.responses_items import entry_of, read_item

__all__ = ["end_chunk", "failure", "is_refusal", "items_of", "logprobs", "read_count", "read_output"]

_BODY: Final[msgspec.json.Decoder[Mapping[str, Json]]] = msgspec.json.Decoder(Mapping[str, Json])

# What the answer repeats of the request, and what has a field of its own; the rest is the turn's opaque data.
_NOT_OPAQUE: Final = frozenset(
    "instructions tools tool_choice parallel_tool_calls text temperature top_p top_logprobs truncation prompt user "
    "max_output_tokens max_tool_calls metadata safety_identifier frequency_penalty presence_penalty prompt_cache_key "
    "prompt_cache_options prompt_cache_retention "
    "object id model output output_text status error service_tier".split()
)
_FINISH: Final = {
    "completed": "stop",
    "complete": "stop",  # of servers that imitate it
    "max_output_tokens": "length",
    "content_filter": "content_filter",
    "queued": "paused",  # in the background
    "in_progress": "paused",
    "cancelled": "error",
}
_NO_REASON: Final[Json] = {"code": "server_error", "message": "the answer failed, and the server does not say why"}


def read_output(body: bytes, source: Source, name: str) -> Response:
    """A whole answer; `name` is the API's in opaque data. Raises ProtocolError, or what an error in it says."""
    try:
        return _response(decoded(_BODY, body, source), body, source, name)
    except RecursionError:
        raise too_deep(body, source) from None


def _response(wire: Mapping[str, Json], body: bytes, source: Source, name: str) -> Response:
    output = items_of(wire, source)
    if output is None:
        raise no_answer("it has no output", body, source)
    parts = [piece.part for item in output for piece in read_item(item, name)]
    finish, raw = _finish(
        wire,
        calls=any(isinstance(part, ToolCall) for part in parts),
        refused=any(is_refusal(part, name) for part in parts),
    )
    return Response(
        content_of(parts),
        text(wire.get("model")) or source.model,
        source.provider,
        usage=_usage(wire),
        finish_reason=finish,
        raw_finish_reason=raw,
        request_id=source.request_id,
        cost=_cost(wire),
        opaque=_turn(wire, name),
        id=text(wire.get("id")) or None,
        service_tier=text(wire.get("service_tier")) or None,
        logprobs=tuple([token for part in parts for token in logprobs(entry_of(part, name).get("logprobs"))]),
    )


def read_count(body: bytes, source: Source) -> int:
    """How many input tokens the API has counted."""
    wire = decoded(_BODY, body, source)
    if wire.get("error"):
        raise wire_error(wire["error"], source)
    if not isinstance(wire.get("input_tokens"), int):
        raise no_answer("it has no input_tokens", body, source)
    return count(wire["input_tokens"])


def end_chunk(wire: Mapping[str, Json], source: Source, name: str, *, calls: bool, refused: bool) -> StreamChunk:
    """What the end of a stream says of the whole answer. `calls` and `refused` tell what the stream had in it."""
    finish, raw = _finish(wire, calls=calls, refused=refused)
    return StreamChunk(
        finish_reason=finish,
        raw_finish_reason=raw,
        usage=_usage(wire),
        model=text(wire.get("model")) or None,
        request_id=source.request_id,
        opaque=_turn(wire, name),
        id=text(wire.get("id")) or None,
        service_tier=text(wire.get("service_tier")) or None,
        cost=_cost(wire),
    )


def failure(error: Json, source: Source) -> ModelError:
    """The error of an answer that has failed."""
    return wire_error(error or _NO_REASON, source)


def items_of(wire: Mapping[str, Json], source: Source) -> list[Mapping[str, Json]] | None:
    """The items of an answer; None where it has no list of them. Raises what an error in it says."""
    if wire.get("error") or wire.get("status") == "failed":
        raise failure(wire.get("error"), source)
    output = wire.get("output")
    return list(mappings(output)) if isinstance(output, list) else None


def _finish(wire: Mapping[str, Json], *, calls: bool, refused: bool) -> tuple[str | None, str | None]:
    """Our word for why the answer ended, and the API's own: its status, or why it is incomplete."""
    status = text(wire.get("status"))
    raw = status
    if status == "incomplete":
        raw = text(mapping(wire.get("incomplete_details")).get("reason")) or status
    word = _FINISH.get(raw, raw) or None
    if word in ("stop", None):
        word = "content_filter" if refused else "tool_calls" if calls else word
    return word, raw or None


def is_refusal(part: Part, name: str) -> bool:
    """Whether these words are why the model does not answer."""
    return entry_of(part, name).get("type") == "refusal"


def _usage(wire: Mapping[str, Json]) -> Usage | None:
    usage = mapping(wire.get("usage"))
    if usage.get("input_tokens") is None and usage.get("output_tokens") is None:
        return None
    taken, given = mapping(usage.get("input_tokens_details")), mapping(usage.get("output_tokens_details"))
    return Usage(
        count(usage.get("input_tokens")),
        count(usage.get("output_tokens")),
        cached_tokens=count(taken.get("cached_tokens")),
        reasoning_tokens=count(given.get("reasoning_tokens")),
        cache_write_tokens=count(taken.get("cache_write_tokens")),
        input_audio_tokens=count(taken.get("audio_tokens")),
        output_audio_tokens=count(given.get("audio_tokens")),
    )


def _cost(wire: Mapping[str, Json]) -> float | None:
    """What OpenRouter says that the call cost, in USD."""
    return number(mapping(wire.get("usage")).get("cost"))


def _turn(wire: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    kept = {field: value for field, value in wire.items() if value and field not in _NOT_OPAQUE}
    return {name: kept} if kept else {}


def logprobs(value: object) -> list[TokenLogprob]:
    """The tokens of one text, where they were asked for."""
    return [
        TokenLogprob(*_token(entry), tuple([_token(top) for top in mappings(entry.get("top_logprobs"))]))
        for entry in mappings(value)
    ]


def _token(entry: Mapping[str, Json]) -> tuple[str, float]:
    return text(entry.get("token")), number(entry.get("logprob")) or 0.0
