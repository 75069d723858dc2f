"""LiteLLM's cache in a process of its own, by the lines of `processes.py`: {"do": "hits", "calls": n, "turns": k}.

Started by `cache_overhead.py` with the interpreter of an environment that has LiteLLM with its proxy's dependencies:
without these its own cache cannot be imported. The model's answer is LiteLLM's `mock_response`; nothing is sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches its price list when imported

import litellm
from litellm.caching.caching import Cache

litellm.telemetry = False
litellm.suppress_debug_info = True


async def hits(calls: int, turns: int, kind: str, folder: str) -> dict[str, Any]:
    """Microseconds of CPU a hit: of a whole call, and of asking the cache alone. Every answer must be a hit."""
    litellm.cache = Cache(type="local") if kind == "memory" else Cache(type="disk", disk_cache_dir=folder)
    asked = {"model": "openai/gpt-4o", "temperature": 0, "messages": conversation(turns)}
    options = {"api_key": "none", "mock_response": "A short answer, as short answers are."}
    first = (await litellm.acompletion(**asked, **options)).id
    for _ in range(100):  # it keeps in the background
        await asyncio.sleep(0.02)
        if (await litellm.acompletion(**asked, **options)).id == (await litellm.acompletion(**asked, **options)).id:
            break
    began = time.process_time()
    ids = {(await litellm.acompletion(**asked, **options)).id for _ in range(calls)}
    whole = (time.process_time() - began) / calls * 1e6
    if len(ids) != 1:
        return {"error": f"{len(ids)} answers, first {first}"}
    found = await litellm.cache.async_get_cache(**asked, **options)
    began = time.process_time()
    for _ in range(calls):
        found = await litellm.cache.async_get_cache(**asked, **options)
    alone = (time.process_time() - began) / calls * 1e6
    return {"call": whole, "cache": alone if found is not None else None}


def conversation(turns: int) -> list[dict[str, str]]:
    return [{"role": "user" if turn % 2 == 0 else "assistant", "content": "word " * 40} for turn in range(turns)]


async def serve() -> None:
    """One event loop for all: its queues belong to the one that they were made on."""
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        try:
            said = await hits(command["calls"], command["turns"], command["kind"], command["folder"])
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
