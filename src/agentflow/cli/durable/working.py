"""Goes on with the runs of some flows that nobody runs, as long as it is wanted.

┌─▶ what is lost, what is due ──▶ go on with each, some at once ──▶ nothing left? wait, ever longer ─┐
└────────────────────────────────────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from agentflow.cli.durable.stopping import Stopping
from agentflow.cli.failures import explain
from agentflow.cli.ledger import span
from agentflow.cli.load import AnyFlow
from agentflow.cli.source import Source
from agentflow.core import FlowResult
from agentflow.core.durability.conduct import resumed
from agentflow.core.durability.protocol import Durability
from agentflow.core.durability.records import RunInfo
from agentflow.core.flow import NO_ANSWER
from agentflow.core.tasks import run_together
from agentflow.core.terms import Terms
from agentflow.errors import AgentFlowError, RunHeldError

__all__ = ["Say", "Use", "Worker"]

Say = Callable[[str, bool], None]
"""A line, and whether it is about something that went wrong."""

Use = Callable[["str | None"], None]
"""Make a model the one that is asked where a call names none; None is the usual one."""

Found: TypeAlias = Mapping["str | None", "list[tuple[AnyFlow, str]]"]
"""Flows and the ids of their runs, by the model that these began with."""

_SOONEST, _LATEST = 0.5, 5.0  # seconds between two looks
_MOST: Final = 1000  # runs that one look finds


class Worker:
    """`concurrency` runs at once, those of one model after those of another, as `use` is about the whole process. A run
    that cannot go on is said once, and left alone from then on."""

    def __init__(
        self, flows: Sequence[AnyFlow], engine: Durability, concurrency: int, *, say: Say, use: Use | None = None
    ) -> None:
        self._flows: Mapping[str, AnyFlow] = {flow.name: flow for flow in flows}
        self._engine = engine
        self._concurrency = concurrency
        self._say = say
        self._use = use
        self._given_up: set[str] = set()

    async def work(self, stopping: Stopping, *, once: bool = False) -> None:
        """Until it is asked to stop; with `once` until there is nothing left to do."""
        stop, delay = stopping.event(), _SOONEST
        try:
            while not stop.is_set():
                did = await self.round(stop)
                if once and not did:
                    return
                delay = _SOONEST if did else min(2 * delay, _LATEST)
                if not did:
                    await _wait(stop, delay)
        finally:
            await self._engine.close()

    async def round(self, stop: asyncio.Event) -> int:
        """Go on with what there is. How many runs that were."""
        return sum(
            [
                await self._all(runs, stop)
                for model, runs in (await self._found()).items()
                if self._is_at_hand(model, runs)
            ]
        )

    def _is_at_hand(self, model: str | None, runs: Sequence[tuple[AnyFlow, str]]) -> bool:
        """Use the model; where that cannot be, its runs are left alone."""
        if self._use is None:
            return True
        try:
            self._use(model)
        except AgentFlowError as error:
            for flow, run_id in runs:
                self._leave(flow, run_id, error)
            return False
        return True

    async def _all(self, runs: Sequence[tuple[AnyFlow, str]], stop: asyncio.Event) -> int:
        todo = iter(runs)
        did = 0

        async def worker() -> None:
            nonlocal did
            for flow, run_id in todo:
                if stop.is_set():
                    return
                did += await self._go_on(flow, run_id)

        outcome = await run_together([worker() for _ in range(self._concurrency)])
        if outcome.failures:
            raise outcome.failures[0]
        return did

    async def _found(self) -> Found:
        found: dict[str | None, list[tuple[AnyFlow, str]]] = {}
        for name, flow in self._flows.items():
            lost = await self._engine.runs(flow=name, status="lost", limit=_MOST)
            due = await self._engine.runs(flow=name, status="waiting", due=flow.clock.time(), limit=_MOST)
            for info in (*lost, *due):
                if info.run_id not in self._given_up:
                    found.setdefault(_model_of(info), []).append((flow, info.run_id))
        return found

    async def _go_on(self, flow: AnyFlow, run_id: str) -> bool:
        """Whether there was anything to do: somebody else may have been quicker."""
        try:
            result = await resumed(flow, self._engine, run_id, NO_ANSWER, None, Terms())
        except RunHeldError:
            return False
        except AgentFlowError as error:
            self._leave(flow, run_id, error)
            return True
        self._tell(flow.name, result)
        return True

    def _leave(self, flow: AnyFlow, run_id: str, error: AgentFlowError) -> None:
        self._given_up.add(run_id)
        self._say(f"{flow.name} {run_id}: left alone: {explain(error)}", True)

    def _tell(self, name: str, result: FlowResult) -> None:
        took = span(result.duration)
        if result.error is not None:
            self._say(f"{name} {result.run_id}: failed after {took}: {explain(result.error)}", True)
        else:
            self._say(f"{name} {result.run_id}: {'parked' if result.interrupts else 'done'} after {took}", False)


def _model_of(info: RunInfo) -> str | None:
    return None if info.spec.source is None else Source.read(info.spec.source).model


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
