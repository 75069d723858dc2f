"""Goes on with the runs of some flows that nobody runs, as long as it is wanted.

┌─▶ what is lost, what is due ──▶ go on with each, some at once ──▶ nothing left? wait, ever longer ─┐
└────────────────────────────────────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from agentflow.cli.durable.stopping import Stopping
from agentflow.cli.failures import explain
from agentflow.cli.ledger import span
from agentflow.cli.load import AnyFlow
from agentflow.core import FlowResult
from agentflow.core.durability.conduct import resumed
from agentflow.core.durability.protocol import Durability
from agentflow.core.flow import NO_ANSWER
from agentflow.core.tasks import run_together
from agentflow.core.terms import Terms
from agentflow.errors import AgentFlowError, RunHeldError

__all__ = ["Say", "Worker"]

Say = Callable[[str, bool], None]
"""A line, and whether it is about something that went wrong."""

_SOONEST, _LATEST = 0.5, 5.0  # seconds between two looks
_MOST: Final = 1000  # runs that one look finds


class Worker:
    """`concurrency` runs at once. A run that cannot go on is said once, and left alone from then on."""

    def __init__(self, flows: Sequence[AnyFlow], engine: Durability, concurrency: int, *, say: Say) -> None:
        self._flows: Mapping[str, AnyFlow] = {flow.name: flow for flow in flows}
        self._engine = engine
        self._concurrency = concurrency
        self._say = say
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
        todo = iter(await self._found())
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

    async def _found(self) -> list[tuple[AnyFlow, str]]:
        found: list[tuple[AnyFlow, str]] = []
        for name, flow in self._flows.items():
            lost = await self._engine.runs(flow=name, status="lost", limit=_MOST)
            due = await self._engine.runs(flow=name, status="waiting", due=flow.clock.time(), limit=_MOST)
            found += [(flow, info.run_id) for info in (*lost, *due) if info.run_id not in self._given_up]
        return found

    async def _go_on(self, flow: AnyFlow, run_id: str) -> bool:
        """Whether there was anything to do: somebody else may have been quicker."""
        try:
            result = await resumed(flow, self._engine, run_id, NO_ANSWER, None, Terms())
        except RunHeldError:
            return False
        except AgentFlowError as error:
            self._given_up.add(run_id)
            self._say(f"{flow.name} {run_id}: left alone: {explain(error)}", True)
            return True
        self._tell(flow.name, result)
        return True

    def _tell(self, name: str, result: FlowResult) -> None:
        took = span(result.duration)
        if result.error is not None:
            self._say(f"{name} {result.run_id}: failed after {took}: {explain(result.error)}", True)
        else:
            self._say(f"{name} {result.run_id}: {'parked' if result.interrupts else 'done'} after {took}", False)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
