"""Work in other processes: it comes back, it can be stopped, and it leaves nothing behind. All processes are real."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.support import process_nodes as nodes
from tests.support import process_work as work

from agentflow import AsyncFlow, Each, Flow, RetryPolicy, node
from agentflow.clock import VirtualClock
from agentflow.core.processes.pool import ProcessPool, call_in_process
from agentflow.core.processes.worker import Worker
from agentflow.core.robustness import idempotency_key
from agentflow.errors import ConfigurationError, GraphError, NodeError, OperationTimeoutError, ProcessError

ROOT = Path(__file__).resolve().parents[2]
PROC = Path("/proc/self/fd")


@pytest.fixture(autouse=True)
def no_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker imports the main module once more: here that is pytest, which takes longer than all else."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))


@pytest.fixture
def pool() -> Iterator[ProcessPool]:
    made = ProcessPool(2)
    yield made
    made.close()


@pytest.fixture
def note(tmp_path: Path) -> str:
    return str(tmp_path / "note")


async def until(holds: Callable[[], object]) -> None:
    """Other processes cannot be awaited; that it never holds is told by pytest's own limit."""
    while not holds():
        await asyncio.sleep(0.005)


def is_there(pid: int) -> bool:
    """Whether a process of that number runs; one that has ended and was not reaped counts, too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def noted(note: str) -> int:
    """The process that has written its number down."""
    await until(lambda: os.path.exists(note))
    return int(Path(note).read_text(encoding="utf-8"))


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def run_script(text: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *script(text, *args)], cwd=ROOT, capture_output=True, text=True, timeout=100, env=environment()
    )


def script(text: str, *args: str) -> list[str]:
    file = Path(args[0])
    file.write_text(text, encoding="utf-8")
    return [str(file), *args[1:]]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "AGENTFLOW_PROCESSES": "2"}


# ---- a call --------------------------------------------------------------------------------------------------


async def test_a_call_runs_in_another_process_and_its_result_comes_back(pool: ProcessPool) -> None:
    assert await pool.call(work.double, 21) == 42
    assert await pool.call(work.pid) != os.getpid()


async def test_the_pool_of_the_process_serves_whoever_asks() -> None:
    assert await call_in_process(work.double, 4) == 8


async def test_an_async_function_is_awaited_there(pool: ProcessPool) -> None:
    assert await pool.call(work.later, 4) == 8


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (functools.partial(work.keyword, times=3), 12),
        (functools.partial(functools.partial(work.twice(work.double).__wrapped__)), 8),
        (work.quadruple, 16),
        (float, 4.0),
        (abs, 4),
    ],
    ids=["a partial", "a partial of a partial", "a decorated one", "a class", "a builtin"],
)
async def test_whatever_can_be_found_by_name_can_be_called(
    pool: ProcessPool, function: Callable[[int], object], result: object
) -> None:
    assert await pool.call(function, 4) == result


async def test_what_is_cached_there_is_found_by_the_next_call(pool: ProcessPool) -> None:
    assert await pool.call(work.remembered, 4) == await pool.call(work.remembered, 4)


async def test_what_it_raises_is_raised_here_and_says_where_it_came_from(pool: ProcessPool) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        await pool.call(work.divide, 0)

    assert "in its worker process" in caught.value.__notes__[0]
    assert "return 1 / number" in caught.value.__notes__[0]


async def test_an_error_comes_back_as_it_was_whatever_its_init_wants(pool: ProcessPool) -> None:
    """Only what cannot be pickled is missing from it."""
    with pytest.raises(work.Odd, match="7 at here") as caught:
        await pool.call(work.odd, 7)

    assert (caught.value.code, caught.value.place, hasattr(caught.value, "lock")) == (7, "here", False)


async def test_an_error_of_a_class_that_is_not_found_here_is_told_in_words(pool: ProcessPool) -> None:
    with pytest.raises(ProcessError, match=r"local_error raised what cannot come back.*nobody else knows me") as caught:
        await pool.call(work.local_error)

    assert 'raise Nowhere("nobody else knows me")' in caught.value.__notes__[0]


async def test_a_stop_iteration_does_not_hang_whoever_waits(pool: ProcessPool) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await pool.call(work.stop, None)


async def test_what_cannot_travel_is_named_and_costs_no_worker(pool: ProcessPool) -> None:
    before = await pool.call(work.pid)

    with pytest.raises(ProcessError, match=r"lambda.*top level of a module"):
        await pool.call(lambda: 1)
    with pytest.raises(ProcessError, match=r"echo.*cannot be pickled.*lock.*plain data"):
        await pool.call(work.echo, threading.Lock())
    with pytest.raises(ProcessError, match=r"what lock returned cannot be pickled.*return plain data"):
        await pool.call(work.lock, None)

    assert await pool.call(work.pid) == before


async def test_a_module_that_cannot_be_imported_there_is_told(pool: ProcessPool, monkeypatch: Any) -> None:
    here = type(sys)("only_here")
    exec("def f(): ...", vars(here))
    monkeypatch.setitem(sys.modules, "only_here", here)

    with pytest.raises(
        ProcessError, match=r"f cannot be found.*(?s:.)*ModuleNotFoundError: No module named 'only_here'"
    ):
        await pool.call(here.f)


async def test_a_file_that_is_no_module_is_read_there_too(
    pool: ProcessPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the command line, which loads flow files under names of its own, needs nothing more."""
    file = tmp_path / "a flow.py"
    file.write_text("class Number(int): ...\ndef more(number): return Number(number + 1)\n", encoding="utf-8")
    loaded = type(sys)("agentflow_file_a_flow")
    loaded.__file__ = str(file)
    exec(file.read_text(encoding="utf-8"), vars(loaded))
    monkeypatch.setitem(sys.modules, loaded.__name__, loaded)

    result = await pool.call(loaded.more, loaded.Number(3))

    assert (type(result), result) == (loaded.Number, 4)


