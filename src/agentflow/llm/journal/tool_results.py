"""What a tool returned to a model, in the journal of the step that asked the model.

    entry = ToolEntry(step, call, answer)
    entry.found ── None ──▶ with entry.inside(): approve, call ──▶ entry.keep(result)
                └─ ToolResult ──▶ entry.replay(scope): nobody is asked, and nothing is called

What the model was told is kept, errors and refusals included. A call is a step of its own for what happens in it: the
models that a tool asks, and the people. So what one call was answered is never taken for what another one asked, and of
a tool that was not finished, what it had been answered serves when it runs again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
from msgspec import Struct

from agentflow.core.durability.step import DurableStep, current_step
from agentflow.core.observability.scope import Scope
from agentflow.core.robustness.attempt import Attempt, current_attempt
from agentflow.errors import SerializationError
from agentflow.llm.content import ToolCall, ToolResult, plain
from agentflow.llm.journal.fingerprint import call_print
from agentflow.llm.journal.inside import Inside
from agentflow.llm.journal.saving import saved
from agentflow.llm.media import loaded
from agentflow.llm.messages import Message

__all__ = ["ToolEntry"]


class _Kept(Struct, frozen=True, omit_defaults=True):
    """As it stands in the journal. Cost and tokens are those of the models that the tool asked, which have records of
    their own."""

    result: ToolResult
    cost: float | None = 0.0
    tokens: int = 0


class ToolEntry:
    """One call of a tool, in a step. `found` is what came of it earlier, None where it is to be made.

    `answer` names the entry of the answer that asks for it. Raises SerializationError for a record that is no result.
    """

    __slots__ = ("_call", "_inside", "found")

    def __init__(self, step: DurableStep, call: ToolCall, answer: str) -> None:
        self._call = entry = step.call(call_print(call, answer))
        self._inside = Inside(step, entry.id)
        self.found: ToolResult | None = None
        if entry.found is not None:
            kept = _read(entry.found, entry.id)
            self.found = kept.result
            if kept.tokens or kept.cost != 0.0:
                step.count(kept.cost, kept.tokens)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What happens in here belongs to this call: its own answers, and its own idempotency key."""
        attempt = Attempt(key=self._call.idempotency_key)
        if attempt.outer is not None:
            attempt.deadline = attempt.outer.deadline
        step, token = current_step.set(self._inside), current_attempt.set(attempt)
        try:
            yield
        finally:
            with suppress(ValueError):  # closed from outside, in another context
                current_attempt.reset(token)
                current_step.reset(step)

    async def keep(self, result: ToolResult) -> ToolResult:
        """The result, with its files read, as the model gets it. Raises DurabilityError, SerializationError,
        DocumentError."""
        inside = self._inside
        [turn] = await loaded((Message("tool", (result,)),))
        [ready] = turn.parts
        assert isinstance(ready, ToolResult)
        body = _written(_Kept(ready, inside.cost, inside.tokens), self._call.id)
        await saved(self._call.save(body))
        return ready

    async def replay(self, result: ToolResult, scope: Scope | None) -> ToolResult:
        """What came of it earlier, told to whoever watches."""
        if scope is not None:
            await scope.send("tool_replayed", {"tool": result.name, "call_id": result.id})
        return result


def _written(kept: _Kept, id: str) -> str:
    try:
        return msgspec.json.encode(kept, enc_hook=plain).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(id, f"JSON cannot hold what the tool returned: {error}") from error


def _read(body: str, id: str) -> _Kept:
    try:
        return msgspec.json.decode(body, type=_Kept)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SerializationError(id, f"what is recorded there is no result of a tool: {error}") from error
