"""Cancelling a run at any moment leaves nothing: no task, no permit held, no late write, no thread waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentflow.clock import VirtualClock, _VirtualLoop
from agentflow.core import (
    AsyncFlow,
    AsyncNode,
    Dataflow,
    Each,
    FlowResult,
    Key,
    Node,
    Parallel,
    RetryPolicy,
    SharedState,
    emit,
    node,
    threads,
)
from agentflow.errors import NodeError, OperationTimeoutError

TOTAL = Key[int]("total", reduce=lambda a, b: a + b, initial=int)


class CountingLoop(_VirtualLoop):
    """A virtual-time loop that does something before one given turn."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.turns = 0
        self.at: int | None = None
        self.action: Callable[[], object] = lambda: None

    def at_turn(self, number: int, action: Callable[[], object]) -> None:
        """`action` is called after exactly `number` more turns."""
        self.at, self.action = self.turns + number, action

    def _run_once(self) -> None:
        if self.turns == self.at:
            self.action()
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


def on_counting_loop(main: Callable[[CountingLoop, VirtualClock], Any]) -> Any:
    clock = VirtualClock()
    loop = CountingLoop(clock)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop, clock))


class Bench:
    """A flow of everything: sections in sections, Each, a nested flow, a dataflow, sync nodes, retries, time-outs.

    It counts what is open: permits of a semaphore, and nodes that have begun and not ended.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.permits = asyncio.Semaphore(3)
        self.open = 0
        self.tries = 0
        self.flow = AsyncFlow(self._path(), name="flow", clock=clock)

    def _path(self) -> Any:
        bench = self

        class Guarded(AsyncNode[None, int]):
            """Holds a permit while it works, and fails two times out of three."""

            retry = RetryPolicy(max_attempts=9, base_delay=1)
            timeout = 60.0

            async def exec(self, item: None) -> int:
                async with bench.permits:
                    bench.open += 1
                    try:
                        await asyncio.sleep(1)
                        bench.tries += 1
                        if bench.tries % 3:
                            raise ValueError("not yet")
                        await emit("told")
                        return 1
                    finally:
                        bench.open -= 1

            async def post(self, state: SharedState, item: None, result: int) -> None:
                state.add(TOTAL, result)

        class InThread(Node[int, int]):
            """All its phases in threads."""

            def prep(self, state: SharedState) -> int:
                return state.get(TOTAL, 0)

            def exec(self, item: int) -> int:
                return item

            def post(self, state: SharedState, item: int, result: int) -> None:
                state[f"{self.name} wrote"] = True

        @node
        def whole_in_thread(state: SharedState) -> None:
            state["whole"] = True

        async def item(number: int) -> int:
            async with bench.permits:
                await asyncio.sleep(number)
                return number

        def sync_item(number: int) -> int:
            return number

        @node(reads="a", writes="b")
        async def b(a: int) -> int:
            await asyncio.sleep(1)
            return a

        @node(writes="a")
        async def a() -> int:
            await asyncio.sleep(1)
            return 1

        inner = AsyncFlow(Guarded(name="g1") >> (InThread(name="t1"), Guarded(name="g2")), name="inner")
        quick = Parallel(Guarded(name="g3"), InThread(name="t2"), need=1, on_error="collect")
        mapped = Each(item, over="xs", into="ys", concurrency=2)
        return (
            whole_in_thread
            >> (inner, quick >> mapped, Dataflow(a, b))
            >> Each(sync_item, over="xs", into="zs", name="sync_each")
            >> Each(inner.named("again"), over="xs", collect=TOTAL, into="totals", name="flows")
        )

    def assert_nothing_open(self) -> None:
        assert self.open == 0
        assert self.permits._value == 3
        assert not self.permits._waiters
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def bench_run(bench: Bench, state: SharedState) -> FlowResult:
    return await bench.flow.run(state)


async def bench_stream(bench: Bench, state: SharedState) -> None:
    async with bench.flow.stream(state) as events:
        async for _ in events:
            pass


async def bench_batch(bench: Bench, state: SharedState) -> None:
    await bench.flow.run_batch([state, {"xs": [1]}], concurrency=2)


@pytest.mark.parametrize(("run", "times"), [(bench_run, 1), (bench_run, 2), (bench_stream, 1), (bench_batch, 1)])
def test_cancelling_at_every_turn_of_the_loop_leaves_nothing(run, times, monkeypatch):
    """For every k: after exactly k turns the run is cancelled (twice: once more one turn later)."""

    async def after(turns: int, loop: CountingLoop, clock: VirtualClock) -> bool:
        """Whether the run was still going on after so many turns."""
        executor = ThreadPoolExecutor(20)
        monkeypatch.setattr(threads, "_executor", executor)
        bench = Bench(clock)
        state = SharedState({"xs": [1, 2, 3]})
        task = asyncio.create_task(run(bench, state))

        def cancel() -> None:
            task.cancel()
            if times == 2:
                loop.at_turn(1, task.cancel)

        loop.at_turn(turns, cancel)
        await asyncio.wait([task])
        bench.assert_nothing_open()
        written = state.snapshot()
        await asyncio.to_thread(executor.shutdown)  # waits for the threads that are still at work
        for _ in range(3):
            await asyncio.sleep(0)
        assert state.snapshot() == written
        if not task.cancelled():
            await task  # it came to its own good end
        return task.cancelled()

    turns = 0
    while on_counting_loop(lambda loop, clock, turns=turns: after(turns, loop, clock)):
        turns += 1
    assert turns > 80


# ---- threads


class Held:
    """A sync function that waits in its thread until the test lets it go."""

    def __init__(self) -> None:
        self.begun, self.go, self.finished = threading.Event(), threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.go.wait(10)

    async def has_begun(self) -> None:
        await asyncio.to_thread(self.begun.wait, 10)

    async def finish(self) -> None:
        self.go.set()
        assert await asyncio.to_thread(self.finished.wait, 10)
        for _ in range(3):
            await asyncio.sleep(0)


def whole(held: Held) -> Any:
    @node
    def body(state: SharedState) -> None:
        state["early"] = True
        held()
        state["late"] = True
        held.finished.set()

    return body


def in_post(held: Held) -> Any:
    class Body(Node[None, None]):
        """Writes in post, which runs in a thread."""

        def post(self, state: SharedState, item: None, result: None) -> None:
            state["early"] = True
            held()
            state["late"] = True
            held.finished.set()

    return Body()


def in_exec(held: Held) -> Any:
    @node(writes="late")
    def body() -> bool:
        held()
        held.finished.set()
        return True

    return body


@pytest.mark.parametrize("make", [whole, in_post, in_exec])
async def test_a_thread_finishes_after_a_cancellation_and_its_writes_are_dropped(make):
    held = Held()
    state = SharedState()
    run = asyncio.create_task(AsyncFlow(make(held)).run(state))
    await held.has_begun()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run  # does not wait for the thread, which still waits for us
    assert not held.finished.is_set()
    await held.finish()
    assert dict(state) == {}


@pytest.mark.parametrize("make", [whole, in_exec])
def test_a_thread_that_takes_longer_than_its_time_limit_is_late_for_good(make):
    clock, held, state = VirtualClock(), Held(), SharedState()
    slow = make(held)
    slow.timeout = 60.0

    async def main() -> None:
        run = asyncio.create_task(AsyncFlow(slow, clock=clock).run(state))
        await held.has_begun()
        clock.advance(61)
        with pytest.raises(NodeError) as caught:
            await run
        assert isinstance(caught.value.__cause__, OperationTimeoutError)
        assert caught.value.__cause__.seconds == 60
        await held.finish()

    clock.run(main())
    assert dict(state) == {}


def test_a_retry_does_not_see_what_a_late_thread_wrote():
    """The first attempt is still at work when the second succeeds; only the second's writes count."""
    clock, held, state = VirtualClock(), Held(), SharedState()
    attempts: list[int] = []

    @node(timeout=60, retry=RetryPolicy(max_attempts=2, base_delay=0))
    def body(state: SharedState) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            held()
            state["who"] = state["first"] = "first"
            held.finished.set()
        else:
            state["who"] = "second"

    async def main() -> None:
        run = asyncio.create_task(AsyncFlow(body, clock=clock).run(state))
        await held.has_begun()
        clock.advance(61)
        await run
        await held.finish()

    clock.run(main())
    assert dict(state) == {"who": "second"}


