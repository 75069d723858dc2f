"""All that an open engine holds: DBOS, its lease, the threads that look after runs. Opened and closed in one piece.

Opened.open(…)   blocks: launches DBOS, takes the lease, registers the queues
opened.close()   blocks: in the opposite order, so that nobody takes over what still runs here
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agentflow.core.durability.records import RunSpec
from agentflow.errors import DurabilityError
from agentflow.integrations.dbos.bodies import Offer
from agentflow.integrations.dbos.execution import Executions
from agentflow.integrations.dbos.keeper import Keeper
from agentflow.integrations.dbos.leases import Lease, Leases
from agentflow.integrations.dbos.limits import QueueLimits
from agentflow.integrations.dbos.runs import TIMERS, Runs, queue_of
from agentflow.integrations.dbos.server import Server, Settings
from agentflow.integrations.dbos.workflows import Host, hosted

__all__ = ["Opened", "Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """`works`: it listens to the queue, and takes over from the dead. `settings.engine` is its unique name."""

    settings: Settings
    queue: str | None
    limits: QueueLimits | None
    works: bool
    beat: float
    grace: float
    take_overs: int


class Opened:
    def __init__(self, plan: Plan, offer: Callable[[RunSpec], Offer | None], serves: Callable[[str], bool]) -> None:
        self.plan = plan
        engine = plan.settings.engine
        queues = [TIMERS, *([plan.queue] if plan.queue else [])] if plan.works else []
        self.server = Server(plan.settings, [queue_of(engine), *queues])
        self.leases = Leases(plan.settings.url, plan.grace)
        self.runs = Runs(self.leases, engine, plan.queue, self.server.where)
        self._lease = Lease(self.leases, engine, plan.beat)
        self.keeper = Keeper(
            self.runs, self.leases, self._lease, engine, beat=plan.beat, most=plan.take_overs, serves=serves
        )
        self.executions = Executions(self.server, self.runs, self.keeper, offer)

    @classmethod
    def open(
        cls, plan: Plan, host: Host, offer: Callable[[RunSpec], Offer | None], serves: Callable[[str], bool]
    ) -> Opened:
        """Raises DurabilityError; nothing is left open then."""
        hosted(host)
        opened = cls(plan, offer, serves)
        try:
            opened._begin()
        except BaseException as error:
            opened.close()
            raise opened.server.explained(error) from error
        return opened

    def _begin(self) -> None:
        self.server.open()
        if not self._lease.take():
            raise DurabilityError("another engine has a lock of the same hash: try again")
        self._register_queues()
        self.keeper.works = self.plan.works
        self.keeper.start()

    def _register_queues(self) -> None:
        from dbos import DBOS

        polling = self.plan.settings.polling
        DBOS.register_queue(queue_of(self.plan.settings.engine), polling_interval_sec=polling)
        DBOS.register_queue(TIMERS, polling_interval_sec=polling, on_conflict="never_update")
        if self.plan.queue is None:
            return
        limits = self.plan.limits
        chosen = limits or QueueLimits()
        DBOS.register_queue(
            self.plan.queue,
            global_concurrency=chosen.concurrency,
            worker_concurrency=chosen.per_worker,
            limiter={"limit": chosen.starts, "period": chosen.period} if chosen.starts is not None else None,
            polling_interval_sec=polling,
            on_conflict="never_update" if limits is None else "always_update",
        )

    def close(self, drain: float = 0.0) -> None:
        """Executions get `drain` seconds to end. What has not ended then is left to others."""
        from dbos import DBOS

        self.keeper.works = False
        with suppress(Exception):  # a row that nobody needs, and a server that may be away
            DBOS.delete_queue(queue_of(self.plan.settings.engine))
        self.server.close(drain)
        self.keeper.stop()
        self._lease.give_up()
        hosted(None)
