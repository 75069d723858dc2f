"""A flow on its way: each stretch of a run is watched, and where it is parked at questions, they are asked.

course = Course(flow, keeping, progress)
result = course.to_its_end(course.beginning(state, run_id), asks=True)

beginning, resuming, forking ──▶ stretch ──▶ done, failed
                                  ▲   └────▶ parked ──asked──▶ answers ──┐
                                  └──────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

from agentflow.cli.durable.asking import ask
from agentflow.cli.durable.keeping import is_useless
from agentflow.cli.load import AnyFlow
from agentflow.cli.models import stand_in_notice
from agentflow.cli.progress import Progress
from agentflow.core import ExecutionEvent, FlowResult, SharedState
from agentflow.core.durability.answering import answered
from agentflow.core.durability.changes import Migration
from agentflow.core.durability.conduct import resumed, started
from agentflow.core.durability.forking import forked
from agentflow.core.durability.protocol import Durability
from agentflow.core.durability.records import Interrupt
from agentflow.core.flow import NO_ANSWER
from agentflow.core.observability.scope import Reader
from agentflow.core.run import new_run_id
from agentflow.core.stream import EventStream
from agentflow.core.terms import Terms
from agentflow.errors import AgentFlowError, AnswerError, DurabilityError
from agentflow.llm.agentflow import AgentFlow

__all__ = ["Course", "Start"]

Start: TypeAlias = Callable[[Reader], Coroutine[Any, Any, FlowResult]]
"""Begins or goes on with a run."""


class Course:
    """`engine` is None where the run is not kept; the flow's own comes first. `run_id` and `last_path` (of the node
    that finished last) are known as far as the run has come; `is_asking` says that a person is being asked."""

    def __init__(self, flow: AnyFlow, engine: Durability | None, progress: Progress) -> None:
        flow.strict = False
        self.run_id = ""
        self.last_path = ""
        self.is_asking = False
        self.engine = flow.durability or engine
        self._flow = flow
        self._progress = progress
        self._noticed = False
        self._noted: set[str] = set()
        self._seconds = 0.0

    # ---- ways to begin ---------------------------------------------------------------------------------------

    def beginning(self, state: dict[str, object], run_id: str | None) -> Start:
        """Under a new id where none is given."""
        self.run_id = run_id or new_run_id()
        terms = Terms(run_id=self.run_id)

        async def begin(reader: Reader) -> FlowResult:
            shared, engine = SharedState(state), self.engine
            if engine is not None:
                try:
                    return await started(self._flow, engine, shared, terms, reader, known=run_id is not None)
                except DurabilityError:
                    if not is_useless(engine):
                        raise
                    self.engine = None
            return await self._flow.perform(shared, terms, reader, None)

        return begin

    def resuming(self, run_id: str, answer: object = NO_ANSWER, migrate: Migration | None = None) -> Start:
        self.run_id = run_id
        return lambda reader: resumed(self._flow, self._kept, run_id, answer, migrate, Terms(), reader)

    def forking(self, run_id: str, new_run_id: str, at: str, update: Mapping[str, object] | None) -> Start:
        self.run_id = new_run_id
        return lambda reader: forked(self._flow, self._kept, run_id, at, update, Terms(run_id=new_run_id), reader)

    @property
    def _kept(self) -> Durability:
        assert self.engine is not None
        return self.engine

    # ---- running ---------------------------------------------------------------------------------------------

    def to_its_end(self, start: Start, *, asks: bool) -> FlowResult:
        """The last stretch's result, in the time of all; what made it fail stands in it. Ctrl-C cancels the run and
        raises KeyboardInterrupt; at a question the run stays parked."""
        result = self._stretch(start)
        while asks and (questions := _questions(result)):
            answers = self._asked(questions)
            if len(answers) < len(questions):
                return self._left(result, answers)
            result = self._answered(result, answers)
        return replace(result, duration=self._seconds)

    def _asked(self, questions: Sequence[Interrupt]) -> dict[str, object]:
        """What has been answered; on Ctrl-C that is kept as well."""
        answers: dict[str, object] = {}
        self.is_asking = True
        try:
            ask(questions, answers)
        except KeyboardInterrupt:
            self._keep(answers)
            raise
        self.is_asking = False
        return answers

    def _answered(self, result: FlowResult, answers: Mapping[str, object]) -> FlowResult:
        """The next stretch. Where a node has refused what it was answered, it asks again."""
        try:
            return self._stretch(self.resuming(result.run_id, answers))
        except AnswerError as error:
            info = asyncio.run(self._kept.find(result.run_id))
            if info.status != "waiting" or not info.interrupts:
                raise
            self._progress.note(str(error))
            return replace(result, interrupts=info.interrupts)

    def _left(self, result: FlowResult, answers: Mapping[str, object]) -> FlowResult:
        """Nobody wants to answer now: what has been is kept for whoever goes on."""
        self._keep(answers)
        left = tuple(each for each in result.interrupts if each.id not in answers)
        return replace(result, interrupts=left, duration=self._seconds)

    def _keep(self, answers: Mapping[str, object]) -> None:
        if answers:
            asyncio.run(answered(self._kept, self.run_id, answers))

    def _stretch(self, start: Start) -> FlowResult:
        with self._progress:
            result = asyncio.run(self._watched(start))
        self._seconds += result.duration
        return result

    async def _watched(self, start: Start) -> FlowResult:
        try:
            async with EventStream(start, self._cancelled) as events:
                try:
                    async for event in events:
                        self._see(event)
                except AgentFlowError as error:
                    if events.result.error is not error:
                        raise
            return events.result
        finally:
            await AgentFlow.aclose()  # what a cache is still keeping is kept

    def _cancelled(self) -> FlowResult:
        return FlowResult(SharedState(), None, "cancelled", None, self.run_id, 0.0)

    def _see(self, event: ExecutionEvent) -> None:
        self._progress.see(event)
        match event.kind:
            case "node_success":
                self.last_path = event.path
            case "model_start":
                self._notice(str(event.data.get("model")))
            case "not_kept":
                node = str(event.data.get("step")).rpartition("/")[2].partition("#")[0]
                self._note_once(f"note: {event.data.get('error')}; {node} will run again if the run is resumed")

    def _note_once(self, line: str) -> None:
        """A loop says the same again and again."""
        if line not in self._noted:
            self._noted.add(line)
            self._progress.note(line)

    def _notice(self, model: str) -> None:
        notice = None if self._noticed else stand_in_notice(model)
        if notice is not None:
            self._noticed = True
            self._note_once(notice)

    # ---- looking back ----------------------------------------------------------------------------------------

    def last_step(self, *, done: bool) -> str:
        """The path of the node that finished last; of a run that is `done` in whatever stretch."""
        if self.last_path or self.engine is None or not done:
            return self.last_path
        with suppress(AgentFlowError):
            records = asyncio.run(self.engine.records(self.run_id))
            return next((record.id for record in reversed(records) if record.kind == "step"), "")
        return ""

    def can_go_on(self) -> bool:
        """Whether there is something to resume after the run has failed: what has been undone is not done again."""
        if self.engine is None:
            return False
        with suppress(AgentFlowError):
            return all(record.kind != "failed" for record in asyncio.run(self.engine.records(self.run_id)))
        return False


def _questions(result: FlowResult) -> tuple[Interrupt, ...]:
    if result.status != "interrupted":
        return ()
    return tuple(each for each in result.interrupts if each.kind == "question")
