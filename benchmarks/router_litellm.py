"""LiteLLM's Router, measured in an environment of its own: what it decides and adds, with answers that are made up.

.venvs/llm-litellm/bin/python benchmarks/router_litellm.py 2000        prints one line of JSON, µs of CPU a call
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

PROMPT = "Why is the sky blue? " * 10
BLOCKS = 9


def models(count: int) -> list[dict[str, Any]]:
    return [
        {
            "model_name": "auto",
            "litellm_params": {
                "model": f"openai/m{number}",
                "api_key": "none",
                "mock_response": "ok",
                "input_cost_per_token": (number + 1) * 1e-7,
                "output_cost_per_token": (number + 1) * 4e-7,
            },
        }
        for number in range(count)
    ]


async def cpu(work: Callable[[], Awaitable[object]], calls: int) -> float:
    """µs of CPU a call: the median of several blocks, after one that warms up."""
    await asyncio.gather(*[work() for _ in range(3)])
    found = []
    for _ in range(BLOCKS):
        begun = time.process_time()
        for _ in range(calls // BLOCKS + 1):
            await work()
        found.append((time.process_time() - begun) / (calls // BLOCKS + 1) * 1e6)
    return statistics.median(found)


async def main(calls: int) -> None:
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    messages = [{"role": "user", "content": PROMPT}]
    measured: dict[str, float] = {}

    async def bare() -> object:
        return await litellm.acompletion(model="openai/m0", messages=messages, api_key="none", mock_response="ok")

    measured["bare"] = await cpu(bare, calls)
    for strategy in ("simple-shuffle", "cost-based-routing"):
        for count in (2, 8):
            router = litellm.Router(model_list=models(count), routing_strategy=strategy, num_retries=0)

            async def decide(router: Any = router) -> object:
                return await router.async_get_available_deployment("auto", request_kwargs={}, messages=messages)

            async def whole(router: Any = router) -> object:
                return await router.acompletion(model="auto", messages=messages)

            measured[f"{strategy}/{count}/decide"] = await cpu(decide, calls)
            measured[f"{strategy}/{count}/whole"] = await cpu(whole, calls)
    print(json.dumps(measured))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
