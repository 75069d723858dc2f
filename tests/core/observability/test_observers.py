"""Who watches changes nothing: observers that raise, that are slow, that come and go."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, Each, ExecutionEvent, Flow, Observation, SharedState, emit, node, observe
from agentflow.core.observability.observers import observations
from agentflow.core.observability.scope import Channel, Scope


class Inline:
    """Keeps what it is told, at once."""

    inline = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class Threaded(Inline):
    inline = False

    def __init__(self) -> None:
        super().__init__()
        self.thread: int | None = None

    def observe(self, event: ExecutionEvent) -> None:
        self.thread = threading.get_ident()
        super().observe(event)


class Failing(Inline):
    def observe(self, event: ExecutionEvent) -> None:
        raise ValueError(event.kind)


class Stuck:
    """Sees nothing before it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen = 0

    def observe(self, event: ExecutionEvent) -> None:
        self.go.wait(30)
        self.seen += 1


@node
async def work(state: SharedState) -> None:
    await asyncio.sleep(0)


FLOW = AsyncFlow(work, name="flow")
KINDS = ["flow_start", "node_start", "node_success", "flow_success"]


@pytest.fixture(autouse=True)
def nobody_stays() -> Iterator[None]:
    yield
    assert observations() == ()


async def test_an_observer_of_everything_sees_every_run_until_it_is_closed():
    seen = Inline()
    with observe(seen) as observation:
        await FLOW.run()
        await FLOW.run()
    await FLOW.run()
    assert seen.kinds == KINDS * 2
    assert len({event.run_id for event in seen.events}) == 2
    assert (observation.seen, observation.failed, observation.dropped) == (8, 0, 0)


async def test_an_observer_of_one_run_sees_that_run_alone():
    seen = Inline()
    await FLOW.run(observers=[seen])
    await FLOW.run()
    assert seen.kinds == KINDS


async def test_a_run_waits_a_little_for_an_observer_of_its_own_in_a_thread():
    seen = Threaded()
    await FLOW.run(observers=[seen])
    assert seen.kinds == KINDS
    assert seen.thread not in (None, threading.get_ident())


def test_a_sync_flow_is_observed_as_well():
    seen = Inline()
    Flow(work, name="flow").run({}, observers=[seen])
    assert seen.kinds == KINDS


async def test_the_runs_of_a_batch_name_the_batch_they_belong_to():
    seen = Inline()
    await FLOW.run_batch([{}, {}], observers=[seen])
    starts = [event.data["batch"] for event in seen.events if event.kind == "flow_start"]
    assert len(starts) == 2
    assert len(set(starts)) == 1


async def test_a_run_that_a_node_starts_names_the_run_it_stands_in():
    @node
    async def outer(state: SharedState) -> None:
        await FLOW.run({}, run_id="inner")

    seen = Inline()
    with observe(seen):
        await AsyncFlow(outer, name="around").run({}, run_id="outer")
    (inner,) = [event for event in seen.events if event.kind == "flow_start" and event.run_id == "inner"]
    assert inner.data["parent_run"] == "outer"


async def test_an_observer_that_raises_is_counted_and_changes_nothing(caplog: pytest.LogCaptureFixture):
    seen = Inline()
    with observe(Failing()) as failing, observe(seen), caplog.at_level(logging.WARNING):
        result = await FLOW.run()
    assert result.status == "done"
    assert seen.kinds == KINDS
    assert (failing.seen, failing.failed) == (4, 4)
    assert str(failing.last_error) == "flow_success"
    assert len(caplog.records) == 1  # the first; the next line is for the tenth


async def test_a_slow_observer_falls_behind_in_its_thread_and_what_it_has_no_room_for_is_counted():
    stuck = Stuck()
    many = AsyncFlow(Each(lambda item: item, over="xs", name="each"), name="many")
    with observe(stuck) as observation:
        await many.run({"xs": range(6_000)})  # two events an item
        assert observation.dropped >= 1_990
        assert not observation.flush(timeout=0.01)
        stuck.go.set()
        assert observation.flush(timeout=30)
    assert stuck.seen == observation.seen
    assert observation.seen + observation.dropped == 12_004


async def test_what_was_seen_before_the_end_is_delivered_by_it():
    seen = Threaded()
    with observe(seen):
        await FLOW.run()
    assert seen.kinds == KINDS


