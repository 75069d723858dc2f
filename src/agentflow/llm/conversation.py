"""A history that stays small enough: turns are added at the end, and dropped or summed up at the beginning.

    chat = Conversation(system="Be brief.", max_tokens=8_000)
    reply = await chat.ask(AgentFlow.model("gpt-4o"), "Hello")          both turns are kept
    chat.messages                                                       what the next question is asked after

    system │ summary │ oldest exchange … newest exchange
                       └─ over max_tokens? dropped whole, or summed up by `summarise`

An exchange is a user's turn with everything up to the next one, so that a tool call is never parted from its result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from agentflow.errors import ConfigurationError
from agentflow.llm.content import (
    Audio,
    Document,
    Image,
    Media,
    Part,
    Raw,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    parts_of,
)
from agentflow.llm.messages import Message, Response

if TYPE_CHECKING:
    from agentflow.llm.builder import LLMClientBuilder

__all__ = ["Conversation", "Summarise", "estimated_tokens"]

T = TypeVar("T")

Summarise: TypeAlias = Callable[[Sequence[Message]], Awaitable[str]]
"""Gets the turns that no longer fit, an earlier summary first; what it returns stands in their place."""

_BYTES_PER_TOKEN: Final = 4  # of UTF-8; right within a third or so for prose in European languages
_TOKENS_PER_TURN: Final = 4  # role and separators
_TOKENS_PER_MEDIA: Final = 1_000  # an image of a megapixel or so


class Conversation:
    """A bounded history of one conversation. One task at a time may use it.

    `max_tokens` bounds what is kept, `count` says how many tokens a turn has (estimated from its length where it is
    left out). What no longer fits is dropped, oldest first and whole exchanges at a time, or given to `summarise`. The
    system text is always kept, and so is the newest exchange, however long it is.

    Raises ConfigurationError for a bound that is none.
    """

    def __init__(
        self,
        *,
        system: str | None = None,
        max_tokens: int | None = None,
        count: Callable[[Message], int] | None = None,
        summarise: Summarise | None = None,
        messages: Iterable[Message] = (),
    ) -> None:
        if max_tokens is not None and max_tokens < 1:
            raise ConfigurationError(f"max_tokens is at least 1, not {max_tokens}")
        self._system = system
        self._max_tokens = max_tokens
        self._count = count or estimated_tokens
        self._summarise = summarise
        self._summary: Message | None = None
        self._turns: list[Message] = list(messages)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the next question is asked after: the system text, the summary, the turns that are kept."""
        system = () if self._system is None else (Message("system", self._system),)
        return (*system, *(() if self._summary is None else (self._summary,)), *self._turns)

    @property
    def tokens(self) -> int:
        """How many tokens `messages` has, by `count`."""
        return sum(map(self._count, self.messages))

    async def ask(self, model: LLMClientBuilder[T], *parts: str | Text | Image | Document | Audio | Raw) -> Response:
        """Ask, and keep question and answer, the turns of tools between them included.

        A question that fails is not kept. Raises as `LLMClientBuilder.execute_full`. To stream, ask the model with
        `.messages(chat.messages)`, and `add` the question and the collected answer's `messages`.
        """
        asked = Message("user", model.prompt(*parts).call.prompt or "")
        await self._shorten([asked])
        reply = await model.messages(self.messages).prompt(*parts).execute_full()
        await self.add(asked, *reply.messages)
        return reply

    async def add(self, *turns: Message) -> None:
        """Keep these turns, and shorten what comes before them."""
        self._turns += turns
        await self._shorten([])

    async def _shorten(self, coming: Sequence[Message]) -> None:
        """Drop, or sum up, the oldest exchanges until the rest fits together with what is coming."""
        if self._max_tokens is None:
            return
        exchanges = _exchanges(self._turns)
        room = self._max_tokens - sum(map(self._count, coming))
        old: list[Message] = []
        keep = 0 if coming else 1
        left = self.tokens
        while left > room and len(exchanges) > keep:
            first = exchanges.pop(0)
            old += first
            left -= sum(map(self._count, first))
        if not old:
            return
        earlier = () if self._summary is None else (self._summary,)
        if self._summarise is not None:
            text = await self._summarise((*earlier, *old))
            self._summary = Message("user", f"Summary of the conversation so far: {text}")
        self._turns = [turn for exchange in exchanges for turn in exchange]


def estimated_tokens(message: Message) -> int:
    """Tokens of a turn by its length: 4 bytes a token, more for media."""
    return _TOKENS_PER_TURN + sum(map(_part_tokens, message.parts))


def _part_tokens(part: Part) -> int:
    match part:
        case Text(text=text) | Reasoning(text=text):
            return _text_tokens(text)
        case ToolCall():
            return _text_tokens(part.name) + _text_tokens(part.json)
        case ToolResult():
            return sum([_part_tokens(inner) for inner in parts_of(part.content)])
        case Media():
            return _TOKENS_PER_MEDIA
        case Raw():
            return _text_tokens(str(part.data))


def _text_tokens(text: str) -> int:
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def _exchanges(turns: Sequence[Message]) -> list[list[Message]]:
    """Turns cut before each user's turn."""
    found: list[list[Message]] = []
    for turn in turns:
        if turn.role == "user" or not found:
            found.append([])
        found[-1].append(turn)
    return found
