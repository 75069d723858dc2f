"""Calling flows from sync code, wherever that code stands: other threads, event loops, forks, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentflow.core import AsyncFlow, Flow, SharedState, emit, node
from agentflow.core.portal import run_blocking
from agentflow.errors import NodeError


@node
async def where(state: SharedState) -> None:
    state["thread"] = threading.current_thread().name


@node
async def boom(state: SharedState) -> None:
    raise ValueError("boom")


def python(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, in development mode, where every warning is an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *options, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_flow_runs_from_plain_sync_code():
    assert Flow(where).run().state["thread"] == "agentflow-portal"


async def test_a_flow_runs_from_inside_a_running_event_loop():
    assert Flow(where).run().state["thread"] == "agentflow-portal"


def test_a_flow_runs_from_many_threads_at_once():
    @node
    async def meet(state: SharedState) -> None:
        arrived.append(1)
        while len(arrived) < 20:
            await asyncio.sleep(0)

    arrived: list[int] = []
    flow = Flow(meet >> where)
    with ThreadPoolExecutor(20) as threads:
        results = list(threads.map(lambda _: flow.run(), range(20)))
    assert len({result.run_id for result in results}) == 20


def test_sync_flows_nest_in_sync_nodes_without_deadlock():
    """Each level holds a thread while it waits for the next, so a pool of any fixed size would hang."""

    def level(depth: int) -> Flow:
        @node(name=f"level{depth}")
        def body(state: SharedState) -> None:
            inner = level(depth - 1).run().state["depth"] if depth else 0
            state["depth"] = int(str(inner)) + 1

        return Flow(body)

    assert level(60).run().state["depth"] == 61


def test_many_sync_nodes_that_wait_for_each_other_do_not_deadlock():
    barrier = threading.Barrier(100)

    def body(state: SharedState) -> None:
        barrier.wait(30)

    made = node(name="meet")(body)
    Flow(tuple(made.named(f"meet{number}") for number in range(100))).run()


def test_a_failure_is_raised_in_the_calling_thread():
    with pytest.raises(NodeError, match="boom"):
        Flow(boom).run()


def test_context_variables_of_the_caller_are_seen_by_the_nodes():
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    @node
    async def read(state: SharedState) -> None:
        state["async"] = name.get()

    @node
    def read_in_thread(state: SharedState) -> None:
        state["sync"] = name.get()

    name.set("somebody")
    assert dict(Flow(read >> read_in_thread).run().state) == {"async": "somebody", "sync": "somebody"}


def test_a_sync_call_on_the_portals_own_loop_is_refused_and_not_a_deadlock():
    @node
    async def wrong(state: SharedState) -> None:
        Flow(where).run()

    with pytest.raises(NodeError, match="await the async form"):
        Flow(wrong).run()


async def test_a_sync_call_in_a_watched_async_node_does_not_wait_for_the_loop_it_blocks():
    """The watcher's loop stands still until the inner run is over, so the inner run must not wait for it."""

    @node
    async def tell(state: SharedState) -> None:
        await emit("told")

    @node
    async def outer(state: SharedState) -> None:
        Flow(tell).run()

    async with AsyncFlow(outer).stream() as events:
        kinds = [event.kind async for event in events]
    assert kinds[-1] == "flow_success"


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("shape", ["alone", "branch", "thread"])
def test_system_exit_of_a_node_reaches_the_caller_and_the_portal_goes_on(stop, shape):
    async def leave(state: SharedState) -> None:
        raise stop(3)

    def leave_in_thread(state: SharedState) -> None:
        raise stop(3)

    leaving = node(name="leave")(leave_in_thread if shape == "thread" else leave)
    with pytest.raises(stop):
        Flow((leaving, where) if shape == "branch" else leaving).run()
    assert Flow(where).run().status == "done"


def test_a_sync_function_that_raises_stop_iteration_fails_instead_of_hanging():
    @node
    def first(state: SharedState) -> None:
        next(iter([]))

    with pytest.raises(NodeError, match="StopIteration"):
        Flow(first).run()


