"""A process that has imported everything, and forks a child for each life of a run.

    python -m tests.core.durability.crash.zygote < jobs > reports

A job is a line of JSON: the shape, the file of runs, the run's id, the diary, and where to die. The child carries the
run on to its end, and answers what is asked; the report says how that went, or which signal has ended it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.core.durability.crash.points import Doom, begin
from tests.core.durability.crash.probed import ProbedDurability, probe_the_walk
from tests.core.durability.crash.shapes import SHAPES, Shape

from agentflow.core import FlowResult
from agentflow.core.durability import conduct as _conduct  # noqa: F401 - imported by the first run, so before all forks
from agentflow.core.durability.history import StepHistory
from agentflow.core.durability.protocol import Durability
from agentflow.core.durability.values import encode
from agentflow.errors import AgentFlowError, RunHeldError


async def carry_on(shape: Shape, engine: Durability, run_id: str) -> FlowResult:
    """Until it ends: whoever comes after a crash does the same."""
    flow = shape.flow
    result = await _once_it_is_free(lambda: flow.run(shape.inputs, run_id=run_id, durability=engine))
    while result.status == "interrupted":
        questions = [each for each in result.interrupts if each.kind == "question"]
        if questions:
            answers = {each.id: shape.answer(each) for each in questions[: 1 if shape.alone else None]}
            result = await flow.resume(run_id, answers, durability=engine)
        else:
            await asyncio.sleep(0.005)
            result = await flow.resume(run_id, durability=engine)
    return result


async def _once_it_is_free(run: Callable[[], Awaitable[FlowResult]]) -> FlowResult:
    """Where a server has to notice first that a process is dead, that takes a moment."""
    while True:
        try:
            return await run()
        except RunHeldError:
            await asyncio.sleep(0.05)


async def live(job: dict[str, Any], engine: Durability) -> dict[str, object]:
    shape = SHAPES[job["shape"]]()
    try:
        result = await carry_on(shape, engine, job["run_id"])
        outcome: list[object] = ["done", result.action, encode(dict(result.state), "state")]
    except AgentFlowError as error:
        outcome = ["failed", type(error).__name__, str(error)]
    steps = await shape.flow.history(job["run_id"], durability=engine)
    await engine.close()  # so that the log, which every life reads, stays short
    return {"outcome": outcome, "history": sorted(map(_told, steps))}


def _told(step: StepHistory) -> str:
    """All of it but when, and how long."""
    facts = [step.action, dict(step.changed), list(step.removed), dict(step.added), step.result, step.answer]
    return f"{step.id} {step.status} {encode(facts, step.id)} {step.error} {step.cost} {step.tokens} {len(step.calls)}"


def child(job: dict[str, Any], report: int) -> None:
    try:
        probe_the_walk()
        begin(Path(job["diary"]), job["process"], Doom(job["at"], job["each"]))
        told: dict[str, object] = asyncio.run(live(job, ProbedDurability(job["file"])))
    except BaseException:
        told = {"broken": traceback.format_exc()}
    with os.fdopen(report, "w") as out:
        json.dump(told, out)
    os._exit(0)


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            child(job, write)
        os.close(write)
        with os.fdopen(read) as pipe:
            told = pipe.read()
        _, status = os.waitpid(pid, 0)
        report = json.loads(told) if told else {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
