"""A sleep that survives: when it is over was decided when it began.

    await sleep(3600)                    waits here; a run that goes on meanwhile waits for the rest
    await sleep(7 * 86_400, park=True)   parks the run, which goes on when it is resumed after that moment

Moments are wall times. Where the clock was set back, nobody waits longer than was asked for.
"""

from __future__ import annotations

import asyncio
import json

from agentflow.core.durability.interrupts import interrupt_in
from agentflow.core.durability.records import Record
from agentflow.core.durability.step import DurableStep, current_step
from agentflow.core.observability.scope import current_scope
from agentflow.errors import ConfigurationError

__all__ = ["sleep"]


async def sleep(seconds: float, *, park: bool = False) -> None:
    """Wait so long, however often the run dies meanwhile. With `park` no task waits: the run returns with the status
    "interrupted", and whoever resumes it, or `recover()`, lets it go on once the time has come.

    Outside of a durable run it is `asyncio.sleep`, and `park` raises ConfigurationError.
    """
    step = current_step.get()
    if step is not None:
        await _sleep(step, seconds, park=park)
    elif park:
        raise ConfigurationError("sleep(park=True) parks a run, so the run has to be durable: run(…, durability=…)")
    else:
        await asyncio.sleep(seconds)


async def _sleep(step: DurableStep, seconds: float, *, park: bool) -> None:
    id = step.id_of("timer")
    record = step.journal.find(id)
    if record is None:
        record = await _begun(step, id, step.clock.time() + seconds)
    due = interrupt_in(record).due or 0.0
    left = min(seconds, due - step.clock.time())
    if left <= 0:
        return
    if park:
        raise step.park(interrupt_in(record))
    began = step.clock.monotonic()
    try:
        await step.clock.sleep(left)
    finally:
        scope = current_scope.get()
        if scope is not None:
            scope.waited({"waiting": step.clock.monotonic() - began})


async def _begun(step: DurableStep, id: str, due: float) -> Record:
    asked = {"prompt": "sleeps", "schema": None, "due": due, "kind": "timer"}
    record = Record(id, "timer", f'{{"question":{json.dumps(asked)},"payload":null}}', step.clock.time())
    await step.journal.save(record)
    scope = current_scope.get()
    if scope is not None:
        await scope.send("timer", {"due": due})
    return record
