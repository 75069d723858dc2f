"""A history made fit for an API that may not have written it: what one provider said, told to another.

    Message, Message, …  ──fitted(…, Rules)──▶  Message, Message, …

Ids of tool calls are left alone where the API takes them, and otherwise replaced, the same in the call and in its
result. Texts without words are left out, and turns with nothing left, except those of tools, which answer a call; so
are parts that only another API can read. Pictures in the results of tools, and those that a model drew, follow as a
user's turn where an API takes none there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from agentflow.llm.content import Audio, Document, Image, Json, Part, Raw, Text, ToolCall, ToolResult, content_of
from agentflow.llm.messages import Message

__all__ = ["ANSWER", "NINE_LETTERS", "WORD", "Rules", "ToolIds", "arguments_of", "fitted"]

ANSWER: Final = "answer"
"""Where a turn's opaque data holds what belongs to the answer and not to the turn, so that it never goes back."""

P = TypeVar("P", ToolCall, ToolResult)

_MEDIA: Final = (Image, Document, Audio)
_LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class ToolIds(Struct, frozen=True):
    """Which ids of tool calls an API takes: those that `pattern` matches whole. Others become `length` letters that
    depend on nothing but the id, or, without a length, the id with what is not allowed replaced and a mark behind."""

    pattern: str
    length: int | None = None

    def fit(self, name: str) -> str:
        """The id, or one that stands for it alone."""
        if re.fullmatch(self.pattern, name):
            return name
        digest = hashlib.sha256(name.encode("utf-8", "replace")).digest()
        if self.length is None:
            return f"{re.sub(r'[^a-zA-Z0-9_-]', '_', name)[:40]}_{digest.hex()[:8]}"
        return "".join([_LETTERS[byte % len(_LETTERS)] for byte in digest[: self.length]])


WORD: Final = ToolIds(r"[a-zA-Z0-9_-]{1,64}")
"""What Anthropic takes, and OpenAI gives."""
NINE_LETTERS: Final = ToolIds(r"[a-zA-Z0-9]{9}", 9)
"""What Mistral takes and gives."""


class Rules(Struct, frozen=True):
    """What an API asks of a history. `api` is its name in opaque data. Without `media_in_answers` an assistant's turn
    holds only those that the API itself sent; with `blanks` a text of nothing but blanks is one."""

    api: str
    tool_ids: ToolIds | None = None
    media_in_results: bool = True
    media_in_answers: bool = True
    blanks: bool = False


def arguments_of(call: ToolCall) -> Mapping[str, Json]:
    """A call's arguments for an API that takes nothing but an object: what is none stands in one, so that the model
    sees what it wrote (as Anthropic documents for fine-grained tool streaming)."""
    return call.arguments if call.arguments or not call.invalid else {"INVALID_JSON": call.raw}


def fitted(messages: tuple[Message, ...], rules: Rules) -> tuple[Message, ...]:
    """The same turns as the API takes them; the very same object where nothing is to be done."""
    if all(type(message.content) is str and message.content.strip() for message in messages):
        return messages
    made: list[Message] = []
    held: list[Part] = []  # media of the turns before, which follow the last result of a tool
    for message in messages:
        given = taken = message.parts
        if held and message.role != "tool" and not any(isinstance(part, ToolResult) for part in given):
            made.append(Message("user", content_of(held)))
            held = []
        if message.role == "assistant" and not rules.media_in_answers:
            taken = _without_media(given, rules, held)
        parts = [fit for part in taken for fit in _fit(part, rules, held)]
        if parts and len(parts) == len(given) and all(map(is_, parts, given)):
            made.append(message)  # one text may be a text or a list to its API, and stays what it is
        elif parts or message.role == "tool" or message.opaque.get(rules.api):
            made.append(replace(message, content=content_of(parts)))
    if held:
        made.append(Message("user", content_of(held)))
    return tuple(made)


def _fit(part: Part, rules: Rules, held: list[Part]) -> Iterator[Part]:
    """The part as the API takes it, or nothing."""
    match part:
        case Text(text=text, opaque=opaque) if not (text if rules.blanks else text.strip()) and rules.api not in opaque:
            return
        case Raw(api=api) if api != rules.api:
            return
        case ToolCall():
            yield _named(part, rules)
        case ToolResult():
            yield _result(_named(part, rules), rules, held)
        case _:
            yield part


def _without_media(parts: tuple[Part, ...], rules: Rules, held: list[Part]) -> tuple[Part, ...]:
    """An answer without what another model drew, which the user shows instead, and without its voice, where the words
    say the same."""
    foreign = [part for part in parts if isinstance(part, _MEDIA) and rules.api not in part.opaque]
    if not foreign:
        return parts
    words = any(isinstance(part, Text) for part in parts)
    shown = [part for part in foreign if not (words and isinstance(part, Audio))]
    if shown:
        held.extend([Text("The answer held this:"), *shown])
    return tuple([part for part in parts if part not in foreign])


def _named(part: P, rules: Rules) -> P:
    name = part.id if rules.tool_ids is None else rules.tool_ids.fit(part.id)
    return part if name == part.id else replace(part, id=name)


def _result(result: ToolResult, rules: Rules, held: list[Part]) -> ToolResult:
    if isinstance(result.content, str) or rules.media_in_results:
        return result
    media = [part for part in result.content if isinstance(part, _MEDIA)]
    if not media:
        return result
    said = f"Result of {result.name or 'the tool'} ({result.id}):"
    held.extend([Text(said), *media])
    words = "".join(_words(result.content))
    return replace(result, content=words or "The result follows.")


def _words(parts: Iterable[Part]) -> Iterator[str]:
    return (part.text for part in parts if isinstance(part, Text))