async def test_a_losing_thread_is_not_waited_for():
    held = Held()

    @node
    async def quick(state: SharedState) -> None:
        await held.has_begun()

    result = await AsyncFlow(Parallel(whole(held), quick, need=1)).run()
    assert not held.finished.is_set()
    await held.finish()
    assert dict(result.state) == {}


# ---- time limits and cancellation from outside


def test_a_time_limit_of_the_callers_own_is_no_failure_of_the_node():
    clock = VirtualClock()

    class Slow(AsyncNode[None, None]):
        """Would be retried, if it failed."""

        retry = RetryPolicy(max_attempts=5)
        timeout = 100.0

        async def exec(self, item: None) -> None:
            await asyncio.sleep(50)

        async def fallback(self, item: None, error: Exception) -> None:
            raise AssertionError("a cancellation has no fallback")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await AsyncFlow((Slow(name="a"), Slow(name="b"))).run()
        assert clock.monotonic() == 10
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())


def test_a_time_limit_inside_a_node_is_its_own_affair():
    @node
    async def tries(state: SharedState) -> None:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(9)
        except TimeoutError:
            state["gave up"] = True

    @node
    async def after(state: SharedState) -> None:
        state["after"] = True

    result = VirtualClock().run(AsyncFlow(tries >> after).run())
    assert dict(result.state) == {"gave up": True, "after": True}


