"""One life of a process that works on a batch job, and is killed at an edge of it.

    python -m tests.support.batch_life batches.db models.yml openai "after create" 4

Where the edge is empty, it lives to the end. It prints a line for each result.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.batch_bench import Edges, mortal

from agentflow.llm.config.registry import ModelRegistry
from agentflow.mcp.performance.batching.jobs.job import BatchJob
from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy


def kill(name: str) -> None:
    """As nobody can catch it: no cleaning up, no commit, no last word."""
    os.kill(os.getpid(), signal.SIGKILL)


async def live(store: Path, configuration: Path, model: str, requests: int) -> None:
    home = configuration.parent
    registry = ModelRegistry.load(configuration, environ={}, cwd=home, home=home)
    policy = BatchPolicy(poll_first=0.05, poll_most=0.1, settle=0.5, part_requests=2)
    asked = [f"question {number}" for number in range(requests)]
    job = await BatchJob.submit(asked, model=model, store=store, policy=policy, job_id="af-life", registry=registry)
    with job:
        async for result in job.results():
            print(result.index, result.text, flush=True)
    await registry.aclose()


if __name__ == "__main__":
    _, store, configuration, model, edge, requests = sys.argv
    mortal(Edges(None, kill, name=edge))
    asyncio.run(live(Path(store), Path(configuration), model, int(requests)))
