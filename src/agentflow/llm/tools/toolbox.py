"""Runs what a model asks for: the calls of one answer, at the same time, each to a result that goes back to the model.

    ToolCall, ToolCall, …  ──refused, then results──▶  ToolResult, ToolResult, …      in the calls' order
              │ no such tool, wrong arguments ──▶ is_error, unless errors are to be raised
              │ approve? ── no ──▶ the reason
              │ an exception ──▶ is_error, unless …

Events: tool_start, tool_success, tool_error, tool_refused. In a durable step each call has an entry in the journal
(`journal/tool_results.py`): what came of it is kept, and is not asked or called for again, but told as tool_replayed.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from agentflow.core.observability.audit.seat import current_audit
from agentflow.core.observability.scope import Scope, current_scope, step_out
from agentflow.core.parking import Parked, parked_in
from agentflow.core.tasks import raise_first, run_together
from agentflow.core.threads import call_in_thread
from agentflow.errors import ConfigurationError, ToolArgumentsError, ToolError, describe
from agentflow.llm.content import ResultContent, ToolCall, ToolResult
from agentflow.llm.messages import Tool
from agentflow.llm.tools.function import FunctionTool, function_tool, result_content

if TYPE_CHECKING:  # loaded in a durable step alone
    from agentflow.llm.journal.tool_results import ToolEntry

__all__ = ["Approve", "Toolbox", "toolbox"]

_AT_ONCE: Final = 64  # as Each: how many calls an answer has is the model's to choose

Approve: TypeAlias = Callable[[ToolCall], bool | str | Awaitable[bool | str]]
"""Asked before a tool runs, for one call at a time: True lets it, False refuses it, a text refuses it and says why to
the model. A plain function is asked in a thread."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The functions a model may call, by name, and what happens when one fails.

    `declared` are tools without a function here: an answer that calls one is handed to the caller. `on_error` is
    "return" (the model gets the error's text as the result) or "raise" (ToolError; the calls beside it are cancelled).
    """

    functions: Mapping[str, FunctionTool] = field(default_factory=dict)
    declared: tuple[Tool, ...] = ()
    on_error: Literal["return", "raise"] = "return"
    approve: Approve | None = None

    @property
    def tools(self) -> tuple[Tool, ...]:
        return (*(function.tool for function in self.functions.values()), *self.declared)

    def hands_over(self, calls: Sequence[ToolCall]) -> bool:
        """Whether an answer with these calls is the caller's to go on with: one of them has no function here."""
        outside = {tool.name for tool in self.declared}
        return any(call.name in outside for call in calls)

    async def refused(
        self, calls: Sequence[ToolCall], scope: Scope | None = None, entries: Sequence[ToolEntry] | None = None
    ) -> dict[int, ToolResult]:
        """The results of the calls that are not made, by their place: what cannot be called, what is not approved, and
        what was called before, by the calls' `entries` in a journal.

        Approvals are asked for one after the other, before anything runs: that may take as long as a person takes.
        Those that park the run do so together.
        """
        found: dict[int, ToolResult] = {}
        parked: list[Parked] = []
        for index, call in enumerate(calls):
            try:
                result = await self._not_made(call, scope, entries[index] if entries else None)
            except Parked as waiting:
                parked.append(waiting)
                continue
            if result is not None:
                found[index] = result
        if parked:
            raise Parked.together(parked)
        return found

    async def results(
        self,
        calls: Sequence[ToolCall],
        refused: Mapping[int, ToolResult],
        scope: Scope | None = None,
        entries: Sequence[ToolEntry] | None = None,
    ) -> tuple[ToolResult, ...]:
        """A result for each call, in their order; those that are not refused run at the same time, at most 64 of them.
        `scope` is where in a run the question is asked that they belong to, and `entries` are the calls' own in a
        journal.

        Raises ToolError where `on_error` is "raise". Where some are parked, the others finish first.
        """
        found = dict(refused)
        places = asyncio.Semaphore(_AT_ONCE)

        async def run(index: int, call: ToolCall) -> None:
            async with places:
                found[index] = await self._run(call, scope, entries[index] if entries else None)

        allowed = [run(index, call) for index, call in enumerate(calls) if index not in found]
        if len(allowed) == 1:
            await allowed[0]
        elif allowed:
            outcome = await run_together(allowed)
            if outcome.failures:
                raise_first(outcome.failures)
            if outcome.parked:
                raise Parked.together(outcome.parked)
        return tuple(found[index] for index in range(len(calls)))

    async def _not_made(self, call: ToolCall, scope: Scope | None, entry: ToolEntry | None) -> ToolResult | None:
        """The result of a call that is not made; None for one that is."""
        if entry is None:
            return await self._impossible(call, scope) or await self._refused(call, scope)
        if entry.found is not None:
            return await entry.replay(entry.found, scope)
        with entry.inside():
            result = await self._impossible(call, scope) or await self._refused(call, scope)
        return None if result is None else await entry.keep(result)

    async def _impossible(self, call: ToolCall, scope: Scope | None) -> ToolResult | None:
        """Why the call cannot be made: there is no such tool, or its arguments do not fit."""
        try:
            function = self.functions.get(call.name)
            if function is None:
                known = ", ".join(self.functions) or "none"
                raise ToolArgumentsError(call.name, f"there is no tool {call.name!r}; known are: {known}")
            function.bind(call)
        except ToolArgumentsError as error:
            await _tell_refused(call, scope, error.message, error_type=type(error).__name__)
            return self._failed(call, error)
        return None

    async def _refused(self, call: ToolCall, scope: Scope | None) -> ToolResult | None:
        """Ask whether the call may be made. A sync question is asked in a thread: it may wait for a person."""
        ask = self.approve
        if ask is None:
            return None
        said = ask(call) if inspect.iscoroutinefunction(ask) else await call_in_thread(ask, call)
        answer = await said if inspect.isawaitable(said) else said
        if answer is True:
            return None
        reason = answer if isinstance(answer, str) else f"the user did not allow {call.name} to be called"
        await _tell_refused(call, scope, reason)
        return ToolResult(call.id, reason, call.name, is_error=True)

    async def _run(self, call: ToolCall, scope: Scope | None, entry: ToolEntry | None) -> ToolResult:
        try:
            with nullcontext() if entry is None else entry.inside():
                if scope is None:
                    return await self._audited(call, None, entry)
                return await self._watched(call, scope.inside(own="tools"), entry)
        except ToolError as error:
            result = self._failed(call, error)
        return result if entry is None else await entry.keep(result)

    async def _watched(self, call: ToolCall, scope: Scope, entry: ToolEntry | None) -> ToolResult:
        """Call it with its events around it; what it asks of models in turn is told as a part of it."""
        facts = {"tool": call.name, "call_id": call.id}
        try:
            await scope.begin("tool_start", _facts(call, scope))
            token = current_scope.set(scope)
            try:
                result = await self._audited(call, scope, entry)
            finally:
                step_out(token)
        except Exception as error:
            await scope.end("tool_error", _facts(call, scope, **_failure(error)))
            raise
        except BaseException as error:
            scope.leave("tool_cancelled" if parked_in(error) is None else "tool_interrupted", facts)
            raise
        await scope.end("tool_success", facts)
        return result

    async def _audited(self, call: ToolCall, scope: Scope | None, entry: ToolEntry | None) -> ToolResult:
        """Call it, and record that in the audit log of this process, if there is one. Raises AuditError."""
        if current_audit() is None:
            return await self._kept(call, entry)
        from agentflow.core.observability.audit.recording import ended
        from agentflow.llm.auditing import tool_begun

        act = await tool_begun(call, scope)
        try:
            result = await self._kept(call, entry)
        except BaseException as error:
            ended(act, error=error)
            raise
        ended(act)
        return result

    async def _kept(self, call: ToolCall, entry: ToolEntry | None) -> ToolResult:
        """Call it, and keep what it returned in the journal, if there is one, before anybody waits for anything."""
        result = ToolResult(call.id, await self._called(call), call.name)
        return result if entry is None else await entry.keep(result)

    async def _called(self, call: ToolCall) -> ResultContent:
        """What the function returns, fit for a result. Every failure is a ToolError, whose text the model may read."""
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            return result_content(await self.functions[call.name].call(call))
        except ToolError:
            raise
        except asyncio.CancelledError as stray:
            if task is None or task.cancelling() > before:
                raise
            raise ToolError(call.name, "something that it waited for was cancelled") from stray
        except Exception as error:
            raise ToolError(call.name, describe(error)) from error

    def _failed(self, call: ToolCall, error: ToolError) -> ToolResult:
        """The error as a result for the model, or raised, as the caller chose."""
        if self.on_error == "raise":
            raise error
        return ToolResult(call.id, error.message, call.name, is_error=True)


def toolbox(
    tools: Sequence[Callable[..., object] | FunctionTool | Tool],
    *,
    on_error: Literal["return", "raise"] = "return",
    approve: Approve | None = None,
) -> Toolbox:
    """A box of functions and declared tools. Raises ConfigurationError for what is neither, and for a name that two
    of them have."""
    if on_error not in ("return", "raise"):
        raise ConfigurationError(f'tools: on_error is "return" or "raise", not {on_error!r}')
    declared = tuple([tool for tool in tools if isinstance(tool, Tool)])
    functions = [
        tool if isinstance(tool, FunctionTool) else function_tool(tool) for tool in tools if not isinstance(tool, Tool)
    ]
    names = [*(function.tool.name for function in functions), *(tool.name for tool in declared)]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise ConfigurationError(f"tools: two of them are called {twice!r}; give one another name=")
    return Toolbox({function.tool.name: function for function in functions}, declared, on_error, approve)


async def _tell_refused(call: ToolCall, scope: Scope | None, reason: str, **facts: object) -> None:
    if scope is not None:
        await scope.send("tool_refused", _facts(call, scope, reason=reason, **facts))
    if current_audit() is not None:
        from agentflow.llm.auditing import tool_refused

        await tool_refused(call, reason, scope)


def _facts(call: ToolCall, scope: Scope, **facts: object) -> dict[str, object]:
    """What is told of a call; its arguments to who reads the run's own stream, or wants contents."""
    told: dict[str, object] = {"tool": call.name, "call_id": call.id, **facts}
    if scope.channel.quotes:
        told["arguments"] = call.arguments
    return told


def _failure(error: Exception) -> dict[str, object]:
    """What the event says of it; what is no ToolError came before the call: the audit log refused it."""
    if isinstance(error, ToolError):
        return {"error": error.message, "error_type": type(error.__cause__ or error).__name__}
    return {"error": describe(error), "error_type": type(error).__name__}
