"""A durable run as it is walked: what has happened is taken from the journal, and what happens now is kept there.

    visit ──▶ in the journal? ──yes──▶ its writes, its action                       (nothing runs)
                  │ no
                  ▼
    a view of the state ──▶ prep ─ exec ──kept──▶ post ──▶ writes and action, kept ──▶ written into the state

A step's writes are applied only when they are kept, so that what others see has happened for good. Sections, nested
flows and `Each` are walked again: what is inside them is kept, and how they chose.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any, Final

from agentflow.clock import Clock
from agentflow.core.cancellation import failure_of
from agentflow.core.durability.bodies import (
    error_body,
    error_in,
    exec_body,
    item_body,
    join_body,
    join_in,
    result_in,
    step_body,
    step_in,
    undo_in,
    writes_in,
)
from agentflow.core.durability.mutations import Mutations
from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Record, RecordKind
from agentflow.core.durability.step import DurableStep, current_step, step_out
from agentflow.core.observability.scope import current_scope
from agentflow.core.parking import Parked
from agentflow.core.run import Frame, Join, Step
from agentflow.core.saga import Deed
from agentflow.core.state import SharedState, Writes
from agentflow.errors import NodeError, SerializationError

__all__ = ["DurableRun"]

_FAILED: Final = "!failed"
_STRETCH: Final = "!stretch"
_INPUTS: Final = "!inputs"  # no record of that id is ever saved
_STEPS: Final = ("step", "item")


class DurableRun:
    """The `Keeper` of one stretch of a run. `undoing` is the error for which its steps are being undone, if they are.

    While they are, and where the run has ended or happens `elsewhere`, nothing new begins: walkers stop where the
    journal does. Without `strict` what could not be kept of a run that is done is done again.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        forked_from: str | None = None,
        forked_at: str | None = None,
        strict: bool = True,
        elsewhere: bool = False,
    ) -> None:
        self.journal = journal
        self.clock = clock
        self._strict = strict
        self._looks_on = elsewhere or (strict and journal.ended)
        self._root: SharedState | None = None
        self._inputs: Mapping[str, object] = {}
        self._mutations = Mutations()
        self._forked = {"forked_from": forked_from, "forked_at": forked_at} if forked_from else {}
        failed = journal.find(_FAILED)
        self.undoing = None if failed is None else error_in(failed)
        own = [record for record in journal.records() if record.id.startswith(self._stretch_id(""))]
        self.stretch = len(own)
        """How often the run has gone on before."""
        self.since = own[0].at if own else None
        """Wall time when the run first began."""

    @property
    def _closed(self) -> bool:
        return self.undoing is not None or self._looks_on

    def news(self) -> tuple[str, Mapping[str, object]] | None:
        """What whoever watches is told when the stretch begins: kind and facts; None where there is nothing to tell."""
        kind = "resume" if self.stretch else "fork" if self._forked else None
        if kind is None:
            return None
        steps = sum(record.kind in _STEPS for record in self.journal.records())
        requests, _, cost = self.spent()
        own = {"stretch": self.stretch} if kind == "resume" else self._forked
        return kind, {**own, "steps": steps, "calls": requests, "cost": cost}

    def spent(self) -> tuple[int, int, float | None]:
        """What the requests to models in the journal have cost: how many there are, their tokens, US dollars. What a
        tool has cost are the requests that it made, and so it is with what wraps models, whose answers have no attempts
        of their own; what a fork has taken over, the other run has spent."""
        records = self.journal.records()
        ids = [record.id for record in records]
        first = self._stretch_id(0)
        own = records[ids.index(first) :] if first in ids else ()
        calls = [record for record in own if record.kind == "call" and record.attempts and not _is_tool(record)]
        known = [record.cost for record in calls if record.cost is not None]
        return len(calls), sum(each.tokens for each in calls), sum(known) if len(known) == len(calls) else None

    async def begin(self, state: SharedState, inputs: Mapping[str, object]) -> None:
        """One more stretch of the run begins, in this state, which was made of these `inputs`."""
        self._root = state
        self._inputs = inputs
        self._mutations.keep(state.snapshot(), _INPUTS)
        await self._save(self._stretch_id(self.stretch), "stretch", "{}")

    def _stretch_id(self, number: int | str) -> str:
        """With the run's own id: a fork has the records of the run it comes from, and is another."""
        return f"{_STRETCH}:{self.journal.run_id}:{number}"

    def changed_in_place(self) -> Iterator[str]:
        """The names of values that were changed without being written again: a later stretch will not have that."""
        return iter(()) if self._root is None else self._mutations.changed(self._root, cache(self._assigned))

    def _assigned(self, id: str) -> Mapping[str, object]:
        """What the record of that id says was assigned."""
        if id == _INPUTS:
            return self._inputs
        record = self.journal.find(id)
        return {} if record is None else step_in(record)[1].assigned

    # ---- steps -----------------------------------------------------------------------------------------------

    async def visit(self, step: Step, state: SharedState, frame: Frame, number: int) -> str | None:
        path = f"{frame.path}/{step.name}#{number}"
        self._update(path, state)
        if not step.kept:
            return await step.visit(state, frame, number)
        record = self.journal.find(path)
        if record is not None and record.kind == "step":
            before, was = step_in(record)
            state.write(was)
            return before
        if self._closed:
            raise Parked
        view, own = state.view(), DurableStep(self.journal, path, self.clock)
        started = self.clock.monotonic()
        action: str | None = await self._within(own, step.visit(view, frame, number))
        if not _leads_on(step, action):
            return action  # the walker refuses it; what comes of a mended node is kept
        writes = view.written()
        await self._keep(own, "step", lambda: step_body(action, writes, own.undo), started)
        state.apply(view)
        if state is self._root:
            self._mutations.keep(writes.assigned, path)
        else:
            self._mutations.keep_apart(writes.assigned, path)
        return action

    def _update(self, path: str, state: SharedState) -> None:
        """What a fork has changed before the step there."""
        update = self.journal.find(f"{path}!update")
        if update is not None:
            state.write(writes_in(update))

    def updated(self, path: str) -> Collection[str]:
        update = self.journal.find(f"{path}!update")
        return () if update is None else writes_in(update).assigned.keys()

    async def item(self, path: str, work: Callable[[], Awaitable[object]], view: SharedState | None) -> object:
        record = self.journal.find(path)
        if record is not None and record.kind == "item":
            if view is not None:
                view.write(writes_in(record))
            return result_in(record)
        if self._closed:
            raise Parked
        if view is not None:
            self._update(path, view)
        own, started = DurableStep(self.journal, path, self.clock), self.clock.monotonic()
        result = await self._within(own, work())
        added = Writes({}) if view is None else Writes({}, (), view.written().added)
        await self._keep(own, "item", lambda: item_body(result, added, own.undo), started)
        return result

    async def result(self, item: object, work: Callable[[], Awaitable[Any]], *, undoable: bool) -> Any:
        own = current_step.get()
        if own is None:  # a node that is not kept, within one that is
            return await work()
        record = self.journal.find(own.path)
        if record is not None and record.kind == "exec":
            own.attempts = record.attempts
            result, undo = result_in(record), undo_in(record)
            if undoable:
                own.undo = undo or (item, result)
            return result
        started = self.clock.monotonic()
        result = await work()
        if own.waits:
            raise _parked(own)  # exec swallowed it, so this is no result
        if undoable:
            own.undo = (item, result)
        await self._keep(own, "exec", lambda: exec_body(result, own.undo), started, must=undoable)
        return result

    @property
    def key(self) -> str | None:
        own = current_step.get()
        return None if own is None else own.idempotency_key

    def trying(self) -> None:
        own = current_step.get()
        if own is not None:
            own.trying()

    def tried(self, attempts: int) -> None:
        own = current_step.get()
        if own is not None:
            own.attempts = attempts

    async def _within(self, own: DurableStep, work: Awaitable[Any]) -> Any:
        """Do the work of a step, which finds it in `current_step`."""
        token = current_step.set(own)
        try:
            result = await work
        except BaseExceptionGroup as group:  # a TaskGroup in a compensation
            raise failure_of(group) from group
        except Parked:
            raise _parked(own) from None
        finally:
            step_out(token)
        if own.waits:
            raise _parked(own)  # somebody swallowed it
        return result

    # ---- sections --------------------------------------------------------------------------------------------

    def failed(self, path: str) -> Exception | None:
        record = self.journal.find(f"{path}!error")
        return None if record is None else error_in(record)

    async def fail(self, path: str, error: Exception) -> None:
        await self._save(f"{path}!error", "item", error_body(error))

    def joined(self, path: str) -> Join | None:
        record = self.journal.find(f"{path}!join")
        return None if record is None else join_in(record)

    async def join(self, path: str, join: Join) -> None:
        await self._save(f"{path}!join", "join", join_body(join))

    # ---- undoing ---------------------------------------------------------------------------------------------

    async def give_up(self, error: Exception) -> None:
        """The run has failed for good: from now on its steps are undone, also by later stretches."""
        if self.undoing is None:
            record = Record(_FAILED, "failed", error_body(error), self.clock.time())
            await self.journal.save(record)
            self.undoing = error_in(record)  # without the traceback, which knows this run

    def deeds(self) -> Mapping[str, tuple[object, object]]:
        done = [(record.id, undo_in(record)) for record in self.journal.records() if '"undo":' in record.body]
        return {path: undo for path, undo in done if undo is not None}

    async def undo(self, deed: Deed) -> None:
        id = f"{deed.path}!undo"
        if self.journal.find(id) is not None:
            return
        own, started = DurableStep(self.journal, id, self.clock), self.clock.monotonic()
        await self._within(own, deed.undo())
        await self._keep(own, "undo", lambda: "{}", started)

    # ---- keeping ---------------------------------------------------------------------------------------------

    async def _keep(
        self, own: DurableStep, kind: RecordKind, body: Callable[[], str], started: float, *, must: bool = False
    ) -> None:
        """Keep what a step has done. What cannot be stored is the step's failure, or, where that is put up with, is
        done again by every later stretch; but what may have to be undone `must` be kept."""
        if self.journal.ended:
            return
        seconds = self.clock.monotonic() - started
        try:
            text = body()
        except SerializationError as error:
            if self._strict or must:
                raise NodeError(own.path, "exec" if kind == "exec" else "post", own.attempts, error) from error
            await _tell_unkept(own.path, error)
            return
        await self.journal.save(
            Record(own.path, kind, text, self.clock.time(), seconds, own.attempts, own.cost, own.tokens)
        )

    async def _save(self, id: str, kind: RecordKind, body: str) -> None:
        if not self.journal.ended:
            await self.journal.save(Record(id, kind, body, self.clock.time()))


def _parked(own: DurableStep) -> Parked:
    """At all that the step waits for, also where it was told of one alone, as `asyncio.gather` does."""
    return Parked(own.waits.values())


async def _tell_unkept(step: str, error: SerializationError) -> None:
    scope = current_scope.get()
    if scope is not None:
        await scope.send("not_kept", {"step": step, "error": str(error), "error_type": type(error).__name__})


def _leads_on(step: Step, action: object) -> bool:
    return (action is None or isinstance(action, str)) and (not step.edges or action in step.edges)


def _is_tool(record: Record) -> bool:
    return record.id.rpartition("!")[2].startswith("call:tool-")
