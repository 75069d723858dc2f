"""A process that presses against a shared limit, and prints what it got: a line of JSON each.

python -m tests.support.valkey_process '{"url": …, "until": monotonic seconds, …}'

{"asked": …, "granted": …, "ended": …, "shared": true}     a reservation; the machine's monotonic time
{"decision": "store_down", "at": …}                        what the store said
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from agentflow.core.robustness.decision import Decision
from agentflow.errors import LimiterError
from agentflow.integrations.valkey import ValkeyRateLimiter, ValkeyStore


async def main(job: dict[str, Any]) -> None:
    store = ValkeyStore(job["url"], listener=heard, **job["store"])
    limiter = store.limiter(job["key"], **job["limits"])
    say(ready=True)
    job["until"] = float(sys.stdin.readline())
    await asyncio.gather(*(press(limiter, job) for _ in range(job["tasks"])))
    await store.aclose()


async def press(limiter: ValkeyRateLimiter, job: dict[str, Any]) -> None:
    while (asked := time.monotonic()) < job["until"]:
        try:
            reservation = await limiter.reserve(timeout=max(0.0, job["until"] - asked))
        except LimiterError:
            continue
        granted = time.monotonic()
        if job.get("crash"):
            say(asked=asked, granted=granted, ended=granted, shared=True)
            await asyncio.sleep(3600)
        await asyncio.sleep(job["hold"])
        ended = time.monotonic()
        reservation.settle()
        say(asked=asked, granted=granted, ended=ended, shared=reservation.share is None)


def heard(decision: Decision) -> None:
    if decision.kind.startswith("store"):
        say(decision=decision.kind, at=time.monotonic())


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
