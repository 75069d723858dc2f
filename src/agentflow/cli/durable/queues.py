"""Works off a queue in PostgreSQL, for `agentflow worker --queue NAME --database URL`: agentflow[dbos]."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from agentflow.cli.durable.stopping import Stopping
from agentflow.cli.load import AnyFlow
from agentflow.core.durability.protocol import Body
from agentflow.core.durability.records import RunSpec
from agentflow.core.observability.observers import Observer

__all__ = ["QueueEngine", "serve_queue", "work_off"]


class QueueEngine(Protocol):
    """The part of `DbosDurability` that a worker needs."""

    def serve(self, flow: str, body_of: Callable[[RunSpec], Body], /) -> None:
        """Runs of this flow are run by what that returns."""
        ...

    async def work(self, stop: asyncio.Event, /) -> None:
        """Until `stop` is set, and what is under way has ended."""
        ...


async def serve_queue(flows: Sequence[AnyFlow], queue: str, database: str, stopping: Stopping) -> None:
    """Raises MissingExtraError where the extra is not installed, DurabilityError where the database is not there."""
    from agentflow.integrations.dbos import DbosDurability, Tokens  # they are needed for queues alone

    engine = DbosDurability(database, queue=queue)
    await work_off(engine, flows, stopping, [Tokens(engine)])


async def work_off(
    engine: QueueEngine, flows: Sequence[AnyFlow], stopping: Stopping, observers: Sequence[Observer] = ()
) -> None:
    for flow in flows:
        engine.serve(flow.name, partial(flow.body, observers=observers))
    await engine.work(stopping.event())