async def test_fifty_megabytes_go_there_and_come_back(pool: ProcessPool) -> None:
    assert await pool.call(work.size, bytes(50_000_000)) == 50_000_000
    assert len(await pool.call(work.zeros, 50_000_000)) == 50_000_000  # type: ignore[arg-type]


async def test_a_worker_imports_no_more_than_the_work_asks_for(pool: ProcessPool) -> None:
    loaded = await pool.call(work.modules, None)

    assert isinstance(loaded, list)
    assert {name for name in loaded if name.startswith("agentflow.")} == {"agentflow.process_worker"}


async def test_a_worker_hears_no_ctrl_c(pool: ProcessPool) -> None:
    assert await pool.call(work.interrupted) == "still here"


async def test_a_worker_may_have_workers_of_its_own(pool: ProcessPool) -> None:
    assert await pool.call(work.nested, 4) == 8


# ---- who waits for whom --------------------------------------------------------------------------------------


async def test_a_worker_is_used_again(pool: ProcessPool) -> None:
    assert len({await pool.call(work.pid) for _ in range(5)}) == 1


async def test_two_hundred_calls_share_two_workers(pool: ProcessPool) -> None:
    pids = await asyncio.gather(*(pool.call(work.pid, number) for number in range(200)))

    assert 1 <= len(set(pids)) <= 2


async def test_whoever_asked_first_is_served_first(note: str) -> None:
    pool = ProcessPool(1)
    try:
        await asyncio.gather(*(pool.call(work.append, note, number) for number in range(200)))
    finally:
        pool.close()

    assert Path(note).read_text(encoding="utf-8").split() == [str(number) for number in range(200)]


async def test_who_leaves_the_queue_takes_nobody_s_place(note: str) -> None:
    pool = ProcessPool(1)
    try:
        first = asyncio.create_task(pool.call(work.gate, note))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(pool.call(work.double, number)) for number in range(6)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            await cancelled(task)
        Path(note).touch()

        assert await asyncio.gather(first, *waiting[1::2]) == [await pool.call(work.pid), 2, 6, 10]
    finally:
        pool.close()


async def test_who_is_cancelled_just_as_a_worker_comes_free_hands_it_on(note: str) -> None:
    """At whatever turn of the loop the cancellation arrives."""
    pool = ProcessPool(1)
    try:
        for turns in range(12):
            first = asyncio.create_task(pool.call(work.pid))
            second = asyncio.create_task(pool.call(work.pid))
            await first
            for _ in range(turns):
                await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            assert await pool.call(work.double, turns) == 2 * turns
    finally:
        pool.close()