def test_a_flow_that_cleans_up_in_a_cancelled_task_runs_to_its_end():
    """`task.cancelling()` stays above 0 there; that is not a cancellation of the cleaning flow."""
    seen: list[str] = []

    @node
    async def clean(state: SharedState) -> None:
        await asyncio.sleep(1)
        seen.append("cleaned")

    async def work() -> None:
        try:
            await asyncio.sleep(99)
        finally:
            await AsyncFlow(clean >> (clean.named("b"), clean.named("c"))).run()

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    VirtualClock().run(main())
    assert seen == ["cleaned"] * 3


def test_a_cancelled_run_does_not_go_on_after_a_node_that_swallows_it():
    visited: list[str] = []

    @node
    async def deaf(state: SharedState) -> None:
        try:
            await asyncio.sleep(99)
        except asyncio.CancelledError:
            visited.append("deaf")

    @node
    async def publish(state: SharedState) -> None:
        visited.append("published")

    async def main() -> None:
        inner = AsyncFlow(deaf, name="inner")
        run = asyncio.create_task(AsyncFlow(inner >> publish).run())
        await asyncio.sleep(1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    VirtualClock().run(main())
    assert visited == ["deaf"]


@pytest.mark.parametrize("shape", ["parallel", "each", "dataflow", "batch"])
def test_a_second_cancellation_hurries_the_cleanup_and_still_leaves_nothing(shape):
    async def stubborn(*_: object) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1000)

    one = node(name="one", writes="x")(stubborn)
    flow = {
        "parallel": AsyncFlow((one, node(name="two", writes="y")(stubborn))),
        "each": AsyncFlow(Each(stubborn, over="xs")),
        "dataflow": AsyncFlow(Dataflow(one)),
        "batch": AsyncFlow(one),
    }[shape]
    clock = VirtualClock()

    async def main() -> None:
        start = flow.run_batch([{}, {}]) if shape == "batch" else flow.run({"xs": [1, 2, 3]})
        run = asyncio.create_task(start)
        for _ in range(2):
            await asyncio.sleep(1)
            run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert clock.monotonic() == 2
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())