def test_an_exception_in_the_waiting_thread_cancels_the_run_and_waits_for_its_end():
    """Ctrl-C, here by sending the signal to the main thread once the node runs."""
    ended: list[str] = []
    waiting = threading.get_ident()

    @node
    async def wait(state: SharedState) -> None:
        signal.pthread_kill(waiting, signal.SIGINT)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Flow((wait, where)).run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ["cleaned up"]

    async def left() -> int:
        return len(asyncio.all_tasks()) - 1

    assert run_blocking(left) == 0


CTRL_C = """
import asyncio, signal, threading
from agentflow.core import *

@node
async def wait(state):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        print("cleaned up")

@node
async def other(state):
    await asyncio.sleep(3600)

try:
    RUN
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    "run",
    [
        "Flow((wait, other)).run()",
        "Flow((wait, other)).run_batch([{}])",
        "asyncio.run(AsyncFlow((wait, other)).run())",
        "with Flow((wait, other)).stream() as events: list(events)",
    ],
)
def test_ctrl_c_ends_a_program_cleanly(run):
    done = python(CTRL_C.replace("RUN", run))
    assert (sorted(done.stdout.splitlines()), done.stderr, done.returncode) == (["cleaned up", "interrupted"], "", 0)


AT_EXIT = """
import asyncio, contextlib, threading
from agentflow.core import *

started = threading.Event()

@node
async def wait(state):
    started.set()
    try:
        await asyncio.sleep(3600)
    finally:
        print("cleaned up", flush=True)

@node
async def other(state):
    await asyncio.sleep(3600)

def run():
    with contextlib.suppress(BaseException):  # it is cancelled
        Flow((wait, other)).run()

threading.Thread(target=run, daemon=True).start()
started.wait()
"""


def test_what_a_daemon_thread_still_runs_is_ended_when_the_interpreter_ends():
    done = python(
        AT_EXIT.replace("target=Flow((wait, other)).run", "target=quietly").replace(
            "threading.Thread",
            "def quietly():\n    try:\n        Flow((wait, other)).run()\n    except BaseException:\n"
            "        pass\n\nthreading.Thread",
        )
    )
    assert (done.stdout, done.stderr, done.returncode) == ("cleaned up\n", "", 0)


LATE_THREAD = """
import asyncio, threading
from agentflow.core import *

go = threading.Event()

@node(timeout=0.01)
def slow(state):
    go.wait()
    print("finished", flush=True)

try:
    Flow(slow).run()
except Exception as error:
    print(type(error.__cause__).__name__, flush=True)
go.set()
"""


def test_the_interpreter_waits_for_a_late_thread_and_ends_cleanly():
    done = python(LATE_THREAD)
    assert (done.stdout, done.stderr, done.returncode) == ("OperationTimeoutError\nfinished\n", "", 0)


FORK = """
import os, sys
from agentflow.core import *

@node
async def a(state): state["a"] = 1
@node
def b(state): state["b"] = 2

flow = Flow(a >> b)
flow.run()
child = os.fork()
if not child:
    flow.run()
    LEAVE
_, status = os.waitpid(child, 0)
for _ in range(3):
    flow.run()
print("parent", os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("leave", ["os._exit(7)", "sys.exit(7)", "import gc; gc.collect(); sys.exit(7)"])
def test_a_forked_child_has_a_portal_and_threads_of_its_own(leave):
    quiet = ["-W", "ignore::DeprecationWarning"]  # 3.12 warns of every fork of a program that has threads
    done = python(FORK.replace("LEAVE", leave), *quiet)
    assert (done.stdout, done.stderr, done.returncode) == ("parent 7\n", "", 0)


def test_the_portal_is_one_thread_however_many_runs():
    Flow(where).run()
    before = sum(thread.name == "agentflow-portal" for thread in threading.enumerate())
    for _ in range(20):
        Flow(where).run()
    assert sum(thread.name == "agentflow-portal" for thread in threading.enumerate()) == before == 1


def test_a_run_blocking_result_is_what_the_coroutine_returns():
    async def answer() -> Any:
        return threading.get_ident()

    assert run_blocking(answer) != threading.get_ident()
