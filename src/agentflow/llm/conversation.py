"""A history that stays small enough: turns are added at the end, and dropped or summed up at the beginning.

    chat = Conversation(system="Be brief.", max_tokens=8_000)
    reply = await chat.ask(AgentFlow.model("gpt-4o"), "Hello")          both turns are kept
    chat.messages                                                       what the next question is asked after

    system │ the model's own .messages │ summary │ oldest exchange … newest exchange │ question
                                                   └─ over max_tokens? dropped whole, or summed up by `summarise`

An exchange is a user's turn with everything up to the next one, so that a tool call is never parted from its result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from agentflow.errors import ConfigurationError
from agentflow.llm.content import Audio, Document, Image, Raw, Text
from agentflow.llm.estimate import estimated_tokens
from agentflow.llm.messages import Message, Response

if TYPE_CHECKING:
    from agentflow.llm.builder import LLMClientBuilder

__all__ = ["Conversation", "Summarise"]

T = TypeVar("T")

Summarise: TypeAlias = Callable[[Sequence[Message]], Awaitable[str]]
"""Gets the turns that no longer fit, an earlier summary first; what it returns stands in their place."""


@dataclass(frozen=True, slots=True)
class _History:
    """What is kept beside the system text; never changed, so that a question that fails costs nothing."""

    turns: tuple[Message, ...]
    summary: Message | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        return self.turns if self.summary is None else (self.summary, *self.turns)

    def plus(self, *turns: Message) -> _History:
        return _History((*self.turns, *turns), self.summary)


class Conversation:
    """A bounded history of one conversation, which answers one question after the other.

    `max_tokens` bounds what is sent: system text, history and question; `count` says how many tokens a turn has
    (estimated from its length where it is left out). What no longer fits is dropped before the next question, oldest
    first and whole exchanges at a time. With `summarise` it is summed up instead: exchanges are left half the room, the
    summary a quarter, so that not every question needs one; what is longer, or than what it stands for, is cut. Where a
    long question leaves no room for a summary, `ask` does not send the exchanges this once, and keeps them. The system
    text is always sent, and `add` keeps the newest exchange, however long it is.

    System turns at the head of `messages` are the system text. Raises ConfigurationError for a bound that is none, and
    where both `system` and `messages` give a system text.
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
        turns = tuple(messages)
        leading = tuple(takewhile(lambda turn: turn.role == "system", turns))
        if leading and system is not None:
            raise ConfigurationError("system= is given, and messages= begin with a system turn: leave one of them out")
        self._system = leading if system is None else (Message("system", system),)
        self._max_tokens = max_tokens
        self._count = count or estimated_tokens
        self._summarise = summarise
        self._history = _History(turns[len(leading) :])
        self._busy = False

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the next question is asked after: the system text, the summary, the turns that are kept."""
        return (*self._system, *self._history.messages)

    @property
    def tokens(self) -> int:
        """How many tokens `messages` has, by `count`."""
        return self._tokens(self.messages)

    async def ask(self, model: LLMClientBuilder[T], *parts: str | Text | Image | Document | Audio | Raw) -> Response:
        """Ask, and keep question and answer, the turns of tools between them included.

        What `model` itself was given with `.messages` (examples, for instance) is sent before the history each time,
        and is not kept; its `.system` is the system text of a conversation that has none.

        A question that fails, and a summary that does, leave the history as it was. Raises as
        `LLMClientBuilder.execute_full`; ConfigurationError without a question, where the model has one already, where
        both have a system text, and while another question is being answered. To stream, ask the model with
        `.messages(chat.messages)`, and `add` the question and the collected answer's `messages`.
        """
        if model.call.prompt is not None:
            raise ConfigurationError("the model has a prompt already: chat.ask(model, …) takes the question alone")
        if not any(part or not isinstance(part, str) for part in parts):
            raise ConfigurationError("there is nothing to ask: chat.ask(model, …) takes the question, not the model")
        with self._alone():
            return await self._asked(model, parts)

    async def _asked(
        self, model: LLMClientBuilder[T], parts: tuple[str | Text | Image | Document | Audio | Raw, ...]
    ) -> Response:
        own = (*(() if (system := model.call.system) is None else (Message("system", system),)), *model.call.messages)
        if self._system and own and own[0].role == "system":
            raise ConfigurationError("both the conversation and the model have a system text: leave one of them out")
        asked = Message("user", model.prompt(*parts).call.prompt or "")
        sent, kept = await self._shortened(self._history, self._tokens((*self._system, *own, asked)), keep=0)
        turns = (*self._system, *model.call.messages, *sent.messages)
        reply = await model.messages(turns).prompt(*parts).execute_full()
        self._history = kept.plus(asked, *reply.messages)
        return reply

    async def add(self, *turns: Message) -> None:
        """Keep these turns, and shorten what comes before them. They are kept, too, where the summary fails. Raises
        ConfigurationError while a question is being answered."""
        with self._alone():
            self._history = self._history.plus(*turns)
            self._history, _ = await self._shortened(self._history, self._tokens(self._system), keep=1)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else may change the history meanwhile: what they kept would be lost."""
        if self._busy:
            raise ConfigurationError(
                "this conversation is still waiting for an answer, which what comes next builds on: await it first, "
                "or give each task a Conversation of its own"
            )
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def _shortened(self, history: _History, others: int, *, keep: int) -> tuple[_History, _History]:
        """The history without its oldest exchanges, so that it fits together with `others`; `keep` stay at any rate.
        First what is sent, then what may be kept: all of it, where there is no room to sum up what is not sent."""
        if self._max_tokens is None:
            return history, history
        room = self._max_tokens - others
        if self._tokens(history.messages) <= room:
            return history, history
        goal = room if self._summarise is None else room // 2
        exchanges = _exchanges(history.turns)
        size, gone = self._tokens(history.turns), 0
        for exchange in exchanges[: len(exchanges) - keep]:
            if size <= goal:
                break
            size -= self._tokens(exchange)
            gone += len(exchange)
        replaced = (*history.messages[: len(history.messages) - len(history.turns)], *history.turns[:gone])
        rest = _History(history.turns[gone:])
        if self._summarise is None:
            return rest, rest
        heading = self._count(_summed_up(""))
        most = min(self._tokens(replaced), room - size)
        if heading < room // 4:
            most = min(most, room // 4)
        if heading >= most:
            return rest, history
        rest = _History(rest.turns, await self._summary(self._summarise, replaced, most))
        return rest, rest

    async def _summary(self, summarise: Summarise, turns: Sequence[Message], most: int) -> Message | None:
        """What stands in place of these turns, in at most so many tokens."""
        text = await summarise(turns)
        while (size := self._count(made := _summed_up(text))) > most and text:
            text = text[: min(len(text) * most // size, len(text) - 1)]
        return made if text else None

    def _tokens(self, turns: Iterable[Message]) -> int:
        return sum(map(self._count, turns))


def _summed_up(text: str) -> Message:
    return Message("user", f"Summary of the conversation so far: {text}")


def _exchanges(turns: Sequence[Message]) -> list[list[Message]]:
    """Turns cut before each user's turn."""
    found: list[list[Message]] = []
    for turn in turns:
        if turn.role == "user" or not found:
            found.append([])
        found[-1].append(turn)
    return found
