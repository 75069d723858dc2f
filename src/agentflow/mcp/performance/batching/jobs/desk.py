"""Everything that work on one job needs at hand, and how it says what it has done.

Desk(job, store, endpoint, config, clock, …)   ──move──▶ store, then whoever watches
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.clock import Clock
from agentflow.llm.caller import Caller
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.messages import Response
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.providers.batches.endpoint import BatchEndpoint, BatchItem, BatchOrder
from agentflow.mcp.performance.batching.jobs.funding import Funding
from agentflow.mcp.performance.batching.jobs.ids import batch_name
from agentflow.mcp.performance.batching.jobs.outcomes import read_request
from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy
from agentflow.mcp.performance.batching.jobs.rows import JobRow, PartRow, Settling
from agentflow.mcp.performance.batching.jobs.states import Event
from agentflow.mcp.performance.batching.jobs.store import Store

__all__ = ["Desk"]


@dataclass(frozen=True, slots=True)
class Desk:
    """`ask` answers single requests, guarded as any call is. What batches cost is noted in the ledgers of the `caller`;
    a direct call is noted there by whoever guards it."""

    id: str
    store: Store
    endpoint: BatchEndpoint
    ask: LLMProvider
    config: ModelConfig
    clock: Clock
    policy: BatchPolicy
    caller: Caller = field(default_factory=Caller)
    funding: Funding | None = None

    @property
    def job(self) -> JobRow:
        return self.store.job(self.id)

    def now(self) -> float:
        return self.clock.time()

    def order(self, part: PartRow) -> BatchOrder:
        """What the part asks, settled or not: the same whenever it is asked for."""
        rows = self.store.requests(self.id, part=part.id)
        items = [(row.custom_id, BatchItem(row.path, row.body)) for row in rows]
        return BatchOrder(batch_name(part.id, [name for name, _ in items]), self.config.model_id, items)

    async def move(self, part: PartRow, event: Event, reason: str, **facts: str | float | None) -> PartRow:
        """The part in its next state, once that stands in the file."""
        moved = self.store.move(part, event, at=self.now(), reason=reason, **facts)
        await self.told(part, moved, reason)
        return moved

    async def told(self, old: PartRow, new: PartRow, reason: str, *, chance: float | None = None) -> None:
        if not self.caller.watched:
            return
        counts, job = self.store.counts(self.id), self.job
        facts: dict[str, object] = {
            "job": self.id,
            "part": new.id,
            "model": self.config.name,
            "provider": self.config.provider,
            "from": str(old.state),
            "to": str(new.state),
            "size": new.requests,
            "reason": reason,
            "at_risk": counts.at_risk,
            "cost": counts.cost,
        }
        if chance is not None:
            facts["chance"] = chance
        if job.tenant is not None:
            facts["tenant"] = job.tenant
        await self.caller.tell("batch_job", facts)

    async def hold(self, part: PartRow) -> str | None:
        """What is reserved for the part in the budget of its model, None without one. Raises BudgetExceededError."""
        if self.funding is None or part.hold is not None:
            return part.hold
        rows = self.store.requests(self.id, part=part.id)
        return await self.funding.hold([read_request(row.request) for row in rows], self.caller)

    async def settle(self, part: PartRow) -> None:
        """Tell the budget what the part has cost. Where nobody knows, what is reserved stays spent."""
        cost = self.store.bill(part)
        if self.funding is not None and part.hold is not None and cost is not None:
            await self.funding.settle(part.hold, cost)

    def cost(self, response: Response) -> float | None:
        """USD, with the discount of a batch; None where nobody knows the price."""
        if response.cost is not None or response.usage is None:
            return response.cost
        return self.config.cost(response.usage, model=response.model, service_tier=response.service_tier, batch=True)

    def charge(self, settled: list[Settling], news: list[int]) -> None:
        """Note what was paid in the ledgers. They may be overdrawn by it: what is paid is paid."""
        if not self.caller.ledgers:
            return
        fresh = set(news)
        for each in settled:
            if each.seq in fresh and each.state == "answered" and each.via == "batch":
                for ledger in self.caller.ledgers:
                    ledger.take_over(1, each.tokens or 0, each.cost)