def test_after_a_fork_the_child_has_a_thread_of_its_own():
    seen = Threaded()
    with observe(seen) as observation:
        asyncio.run(FLOW.run())
        assert observation.flush(30)
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            seen.events.clear()
            asyncio.run(FLOW.run())
            whole = observation.flush(30) and seen.kinds == KINDS
            os._exit(0 if whole else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_with_nobody_watching_nothing_is_built(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was built")

    monkeypatch.setattr(Channel, "__init__", refuse)
    monkeypatch.setattr(Scope, "__init__", refuse)
    assert (await FLOW.run()).status == "done"


def test_an_observation_says_what_it_has_counted():
    assert repr(Observation(Inline())) == "<observer Inline: 0 seen, 0 failed, 0 dropped>"


def test_cancelled_work_is_told_as_such_to_whoever_watches():
    @node
    async def forever(state: SharedState) -> None:
        await asyncio.Event().wait()

    seen, clock = Inline(), VirtualClock()

    async def main() -> None:
        task = asyncio.create_task(AsyncFlow(forever, name="flow", clock=clock).run({}, observers=[seen]))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run(main())
    assert seen.kinds == ["flow_start", "node_start", "node_cancelled", "flow_cancelled"]
    assert [event.duration for event in seen.events[2:]] == [5, 5]


# ---- observers that go too far -------------------------------------------------------------------------------


class Raising(Inline):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def observe(self, event: ExecutionEvent) -> None:
        super().observe(event)
        raise self.error


async def test_an_observer_that_raises_a_cancellation_cancels_nothing():
    with observe(Raising(asyncio.CancelledError())) as raising:
        assert (await FLOW.run()).status == "done"
    assert (raising.seen, raising.failed) == (4, 4)


async def test_an_observer_that_ends_its_thread_goes_on_in_it():
    leaving = Raising(SystemExit(1))
    leaving.inline = False  # type: ignore[misc]
    with observe(leaving) as observation:
        await FLOW.run()
        assert observation.flush(30)
    assert leaving.kinds == KINDS
    assert observation.failed == 4


async def test_an_observer_that_is_closed_during_a_run_is_told_nothing_more():
    seen = Inline()
    observation = observe(seen)

    @node
    async def close(state: SharedState) -> None:
        observation.close()
        observation.close()

    await AsyncFlow(close >> work, name="flow").run()
    assert seen.kinds == KINDS[:2]
    assert observation.seen == 2


async def test_an_observer_may_observe_close_and_run_flows():
    seen, inner = Inline(), list[Observation]()

    class Busy(Inline):
        def observe(self, event: ExecutionEvent) -> None:
            if event.kind == "flow_start" and not inner:
                inner.append(observe(seen))
                Flow(work, name="inside").run()
                inner[0].close()
            super().observe(event)

    with observe(Busy()) as busy:
        await FLOW.run()
    assert seen.kinds == KINDS
    assert {event.path.partition("/")[0] for event in seen.events} == {"inside"}
    assert (busy.seen, busy.failed) == (8, 0)


async def test_the_patience_with_observers_is_no_part_of_how_long_a_run_took(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agentflow.core.flow_base._PATIENCE", 0.3)
    stuck = Stuck()
    began = asyncio.get_running_loop().time()
    result = await FLOW.run(observers=[stuck])
    stuck.go.set()
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert result.duration < 0.3


def test_a_child_does_not_wait_for_what_its_parent_has_still_to_deliver():
    stuck = Stuck()
    with observe(stuck) as observation:
        asyncio.run(FLOW.run())
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            os._exit(0 if observation.flush(30) and stuck.seen == 0 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stuck.go.set()
        assert observation.flush(30)
    assert stuck.seen == 4


async def test_each_observer_is_told_what_it_wants_and_not_what_others_do():
    """Pieces of streams and contents go to who asked for them, whoever else watches or reads."""

    @node
    async def speak(state: SharedState) -> None:
        await emit("chunk", {"content": "a piece"})
        await emit("said", {"answer": "a secret", "words": 2})

    class All(Inline):
        chunks = True
        content = True

    plain, all_of_it = Inline(), All()
    async with AsyncFlow(speak, name="flow").stream({}, observers=[plain, all_of_it]) as events:
        read = [event async for event in events]
    assert [event.data for event in all_of_it.events] == [event.data for event in read]
    assert "chunk" not in plain.kinds
    (said,) = [event for event in plain.events if event.kind == "said"]
    assert said.data == {"words": 2}