async def test_threads_with_loops_of_their_own_share_a_pool(pool: ProcessPool) -> None:
    async def ask() -> list[object]:
        return await asyncio.gather(*(pool.call(work.double, number) for number in range(10)))

    answers = await asyncio.gather(*(asyncio.to_thread(asyncio.run, ask()) for _ in range(4)))

    assert answers == [[2 * number for number in range(10)]] * 4


async def test_a_loop_that_ended_in_the_middle_keeps_no_worker(pool: ProcessPool, note: str) -> None:
    """Its calls are closed by whoever collects them; others go on."""

    def half() -> None:
        loop = asyncio.new_event_loop()
        call = pool.call(work.nap, note)
        task = loop.create_task(call)
        loop.run_until_complete(noted(note))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        call.close()

    await asyncio.to_thread(half)
    await until(lambda: not is_there(int(Path(note).read_text(encoding="utf-8"))))
    assert await pool.call(work.double, 1) == 2


# ---- stopping ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [work.nap, work.async_nap, work.deaf])
async def test_a_cancelled_call_ends_its_worker_and_another_takes_its_place(
    pool: ProcessPool, note: str, function: Callable[[str], object]
) -> None:
    """Also one that does not want to end."""
    task = asyncio.create_task(pool.call(function, note))
    pid = await noted(note)

    await cancelled(task)

    assert await pool.call(work.pid) != pid
    await until(lambda: not is_there(pid))


async def test_a_cancelled_call_ends_what_it_has_started(pool: ProcessPool, note: str) -> None:
    task = asyncio.create_task(pool.call(work.with_child, note))
    child = await noted(note)

    await cancelled(task)

    await until(lambda: not is_there(child))


async def test_a_cancelled_call_is_not_waited_for(note: str) -> None:
    """A worker that is deaf to all requests is killed later, by a thread."""
    pool = ProcessPool(1)
    task = asyncio.create_task(pool.call(work.deaf, note))
    pid = await noted(note)
    task.cancel()

    while not task.done():
        assert is_there(pid)
        await asyncio.sleep(0)

    assert await pool.call(work.double, 1) == 2
    await until(lambda: not is_there(pid))
    pool.close()


async def test_a_call_that_is_cancelled_before_it_began_ends_well(pool: ProcessPool) -> None:
    task = asyncio.create_task(pool.call(work.double, 1))
    await asyncio.sleep(0)

    await cancelled(task)

    assert await pool.call(work.double, 2) == 4


async def test_a_worker_that_is_killed_fails_its_own_call_alone(pool: ProcessPool, tmp_path: Path) -> None:
    killed = asyncio.create_task(pool.call(work.nap, str(tmp_path / "killed")))
    other = asyncio.create_task(pool.call(work.gate, str(tmp_path / "gate")))
    pid = await noted(str(tmp_path / "killed"))

    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ProcessError, match=r"ended by SIGKILL .* while it ran nap") as caught:
        await killed
    Path(tmp_path / "gate").touch()

    assert (caught.value.retryable, caught.value.exit_code) == (True, -9)
    assert await other != pid
    assert not is_there(pid)


async def test_a_worker_that_leaves_in_the_middle_says_with_what_code(pool: ProcessPool) -> None:
    with pytest.raises(ProcessError, match="exit code 3") as caught:
        await pool.call(work.leave, 3)

    assert caught.value.exit_code == 3
    assert await pool.call(work.double, 2) == 4


async def test_an_idle_worker_that_died_is_replaced_unseen(pool: ProcessPool) -> None:
    pid = await pool.call(work.pid)
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not any(worker.alive() for worker in pool._idle))

    assert await pool.call(work.pid) != pid


async def test_idle_workers_leave(note: str) -> None:
    pool = ProcessPool(2, idle=0.01)
    pid = await pool.call(work.pid)
    assert isinstance(pid, int)

    await until(lambda: not is_there(pid) and pool._keeper is None)

    assert await pool.call(work.pid) != pid
    pool.close()


