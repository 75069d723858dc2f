"""Requests that are asked one by one, because a deadline leaves no time for a batch.

    open requests ──▶ asked by the guarded model, so many at a time ──▶ settled as each is answered

Each is marked before it is asked. One that was being asked when a process died is asked again, and may then be billed
twice: its mark says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from agentflow.core.robustness.attempt import Attempt, current_attempt
from agentflow.errors import (
    AgentFlowError,
    AuthenticationError,
    ConfigurationError,
    LimitExceededError,
    PermissionDeniedError,
    QuotaExceededError,
    RejectedError,
)
from agentflow.llm.caller import asking_as
from agentflow.mcp.performance.batching.jobs.desk import Desk
from agentflow.mcp.performance.batching.jobs.outcomes import error_text, read_request, response_text
from agentflow.mcp.performance.batching.jobs.rows import RequestRow, Settling

__all__ = ["ask_directly"]

# Nothing was paid, and what stands in the way is no fault of the request: it stays open.
_NOT_ASKED: Final = (
    ConfigurationError,
    LimitExceededError,
    RejectedError,
    AuthenticationError,
    PermissionDeniedError,
    QuotaExceededError,
)


async def ask_directly(desk: Desk, rows: Sequence[RequestRow], risky: frozenset[str]) -> AsyncGenerator[int, None]:
    """Yields whenever some are settled. A request of a part in `risky` may be answered, and billed, by its batch, too.

    A limit that is used up, a guard that lets nothing through or a wrong key is raised once what is under way has come;
    what was not asked stays open.
    """
    waiting = list(reversed(rows))
    running: set[asyncio.Task[Settling]] = set()
    trouble: BaseException | None = None
    try:
        while running or (waiting and trouble is None):
            while waiting and len(running) < desk.policy.direct_concurrency and trouble is None:
                row = waiting.pop()
                running.add(asyncio.ensure_future(_ask(desk, row, row.part in risky)))
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            settled = []
            for task in done:
                if task.exception() is None:
                    settled.append(task.result())
                else:
                    trouble = task.exception()
            if settled:
                desk.store.settle(desk.id, settled)
                yield len(settled)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if trouble is not None:
        raise trouble


async def _ask(desk: Desk, row: RequestRow, in_a_batch: bool) -> Settling:
    desk.store.begin_direct(desk.id, row.seq, at_risk=in_a_batch or row.state == "asking")
    token = current_attempt.set(Attempt(key=row.custom_id))  # the same key whenever it is asked
    try:
        with asking_as(desk.caller):
            response = await desk.ask.execute(read_request(row.request))
    except _NOT_ASKED:
        desk.store.stop_direct(desk.id, row.seq)
        raise
    except AgentFlowError as error:
        return Settling(row.seq, "failed", "direct", error=error_text(error))
    finally:
        current_attempt.reset(token)
    tokens = None if response.usage is None else response.usage.total_tokens
    return Settling(row.seq, "answered", "direct", response_text(response), cost=response.cost, tokens=tokens)
