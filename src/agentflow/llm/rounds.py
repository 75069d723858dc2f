"""One question, however many requests its answer takes: tools are run, misfits are asked again.

    ask ──▶ answer ──┬─ was cut off or blocked ──▶ that is it
                     ├─ calls tools ──▶ run them, add the answer and the results ──▶ ask again
                     ├─ does not fit the type ──▶ say why ──▶ ask again, a few times
                     └─ else: that is it

Usage and cost of the answer are those of all its requests; the turns in between are its `turns`. One time limit spans
all of it, but for the time that a person takes to approve. What to do next is decided in `_Progress`, for whole answers
and for streams alike.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from agentflow.core.durability.step import current_step
from agentflow.core.robustness.attempt import Attempt, current_attempt
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.timing import Timing
from agentflow.errors import LimitExceededError, OutputError, ToolError
from agentflow.llm.answer import answer_call, value_of
from agentflow.llm.attempts import Attempts, Substitutes, ready
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.content import ToolCall, ToolResult
from agentflow.llm.guards import Guards
from agentflow.llm.messages import Message, Request, Response, StreamChunk, Tool, Usage
from agentflow.llm.output import OutputType
from agentflow.llm.streaming.join import Joiner, total
from agentflow.llm.tools.toolbox import Toolbox

if TYPE_CHECKING:  # loaded in a durable step alone
    from agentflow.llm.journal.tool_results import ToolEntry

__all__ = ["Plan", "Rounds", "with_output"]

_UNFORCED: Final = (None, "auto", "none")
_BROKEN_OFF: Final = ("length", "content_filter")
_NO_TOOLS: Final = Toolbox()


class Plan(Struct, frozen=True):
    """What a question needs beside its requests: tools to run, a type that the answer must fit.

    `by_tool` names the tool that the model answers through, where the API has no words for a schema. A misfit is asked
    again at most `retries` times. `check` is asked of every request: what a tool returns may be more than the model
    takes.
    """

    check: Callable[[Request, ModelConfig], None]
    toolbox: Toolbox = _NO_TOOLS
    output: OutputType[Any] | None = None
    by_tool: str | None = None
    retries: int = 2


class Rounds:
    """Asks until there is an answer."""

    __slots__ = ("_plan", "_substitutes", "answered", "guards", "request", "run_id", "timing")

    def __init__(self, guards: Guards, request: Request, plan: Plan, substitutes: Substitutes | None = None) -> None:
        self.guards = guards
        self.request = request
        self.timing: Timing | None = None
        self.run_id = guards.run_id
        self.answered = (guards.config.provider, request.model)
        """Provider and model that answer."""
        self._plan = plan
        self._substitutes = substitutes

    async def whole(self) -> Response:
        """The answer. Raises what a request raises, LimitExceededError, OutputError, ToolError."""
        deadline = self.guards.deadline(self.request.timeout)
        try:
            progress = _Progress(self.guards, self._plan, await ready(self.request), deadline)
            while True:
                attempts = self._attempts(progress, deadline)
                response = await attempts.whole()
                self._note(attempts, progress)
                if await progress.ends_with(response):
                    return progress.answer
        finally:
            deadline.close()

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """The answer as it comes, and what leads to it: every chunk says to which round it belongs."""
        deadline = self.guards.deadline(self.request.timeout)
        try:
            progress = _Progress(self.guards, self._plan, await ready(self.request), deadline)
            number, ended = 0, False
            while not ended:
                joiner, number = Joiner(), progress.number
                attempts = self._attempts(progress, deadline)
                async with aclosing(attempts.chunks()) as source:
                    async for chunk in source:
                        joiner.add(chunk)
                        yield replace(chunk, round=number) if number else chunk
                self._note(attempts, progress)
                provider, model = self.answered
                response = joiner.response(provider=provider, model=model)
                ended = await progress.ends_with(response)
                for turn in progress.added:
                    yield StreamChunk(round=number + 1, turn=turn)
            if progress.rewritten:
                yield _rewritten(progress.answer, number + 1)
        finally:
            deadline.close()

    def _attempts(self, progress: _Progress, deadline: Deadline) -> Attempts:
        number, by_tool = progress.number, progress.by_tool
        return Attempts(self.guards, progress.request, deadline, number, self._substitutes, by_tool)

    def _note(self, attempts: Attempts, progress: _Progress) -> None:
        """The next request goes to whoever answered this one, which may be a stand-in."""
        self.guards = progress.guards = attempts.guards
        progress.request, progress.by_tool = attempts.request, attempts.by_tool
        progress.asked, self.run_id, self.answered = attempts, attempts.run_id, attempts.answered
        if attempts.timing is not None:
            self.timing = attempts.timing if self.timing is None else self.timing + attempts.timing


class _Progress:
    """How far the answer is: the request that comes next, what was spent, and at the end the answer.

    `guards` and `by_tool` are those of whoever was asked last, which may be a stand-in, and `asked` is that request.
    `added` is what the last answer has added to the history; `rewritten` is True where the answer came through a tool
    and stands in `answer` as the text it is.
    """

    __slots__ = (
        "_deadline",
        "_misfits",
        "_plan",
        "_spent",
        "_turns",
        "added",
        "answer",
        "asked",
        "by_tool",
        "guards",
        "number",
        "request",
        "rewritten",
    )

    answer: Response
    asked: Attempts

    def __init__(self, guards: Guards, plan: Plan, request: Request, deadline: Deadline) -> None:
        self.request = request
        self.number = 0
        self.added: tuple[Message, ...] = ()
        self.rewritten = False
        self.guards = guards
        self.by_tool = plan.by_tool
        self._plan = plan
        self._deadline = deadline
        self._misfits = 0
        self._turns: tuple[Message, ...] = ()
        self._spent: list[Response] = []

    async def ends_with(self, response: Response) -> bool:
        """Whether this is the answer; if not, `request` is the next one to make."""
        self.added = ()
        try:
            return await self._ends_with(response)
        except (LimitExceededError, OutputError, ToolError) as error:
            error.response = self._total(response)
            raise

    async def _ends_with(self, response: Response) -> bool:
        plan = self._plan
        calls, tool = response.tool_calls, self.by_tool
        answering = None if tool is None else answer_call(response, tool)
        if response.finish_reason in _BROKEN_OFF or plan.toolbox.hands_over(calls):
            return self._end(response, misfit=self._misfit(response) if not calls or answering else None)
        if calls and answering is None and (plan.toolbox.functions or plan.output is None):
            await self._run(response, calls)
            return False
        misfit = self._misfit(response)
        if misfit is not None and self._misfits < plan.retries:
            await self._ask_again(response, misfit.problem)
            return False
        if misfit is None and answering is not None:
            await self._accept(response, answering)
            return True
        return self._end(response, misfit)

    def _end(self, response: Response, misfit: OutputError | None) -> bool:
        if misfit is not None:
            raise misfit
        self.answer = self._total(response)
        return True

    async def _accept(self, response: Response, answering: ToolCall) -> None:
        """The answer came through a tool: it becomes the text that it is, and nothing else, so that no call is left
        without a result. What else was called beside it is run."""
        others = tuple([call for call in response.tool_calls if call is not answering])
        if others:
            results = [
                *await self._results(others, self._entries(others)),
                ToolResult(answering.id, "Received.", answering.name),
            ]
            self._add(response.message, Message("tool", tuple(results)))
        self.rewritten = True
        self.answer = self._total(replace(response, content=answering.json, opaque={}, finish_reason="stop"))

    async def _run(self, response: Response, calls: tuple[ToolCall, ...]) -> None:
        entries = self._entries(calls)
        made = entries is None or any(entry.found is None for entry in entries)
        for ledger in self.guards.ledgers:
            ledger.tool_round()
            if made:  # a tool may do what cannot be undone: not for an answer that could not be asked for
                ledger.check()
        self._go_on(response, Message("tool", await self._results(calls, entries)))
        if self.request.tool_choice not in _UNFORCED:  # forced again, the model would never answer
            self.request = replace(self.request, tool_choice="auto" if self.by_tool is None else "required")
        self.request = await ready(self.request)
        self._plan.check(self.request, self.guards.config)

    def _entries(self, calls: tuple[ToolCall, ...]) -> list[ToolEntry] | None:
        """What the journal of a durable step has of the calls; None outside of one."""
        step = current_step.get()
        if step is None:
            return None
        from agentflow.llm.journal.tool_results import ToolEntry

        return [ToolEntry(step, call, self.asked.recorded_as) for call in calls]

    async def _results(self, calls: tuple[ToolCall, ...], entries: list[ToolEntry] | None) -> tuple[ToolResult, ...]:
        toolbox, clock = self._plan.toolbox, self.guards.clock
        asked = clock.monotonic()
        refused = await toolbox.refused(calls, self.guards.scope, entries)
        self._deadline.extend(clock.monotonic() - asked)
        around = Attempt()  # what a tool does, model calls of its own included, has no more time than the question
        around.deadline = self._deadline
        token = current_attempt.set(around)
        try:
            with self._deadline:
                return await toolbox.results(calls, refused, self.guards.scope, entries)
        finally:
            with suppress(ValueError):  # closed from outside, in another context
                current_attempt.reset(token)

    def _misfit(self, response: Response) -> OutputError | None:
        """Why the answer does not fit; None where it does, or where no type was asked for."""
        if self._plan.output is None:
            return None
        try:
            value_of(response, self._plan.output)
        except OutputError as misfit:
            return misfit
        return None

    async def _ask_again(self, response: Response, problem: str) -> None:
        self._misfits += 1
        scope, output = self.guards.scope, self._plan.output
        if scope is not None and output is not None and not self.asked.replayed:
            facts = {"model": self.guards.config.name, "problem": f"it is no {output.name}"}
            await scope.send("output_retry", {**facts, "quote": problem} if scope.channel.quotes else facts)
        again = f"Your answer does not fit what was asked for: {problem}. Answer again, with all of it."
        if response.tool_calls:
            results = [ToolResult(call.id, again, call.name, is_error=True) for call in response.tool_calls]
            self._go_on(response, Message("tool", tuple(results)))
        else:
            self._go_on(response, Message("user", again))

    def _go_on(self, response: Response, turn: Message) -> None:
        self._spent.append(response)
        self.number += 1
        self._add(response.message, turn)
        self.request = replace(self.request, messages=self.request.messages + self.added)

    def _add(self, *turns: Message) -> None:
        self.added = turns
        self._turns += turns

    def _total(self, response: Response) -> Response:
        """The answer, with what all its requests have used and the turns between."""
        answers = (*self._spent, response)
        usage, cost = total([(each.usage, each.cost) for each in answers])
        timings = [each.timing for each in answers if each.timing is not None]
        timing = reduce(operator.add, timings) if timings else None
        return replace(response, usage=usage, cost=cost, turns=self._turns, timing=timing)


def _rewritten(answer: Response, number: int) -> StreamChunk:
    """The end of a stream whose answer came through a tool: the text that it is, with nothing more used."""
    return StreamChunk(
        answer.text,
        finish_reason=answer.finish_reason,
        raw_finish_reason=answer.raw_finish_reason,
        usage=None if answer.usage is None else Usage(),
        cost=None if answer.cost is None else 0.0,
        model=answer.model,
        request_id=answer.request_id,
        id=answer.id,
        service_tier=answer.service_tier,
        round=number,
        provider=answer.provider,
        cache_hit=answer.cache_hit,
    )


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