@pytest.mark.skipif(not PROC.exists(), reason="counts what /proc lists")
async def test_fifty_cancelled_calls_leave_nothing(tmp_path: Path) -> None:
    def kept() -> tuple[int, int]:
        return len(os.listdir(PROC)), threading.active_count()

    def children() -> set[int]:
        return {
            int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
        }

    pool = ProcessPool(4)
    await pool.call(work.pid)  # multiprocessing keeps a process of its own from now on
    pool.close()
    before, processes = kept(), children()
    pool = ProcessPool(4)

    for number in range(50):
        note = str(tmp_path / str(number))
        task = asyncio.create_task(pool.call(work.nap, note))
        if number % 5 == 0:
            await noted(note)
        else:
            await asyncio.sleep(0)
        await cancelled(task)
    # Threads that earlier work left idle may end meanwhile.
    await until(lambda: all(now <= then for now, then in zip(kept(), before, strict=True)) and children() == processes)

    pool.close()


async def test_a_closed_pool_fails_what_runs_and_what_waits(note: str) -> None:
    pool = ProcessPool(1)
    running = asyncio.create_task(pool.call(work.nap, note))
    pid = await noted(note)
    waiting = asyncio.create_task(pool.call(work.double, 1))
    await asyncio.sleep(0)

    await asyncio.to_thread(pool.close)

    for task in (running, waiting, asyncio.create_task(pool.call(work.double, 1))):
        with pytest.raises(ProcessError, match="closed"):
            await task
    assert not is_there(pid)


# ---- the program around --------------------------------------------------------------------------------------

CALLS = """
import asyncio, os, signal, sys, threading
from contextlib import suppress
from agentflow.errors import ProcessError
from agentflow.core.processes.pool import call_in_process
from tests.support import process_work as work
"""


def test_a_program_ends_while_calls_are_under_way(tmp_path: Path) -> None:
    """Calls of a loop in a daemon thread, which nobody cancels."""
    text = f"""{CALLS}
if __name__ == "__main__":
    def call():
        with suppress(ProcessError):
            asyncio.run(call_in_process(work.nap, sys.argv[1]))

    threading.Thread(target=call, daemon=True).start()
    work.gate(sys.argv[1])
"""
    done = run_script(text, str(tmp_path / "main.py"), str(tmp_path / "note"))

    assert (done.returncode, done.stderr) == (0, "")
    assert not is_there(int((tmp_path / "note").read_text(encoding="utf-8")))


def test_ctrl_c_ends_program_and_workers_quietly(tmp_path: Path) -> None:
    text = f"""{CALLS}
async def main():
    interrupt = threading.Thread(target=lambda: (work.gate(sys.argv[1]), os.killpg(0, signal.SIGINT)))
    interrupt.start()
    await call_in_process(work.nap, sys.argv[1])

if __name__ == "__main__":
    os.setpgid(0, 0)
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
"""
    done = run_script(text, str(tmp_path / "main.py"), str(tmp_path / "note"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
    assert not is_there(int((tmp_path / "note").read_text(encoding="utf-8")))


async def test_workers_of_a_program_that_was_killed_end_themselves(tmp_path: Path) -> None:
    text = f"""{CALLS}
if __name__ == "__main__":
    asyncio.run(call_in_process(work.nap, sys.argv[1]))
"""
    command = script(text, str(tmp_path / "main.py"), str(tmp_path / "note"))
    program = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment())
    pid = await noted(str(tmp_path / "note"))

    program.kill()
    program.wait()

    await until(lambda: not is_there(pid))


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """Each worker imports the script once more; none of them starts workers in turn."""
    text = f"{CALLS}\nasyncio.run(call_in_process(work.double, 1))\n"
    done = run_script(text, str(tmp_path / "main.py"))

    assert done.returncode == 1
    assert 'beneath `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


def test_functions_of_a_script_are_found(tmp_path: Path) -> None:
    text = f"""{CALLS}
class Number(int): ...

def more(number):
    return Number(number + 1)

if __name__ == "__main__":
    result = asyncio.run(call_in_process(more, Number(1)))
    print(type(result) is Number, result)
"""
    done = run_script(text, str(tmp_path / "main.py"))

    assert (done.stdout, done.stderr) == ("True 2\n", "")


def test_what_is_typed_in_cannot_be_found_and_says_so() -> None:
    text = f"{CALLS}\ndef more(): ...\nasyncio.run(call_in_process(more))"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, env=environment())

    assert "given with -c, is in no file that could be imported" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_workers_of_its_own(tmp_path: Path) -> None:
    """And leaves those of its parent alone, also when it ends."""
    text = f"""{CALLS}
if __name__ == "__main__":
    first = asyncio.run(call_in_process(work.pid))
    child = os.fork()
    own = asyncio.run(call_in_process(work.pid))
    if child:
        os.waitpid(child, 0)
        own = asyncio.run(call_in_process(work.pid))
    print("child" if not child else "parent", own == first, flush=True)
"""
    done = run_script(text, str(tmp_path / "main.py"))

    assert (sorted(done.stdout.splitlines()), done.stderr) == (["child False", "parent True"], "")


