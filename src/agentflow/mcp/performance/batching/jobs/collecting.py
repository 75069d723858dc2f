"""The answers of a batch that has ended: which request each is for, what it says, and what is left to be done.

    BatchAnswer, BatchAnswer, … ──▶ settled as they come ──▶ those that expired, failed in passing or are missing: again

Answers come in no order, twice, for requests of nobody here, or not at all. A name of ours with the hash of our request
is what makes an answer ours; the first one counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from agentflow.errors import BatchRequestError, ModelError
from agentflow.llm.providers.batches.endpoint import Batch, BatchAnswer
from agentflow.mcp.performance.batching.jobs.desk import Desk
from agentflow.mcp.performance.batching.jobs.outcomes import read_request, response_text
from agentflow.mcp.performance.batching.jobs.rows import PartRow, RequestRow, Settling

__all__ = ["Harvest", "Leftover", "collect"]

_AT_ONCE: Final = 200  # answers that are written down together


@dataclass(frozen=True, slots=True)
class Leftover:
    """A request that the batch did not settle. `error` is what it ends with where it is not asked again; `at_risk` says
    that it may have been paid for all the same, `tried` that the batch has worked on it."""

    row: RequestRow
    error: Exception
    worth_repeating: bool
    at_risk: bool = False
    tried: bool = True


@dataclass(slots=True)
class Harvest:
    """What was found in the answers beside what was settled. `unknown` counts those that belong to nobody here, `twice`
    those that were there already."""

    leftovers: list[Leftover] = field(default_factory=list)
    cancelled: list[RequestRow] = field(default_factory=list)
    missing: list[RequestRow] = field(default_factory=list)
    unknown: int = 0
    twice: int = 0


async def collect(desk: Desk, part: PartRow, batch: Batch, harvest: Harvest) -> AsyncGenerator[int, None]:
    """Write the answers down as they come; yields how many were news each time. `harvest` is filled by the end."""
    rows = desk.store.requests(desk.id, part=part.id)
    by_name = {row.custom_id: row for row in rows}
    seen: set[str] = set()
    waiting: list[Settling] = []
    async for answer in desk.endpoint.answers(batch):
        row = _row_of(answer, rows, by_name)
        if row is None:
            harvest.unknown += 1
            continue
        if row.custom_id in seen:
            harvest.twice += 1
            continue
        seen.add(row.custom_id)
        settling = _settled(desk, row, answer, harvest)
        if settling is not None:
            waiting.append(settling)
        if len(waiting) >= _AT_ONCE:
            yield _write(desk, waiting)
            waiting = []
            await asyncio.sleep(0)  # a batch may be large, and others want to go on
    if waiting:
        yield _write(desk, waiting)
    harvest.missing = [row for row in rows if row.custom_id not in seen and row.state in ("open", "asking")]


def _row_of(answer: BatchAnswer, rows: list[RequestRow], by_name: dict[str, RequestRow]) -> RequestRow | None:
    """By its name; by its place alone where the provider tells no name."""
    if answer.custom_id or answer.index is None:
        return by_name.get(answer.custom_id)
    return rows[answer.index] if answer.index < len(rows) else None


def _settled(desk: Desk, row: RequestRow, answer: BatchAnswer, harvest: Harvest) -> Settling | None:
    """What is to be written down of an answer; None where it is left over, or was settled another way meanwhile."""
    if row.state not in ("open", "asking"):
        _settled_before(desk, row, answer)
        return None
    if answer.outcome == "cancelled":
        harvest.cancelled.append(row)
        return None
    if answer.outcome == "expired":
        error: Exception = BatchRequestError(
            "expired", "the provider's time was up before it came to this request", job=desk.id
        )
        harvest.leftovers.append(Leftover(row, error, worth_repeating=True))
        return None
    try:
        response = desk.endpoint.read(answer, read_request(row.request))
    except ModelError as failed:
        # An answer that cannot be read was paid for: to ask again would pay twice and most likely read as badly.
        again = failed.retryable and answer.outcome == "failed"
        harvest.leftovers.append(Leftover(row, failed, worth_repeating=again))
        return None
    cost = desk.cost(response)
    made = response if cost is None else replace(response, cost=cost)
    tokens = None if response.usage is None else response.usage.total_tokens
    return Settling(row.seq, "answered", "batch", response_text(made), cost=cost, tokens=tokens)


def _write(desk: Desk, settled: list[Settling]) -> int:
    news = desk.store.settle(desk.id, settled)
    desk.charge(settled, news)
    return len(news)


def _settled_before(desk: Desk, row: RequestRow, answer: BatchAnswer) -> None:
    """It was answered directly, or in an earlier life of this process. Only the first may be paid for twice."""
    if row.at_risk:
        billed, cost = answer.outcome == "answered", None
        if billed:
            try:
                cost = desk.cost(desk.endpoint.read(answer, read_request(row.request)))
            except ModelError:
                cost = None
        desk.store.late(desk.id, row.seq, billed=billed, cost=cost)
