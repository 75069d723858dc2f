"""A process that asks through a shared cache, and prints what it got: a line of JSON each.

python -m tests.support.cache_process '{"calls": FILE, "store": {"path": …} or {"url": …}, "ask": 1000, …}'

stdin: a line to begin        {"ready": true} … {"answers": [texts], "costs": sum, "hits": …, "statistics": {…}}

Every call of the model is a line in the file `calls`, of all processes together. `hang`: the model never answers.
`each`: so many different questions, one after the other, for ever.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.costly import Costly, asked

from agentflow.integrations.valkey import ValkeyStore
from agentflow.llm.messages import Request, Response
from agentflow.mcp.performance.caching import CacheStore, ResponseCache, SqliteStore, secret_from_text


class Recorded(Costly):
    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()
        self.job = job

    async def execute(self, request: Request) -> Response:
        note(self.job, request.prompt)
        if self.job.get("hang"):
            say(asked=True)
            await asyncio.sleep(3600)
        await asyncio.sleep(self.job.get("takes", 0.0))
        answer = await super().execute(request)
        size = self.job.get("size")
        return answer if size is None else Response(f"{request.prompt} " * size, "m", "lab", finish_reason="stop")


def note(job: dict[str, Any], text: str) -> None:
    handle = os.open(job["calls"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def store_of(job: dict[str, Any]) -> CacheStore:
    if "path" in job["store"]:
        return SqliteStore(Path(job["store"]["path"]))
    return ValkeyStore(job["store"]["url"], timeout=5.0).cache("test")


async def main(job: dict[str, Any]) -> None:
    cache = ResponseCache(
        Recorded(job), ttl=600, store=store_of(job), secret=secret_from_text("a secret of all processes", "test"),
        lease=job.get("lease", 5.0),
    )  # fmt: skip
    say(ready=True)
    sys.stdin.readline()
    if job.get("each"):
        number = 0
        while True:
            number += 1
            await cache.execute(asked(f"{job['each']}-{number % 50}", metadata={"agentflow_cache": "refresh"}))
            while cache.statistics().kept < number:
                await asyncio.sleep(0)
            say(kept=number)
    answers = await asyncio.gather(*(cache.execute(asked(job.get("prompt", "Hi"))) for _ in range(job["ask"])))
    texts = Counter(answer.text for answer in answers)
    found = cache.statistics()
    say(answers=texts, costs=sum(answer.cost or 0.0 for answer in answers), trouble=found.trouble, misses=found.misses)
    await cache.aclose()


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