def test_what_a_worker_prints_is_seen_and_what_its_start_costs_is_little(tmp_path: Path) -> None:
    text = f"""{CALLS}
if __name__ == "__main__":
    asyncio.run(call_in_process(print, "hello"))
"""
    done = run_script(text, str(tmp_path / "main.py"))

    assert (done.stdout, done.stderr) == ("hello\n", "")


@pytest.mark.parametrize(("given", "size"), [("3", 3), (None, os.cpu_count())])
def test_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch, given: str | None, size: int) -> None:
    monkeypatch.delenv("AGENTFLOW_PROCESSES", raising=False)
    if given is not None:
        monkeypatch.setenv("AGENTFLOW_PROCESSES", given)

    assert ProcessPool().size == size


@pytest.mark.parametrize("given", ["0", "-1", "many", ""])
def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("AGENTFLOW_PROCESSES", given)

    with pytest.raises(ConfigurationError, match="AGENTFLOW_PROCESSES"):
        ProcessPool()


async def test_a_worker_that_cannot_be_started_is_an_error_and_takes_no_place(
    pool: ProcessPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Worker) -> None:
        raise ProcessError("no worker process can be started")

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "__init__", refuse)
        for _ in range(5):
            with pytest.raises(ProcessError, match="can be started"):
                await pool.call(work.double, 1)

    assert await pool.call(work.double, 1) == 2


def test_a_virtual_clock_stands_still_while_a_process_works(pool: ProcessPool) -> None:
    """So no time-out overtakes it that it would have met in real life; as for threads."""
    clock = VirtualClock()

    async def main() -> object:
        async with asyncio.timeout(0.001):
            return await pool.call(work.double, 2)

    assert clock.run(main()) == 4
    assert clock.monotonic() < 0.001


# ---- nodes ---------------------------------------------------------------------------------------------------


async def test_exec_of_a_class_runs_there_and_prep_and_post_here() -> None:
    result = await AsyncFlow(nodes.Scale(3)).run({"number": 4})

    assert result.state["result"] == (12, os.getpid())


async def test_an_async_class_and_one_object_may_say_so_too() -> None:
    here = await AsyncFlow(nodes.Slow()).run({"number": 4})
    there = await AsyncFlow(nodes.Slow(on="process")).run({"number": 4})

    assert here.state["result"] == (8, os.getpid())
    assert there.state[nodes.RESULT] != here.state[nodes.RESULT]


async def test_a_function_of_one_and_of_several_keys() -> None:
    one = await AsyncFlow(nodes.square).run({"number": 4})
    several = await AsyncFlow(nodes.pair).run({"number": 4, "note": "n"})

    assert one.state["result"][0] == 16  # type: ignore[index]
    assert (several.state["result"], several.state["pid"] != os.getpid()) == ("n4", True)


def test_a_flow_without_await_uses_the_same_workers() -> None:
    first, second = (Flow(nodes.square).run({"number": 4}).state["result"] for _ in range(2))

    assert first == second


async def test_a_node_is_tried_again_after_its_worker_died(note: str) -> None:
    result = await AsyncFlow(nodes.dies_once).run({"note": note})

    assert result.state["result"] != os.getpid()


