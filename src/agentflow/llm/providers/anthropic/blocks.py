"""Anthropic's content blocks and our parts, each way.

    Text, Image, ToolCall, …  ──block_of──▶  {"type": "text", …}  ──part_of──▶  Text, Reasoning, ToolCall, Raw

What a block says beside its modelled fields (signatures, citations, who called a tool) is the part's opaque data and is
laid back onto the block unchanged. Null says nothing and is not kept. A block that is not modelled is a `Raw`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from agentflow.errors import BadRequestError
from agentflow.llm.content import Audio, Document, Image, Json, Media, Part, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.providers.history import arguments_of
from agentflow.llm.providers.lenient import mapping, text

__all__ = ["API", "block_of", "blocks_of", "cache_mark", "own", "part_of", "said"]

API: Final = "anthropic"
"""The name under which opaque data of this API is kept."""

_PDF: Final = "application/pdf"
_TEXTS: Final = frozenset({"application/json", "application/xml", "application/x-yaml", "application/yaml"})
_LONG: Final = frozenset({"1h", "24h"})  # an hour is the longest this API keeps anything


# ---- parts → blocks ------------------------------------------------------------------------------------------


def blocks_of(parts: Iterable[Part], model: str) -> list[Json]:
    """The blocks of a turn; what belongs to another API is left out. Raises BadRequestError as `block_of` does."""
    made = [block_of(part, model) for part in parts]
    return [block for block in made if block is not None]


def block_of(part: Part, model: str) -> dict[str, Json] | None:
    """One block; None for a `Raw`, or reasoning, of another API. Raises BadRequestError for what is not taken here."""
    if isinstance(part, Raw):
        return dict(part.data) if part.api == API else None
    if isinstance(part, Reasoning):
        return _thinking(part)
    block = _block(part, model)
    cache = getattr(part, "cache", None)
    if cache is not None:
        block["cache_control"] = cache_mark(cache)
    kept = own(part.opaque)
    return {**block, **kept} if kept else block


def cache_mark(ttl: str | None) -> dict[str, Json]:
    """The mark that asks to keep the prompt up to its block: for five minutes, this API's habit, or for an hour."""
    if ttl is None or ttl == "5m":
        return {"type": "ephemeral"}
    return {"type": "ephemeral", "ttl": "1h" if ttl in _LONG else ttl}


def own(opaque: Mapping[str, Json]) -> Mapping[str, Json]:
    """This API's part of opaque data."""
    kept = opaque.get(API)
    return kept if isinstance(kept, Mapping) else {}


def _thinking(part: Reasoning) -> dict[str, Json] | None:
    """Thoughts go back as they came, by the signature under them; those of another API have none and stay away."""
    if API not in part.opaque:
        return None
    kept = own(part.opaque)
    return dict(kept) if "type" in kept else {"type": "thinking", "thinking": part.text, **kept}


def _block(part: Text | Media | ToolCall | ToolResult, model: str) -> dict[str, Json]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments_of(part)}
        case ToolResult():
            return _result(part, model)
        case Image():
            return {"type": "image", "source": _source(part, model)}
        case Document():
            return _document(part, model)
        case Audio() | _:
            raise _unwritable("this API takes no sound: send the words, or ask another model", model)


def _result(part: ToolResult, model: str) -> dict[str, Json]:
    block: dict[str, Json] = {"type": "tool_result", "tool_use_id": part.id}
    if part.content:
        block["content"] = part.content if isinstance(part.content, str) else blocks_of(part.content, model)
    if part.is_error:
        block["is_error"] = True
    return block


def _document(part: Document, model: str) -> dict[str, Json]:
    block: dict[str, Json] = {"type": "document", "source": _document_source(part, model)}
    if part.name is not None:
        block["title"] = part.name
    return block


def _document_source(part: Document, model: str) -> dict[str, Json]:
    kind = part.kind or ""
    if part.data is None or kind == _PDF:
        return _source(part, model)
    if not kind.startswith("text/") and kind not in _TEXTS:
        raise _unwritable(f"this API reads PDF and text, but no {kind or 'document of unknown type'}", model)
    try:
        words = base64.b64decode(part.data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _unwritable(f"a document of type {kind} must be UTF-8 in base64: {error}", model) from None
    return {"type": "text", "media_type": "text/plain", "data": words}  # the only type of text it knows


def _source(part: Media, model: str) -> dict[str, Json]:
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if part.data is None or part.kind is None:
        what = type(part).__name__
        raise _unwritable(f"the type of this {what} is unknown: say {what}(…, media_type='…')", model)
    return {"type": "base64", "media_type": part.kind, "data": part.data}


def _unwritable(problem: str, model: str) -> BadRequestError:
    return BadRequestError(problem, provider=None, model=model)


# ---- blocks → parts ------------------------------------------------------------------------------------------


def part_of(block: Mapping[str, Json]) -> Part | None:
    """The part that a block is; None for an empty text, which this API sends but does not take back."""
    match block.get("type"):
        case "text":
            kept = said(block, "type", "text", empty=True)
            words = text(block.get("text"))
            return Text(words, opaque={API: kept} if kept else {}) if words or kept else None
        case "thinking":
            return Reasoning(text(block.get("thinking")), opaque={API: said(block, "type", "thinking")})
        case "redacted_thinking":
            return Reasoning(opaque={API: said(block)})
        case "tool_use":
            return _call(block)
        case _:
            return Raw(API, block)


def _call(block: Mapping[str, Json]) -> ToolCall:
    """A call. `raw` is written out, so that it is the same value as that of a call which came in pieces."""
    kept = said(block, "type", "id", "name", "input")
    arguments = mapping(block.get("input"))
    return ToolCall(
        text(block.get("id")),
        text(block.get("name")),
        arguments,
        msgspec.json.encode(arguments).decode(),
        opaque={API: kept} if kept else {},
    )


def said(fields: Mapping[str, Json], *modelled: str, empty: bool = False) -> dict[str, Json]:
    """The fields that say something and are not modelled; with `empty`, an empty list says nothing either."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and name not in modelled and not (empty and value == [])
    }
