"""`agentflow worker`: goes on with what nobody runs, leaves alone what cannot go on, and ends when it is asked to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow.cli.durable.queues import work_off
from agentflow.cli.durable.stopping import Stopping
from agentflow.cli.durable.working import Worker
from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, node
from agentflow.core.durability import sleep
from agentflow.core.durability.protocol import Body
from agentflow.core.durability.records import RunSpec

HANGS = """
import asyncio, os
from agentflow import *

@node(writes="output")
async def work():
    if os.path.exists("hang"):
        print("hanging", flush=True)
        while not os.path.exists("let go"):
            await asyncio.sleep(0.01)
    return "worked"

flow = AsyncFlow(work, name="works")
"""


@pytest.fixture
def lost(spawn, place: Path) -> Path:
    """A run whose process was killed; its flow would hang no more."""
    (place / "f.py").write_text(HANGS)
    (place / "hang").touch()
    process = spawn("run", "f.py", "--run-id", "lost")
    assert process.stdout.readline() == b"hanging\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    (place / "hang").unlink()
    return place


def status(invoke, run: str) -> str:
    return str(json.loads(invoke("runs", "show", run, "--json").stdout)["status"])


def test_once_goes_on_with_a_run_whose_process_died(lost: Path, invoke) -> None:
    shown = invoke("worker", "f.py", "--once")
    assert (shown.exit_code, status(invoke, "lost")) == (0, "done")
    assert shown.stderr.startswith("works lost: done after ")
    assert invoke("worker", "f.py", "--once").stderr == ""


def test_a_run_that_cannot_go_on_is_said_once_and_left_alone(lost: Path, invoke) -> None:
    (lost / "f.py").write_text(HANGS.replace("work()", "other()").replace("AsyncFlow(work", "AsyncFlow(other"))
    shown = invoke("worker", "f.py", "--once")
    assert shown.exit_code == 0
    assert shown.stderr.count("works lost: left alone: run lost began with another flow") == 1
    assert status(invoke, "lost") == "lost"


def test_runs_of_other_flows_are_none_of_its_business(lost: Path, invoke) -> None:
    (lost / "g.py").write_text(HANGS.replace('"works"', '"other"'))
    assert invoke("worker", "g.py", "--once").stderr == ""
    assert status(invoke, "lost") == "lost"
    two = invoke("worker", "f.py", "f.py", "--once")
    assert (two.exit_code, "Two of the flows are called works" in two.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_it_lets_what_is_under_way_end(lost: Path, spawn, invoke, number: signal.Signals) -> None:
    (lost / "hang").touch()
    process = spawn("worker", "f.py")
    assert process.stdout.readline() == b"hanging\n"
    process.send_signal(number)
    assert process.stderr.readline().startswith(b"ending when what is under way has ended")
    (lost / "let go").touch()
    assert process.wait(60) == 0
    assert status(invoke, "lost") == "done"


def test_a_second_ctrl_c_ends_at_once_and_others_can_go_on(lost: Path, spawn, invoke) -> None:
    (lost / "hang").touch()
    process = spawn("worker", "f.py")
    assert process.stdout.readline() == b"hanging\n"
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT
    assert status(invoke, "lost") == "lost"


def test_a_timer_that_is_over_is_gone_on_with() -> None:
    clock = VirtualClock()
    engine = MemoryDurability(clock=clock)
    said: list[str] = []

    @node(writes="output")
    async def nap() -> str:
        await sleep(7 * 86_400, park=True)
        return "rested"

    flow = AsyncFlow(nap, name="naps", clock=clock)
    worker = Worker([flow], engine, 2, say=lambda line, _: said.append(line))

    async def main() -> tuple[int, int]:
        await flow.run(run_id="r", durability=engine)
        stop = asyncio.Event()
        early = await worker.round(stop)
        await clock.sleep(7 * 86_400)
        return early, await worker.round(stop)

    assert clock.run(main()) == (0, 1)
    assert said == ["naps r: done after 0 ms"]


async def test_what_is_asked_to_stop_begins_no_more() -> None:
    engine = MemoryDurability()
    flow = AsyncFlow(node(lambda state: None), name="f")
    stop = asyncio.Event()
    stop.set()
    assert await Worker([flow], engine, 1, say=lambda line, _: None).round(stop) == 0


# ---- queues --------------------------------------------------------------------------------------------------


class FakeQueue:
    def __init__(self) -> None:
        self.served: dict[str, Callable[[RunSpec], Body]] = {}
        self.stopped = False

    def serve(self, flow: str, body_of: Callable[[RunSpec], Body], /) -> None:
        self.served[flow] = body_of

    async def work(self, stop: asyncio.Event, /) -> None:
        await stop.wait()
        self.stopped = True


async def test_a_queue_is_worked_off_with_the_flows_until_it_is_asked_to_end() -> None:
    @node(writes="output")
    async def work() -> str:
        return "worked"

    queue, engine = FakeQueue(), MemoryDurability()
    flow = AsyncFlow(work, name="works")
    with Stopping() as stopping:
        working = asyncio.create_task(work_off(queue, [flow], stopping))
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGTERM)
        await working
    assert queue.stopped
    spec = RunSpec("r", "works", graph="{}")
    ending = await engine.execute(spec, queue.served["works"](spec))
    assert ending.status == "done"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--queue", "jobs"], "--queue needs --database URL"),
        (["--queue", "jobs", "--database", "postgresql://db/x", "--once"], "A queue is never at its end"),
    ],
)
def test_a_queue_needs_its_database(place: Path, invoke, words: list[str], said: str) -> None:
    (place / "f.py").write_text(HANGS)
    shown = invoke("worker", "f.py", *words)
    assert (shown.exit_code, said in shown.stderr) == (2, True)