async def test_a_failure_names_the_node_and_keeps_the_workers_traceback() -> None:
    divide = node(reads="number", writes="result", on="process")(work.divide)

    with pytest.raises(NodeError, match="flow/divide#1 failed in exec: ZeroDivisionError") as caught:
        await AsyncFlow(divide, name="flow").run({"number": 0})

    assert caught.value.__cause__ is not None
    assert "return 1 / number" in caught.value.__cause__.__notes__[0]


async def test_the_idempotency_key_is_the_same_there(pool: ProcessPool) -> None:
    here = []

    async def ask() -> None:
        here.append((idempotency_key(), await pool.call(nodes.key_at_hand)))

    await RetryPolicy(max_attempts=1).run(ask)
    result = await AsyncFlow(nodes.key).run({"number": 1})

    assert len({*here[0]}) == 1
    assert isinstance(here[0][0], str)
    assert result.state["result"] not in (None, here[0][0])
    assert await pool.call(nodes.key_at_hand) is None


async def test_a_time_out_ends_the_worker(note: str) -> None:
    nap = node(reads="note", writes="result", on="process", timeout=2.0)(work.nap)

    with pytest.raises(NodeError) as caught:
        await AsyncFlow(nap).run({"note": note})

    assert isinstance(caught.value.__cause__, OperationTimeoutError)
    if os.path.exists(note):  # a slow machine may not have got there
        pid = await noted(note)
        await until(lambda: not is_there(pid))


async def test_a_watcher_sees_a_node_like_any_other_and_its_time_as_its_own() -> None:
    async with AsyncFlow(nodes.square, name="flow").stream({"number": 4}) as events:
        seen = [event async for event in events]

    assert [event.kind for event in seen] == ["flow_start", "node_start", "node_success", "flow_success"]
    breakdown = seen[2].data["breakdown"]
    assert isinstance(breakdown, Mapping)
    assert breakdown == {"own": pytest.approx(seen[2].duration, rel=0.2)}


async def test_each_uses_all_workers_and_keeps_the_order(tmp_path: Path) -> None:
    """The first items wait for one another, so one worker alone would wait for ever."""
    meet = functools.partial(work.meet, str(tmp_path), count=2)
    result = await AsyncFlow(Each(meet, over="items", into="results", on="process")).run({"items": list(range(100))})

    assert [number for number, _ in result.state["results"]] == list(range(100))  # type: ignore[attr-defined]


async def test_a_node_in_each_runs_there() -> None:
    double = node(reads="item", writes="double", on="process")(work.double)
    result = await AsyncFlow(Each(double, over="items", into="results")).run({"items": list(range(20))})

    assert result.state["results"] == [2 * number for number in range(20)]


async def test_one_failed_item_ends_the_workers_of_the_others(tmp_path: Path) -> None:
    note = str(tmp_path / "note")
    fail = functools.partial(work.fail_once_there, note=note)

    with pytest.raises(NodeError, match="ValueError: another is there"):
        await AsyncFlow(Each(fail, over="items", on="process")).run({"items": [0, 1]})

    pid = await noted(note)
    await until(lambda: not is_there(pid))


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: node(on="process")(work.echo), "a whole-lifecycle function has none.*reads= and writes="),
        (lambda: node(reads="a", on="process", inline=True)(work.echo), "inline=True"),
        (lambda: node(reads="a", on="thread")(work.echo), "on is \"process\" or None, not 'thread'"),
        (lambda: node(reads="a", name="n", on="process")(lambda a: a), "^n: .*<lambda>.*top level of a module"),
        (lambda: Each(lambda item: item, over="a", on="process", name="each"), "^each: .*<lambda>.*top level"),
        (lambda: Each(nodes.square, over="a", on="process"), "on= are for plain functions; square has its own"),
        (lambda: nodes.Locked(), r"Locked.exec.*cannot pickle '_thread.lock'"),
    ],
)
def test_what_cannot_run_there_is_refused_when_the_flow_is_built(build: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        AsyncFlow(build())


def test_a_node_of_a_function_is_called_as_the_function_that_it_is() -> None:
    assert nodes.square(3) == (9, os.getpid())
