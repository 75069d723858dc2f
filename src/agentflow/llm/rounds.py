"""One question, however many requests its answer takes: tools are run, misfits are asked again.

    ask ──▶ answer ──┬─ calls tools ──▶ run them, add the answer and the results ──▶ ask again
                     ├─ does not fit the type ──▶ say why ──▶ ask again, a few times
                     └─ else: that is it

Usage and cost of the answer are those of all its requests; the turns in between are its `turns`. What to do next is
decided in `_Plan`, for whole answers and for streams alike.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from agentflow.core.observability.events import emit, observed
from agentflow.errors import OutputError
from agentflow.llm.answer import answer_call, value_of
from agentflow.llm.attempts import Attempts, Guards
from agentflow.llm.content import ToolResult
from agentflow.llm.messages import Message, Request, Response, StreamChunk, Tool, Usage
from agentflow.llm.output import OutputType
from agentflow.llm.streaming.join import Joiner
from agentflow.llm.tools.toolbox import Toolbox

__all__ = ["Plan", "Rounds", "with_output"]

_UNFORCED: Final = (None, "auto", "none")


class Plan(Struct, frozen=True):
    """What a question needs beside its requests: tools to run, a type that the answer must fit.

    `by_tool` names the tool that the model answers through, where the API has no words for a schema. A misfit is asked
    again at most `retries` times.
    """

    toolbox: Toolbox | None = None
    output: OutputType[Any] | None = None
    by_tool: str | None = None
    retries: int = 2


class Rounds:
    """Asks until there is an answer."""

    __slots__ = ("_plan", "_request", "guards")

    def __init__(self, guards: Guards, request: Request, plan: Plan) -> None:
        self.guards = guards
        self._request = request
        self._plan = plan

    async def whole(self) -> Response:
        """The answer. Raises what a request raises, LimitExceededError, OutputError, ToolError."""
        progress = _Progress(self.guards, self._plan, self._request)
        number = 0
        while True:
            response = await Attempts(self.guards, progress.request, number).whole()
            if await progress.ends_with(response):
                return progress.total(response)
            number += 1

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """The answer as it comes, and what leads to it: every chunk says to which round it belongs."""
        progress = _Progress(self.guards, self._plan, self._request)
        number = 0
        while True:
            joiner = Joiner()
            async with aclosing(Attempts(self.guards, progress.request, number).chunks()) as source:
                async for chunk in source:
                    joiner.add(chunk)
                    yield replace(chunk, round=number) if number else chunk
            response = joiner.response(provider=self.guards.config.provider, model=progress.request.model)
            if await progress.ends_with(response):
                return
            number += 1
            for turn in progress.added:
                yield StreamChunk(round=number, turn=turn)


class _Progress:
    """How far the answer is: the request that comes next, and what was spent."""

    __slots__ = ("_guards", "_misfits", "_plan", "_spent", "_turns", "added", "request")

    def __init__(self, guards: Guards, plan: Plan, request: Request) -> None:
        self.request = request
        self.added: tuple[Message, ...] = ()
        self._guards = guards
        self._plan = plan
        self._misfits = 0
        self._turns: tuple[Message, ...] = ()
        self._spent: list[Response] = []

    async def ends_with(self, response: Response) -> bool:
        """Whether this is the answer; if not, `request` is the next one to make, and `added` what it has more."""
        toolbox = self._plan.toolbox
        calls = tuple([call for call in response.tool_calls if call.name != self._plan.by_tool])
        if toolbox is not None and len(calls) == len(response.tool_calls) and toolbox.serves(calls):
            for ledger in self._guards.ledgers:
                ledger.tool_round()
            results = await toolbox.results(calls, self._guards.clock)
            self._go_on(response, Message("tool", results))
            self._let_answer()
            return False
        misfit = self._misfit(response)
        if misfit is None:
            return True
        if response.finish_reason == "length" or self._misfits >= self._plan.retries:  # cut off, it would be cut again
            raise misfit
        await self._ask_again(response, misfit.problem)
        return False

    def total(self, response: Response) -> Response:
        """The answer, with what all its requests have used and the turns between."""
        if not self._spent:
            return response
        every = [*self._spent, response]
        usages = [each.usage for each in every if each.usage is not None]
        costs = [each.cost for each in every if each.cost is not None]
        return replace(
            response,
            usage=sum(usages, Usage()) if usages else None,
            cost=sum(costs) if len(costs) == len(every) else None,
            turns=self._turns,
        )

    def _misfit(self, response: Response) -> OutputError | None:
        """Why the answer does not fit; None where it does, or where it calls tools that the caller runs."""
        output = self._plan.output
        if output is None or (response.tool_calls and answer_call(response, output.format.name) is None):
            return None
        try:
            value_of(response, output)
        except OutputError as misfit:
            return misfit
        return None

    async def _ask_again(self, response: Response, problem: str) -> None:
        self._misfits += 1
        if observed():
            await emit("output_retry", {"model": self._guards.config.name, "problem": problem})
        again = f"Your answer does not fit what was asked for: {problem}. Answer again, with all of it."
        if response.tool_calls:
            results = [ToolResult(call.id, again, call.name, is_error=True) for call in response.tool_calls]
            self._go_on(response, Message("tool", tuple(results)))
        else:
            self._go_on(response, Message("user", again))

    def _go_on(self, response: Response, turn: Message) -> None:
        self.added = (response.message, turn)
        self._turns += self.added
        self._spent.append(response)
        self.request = replace(self.request, messages=self.request.messages + self.added)

    def _let_answer(self) -> None:
        """A model that was forced to call a tool has done so; forced again it would never answer."""
        if self._plan.by_tool is None and self.request.tool_choice not in _UNFORCED:
            self.request = replace(self.request, tool_choice="auto")


def with_output(
    request: Request, output: OutputType[Any], *, native: bool, strict: bool | None = None
) -> tuple[Request, str | None]:
    """The request that asks for the type, in the API's own words or through a tool, and then that tool's name.

    Unless `strict` is False, the schema is written so that a provider can hold the model to it, where that is possible.
    """
    wanted = output.format if strict is False else output.strict_format
    if native:
        return replace(request, output=wanted), None
    answer = Tool(
        wanted.name,
        f"Give the final answer by calling this, once. {wanted.description or ''}".strip(),
        wanted.schema or {"type": "object"},
        wanted.strict,
    )
    choice = request.tool_choice
    if choice in (None, "auto") and request.thinking is None:  # models that think refuse to be forced
        choice = "required" if request.tools else wanted.name
    return replace(request, tools=(*request.tools, answer), tool_choice=choice), wanted.name
