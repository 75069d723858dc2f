"""What is undone, and in which order, does not depend on whether the process died meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow.core import AsyncFlow, Each, Parallel, node
from agentflow.core.durability.records import Record
from agentflow.errors import NodeError, StepLimitError


class Crash(BaseException):
    """The process is no more."""


Doing = Callable[[], Awaitable[object]]


class Deeds(list[str]):
    """What was done and undone, `-name`, in this order."""

    def book(self, name: str, doing: Doing | None = None) -> Any:
        async def undo(item: object, result: object) -> None:
            self.append(f"-{name}")

        return node(name=name, writes=name, compensate=undo)(self._work(name, doing))

    def plain(self, name: str, doing: Doing | None = None) -> Any:
        return node(name=name, writes=name)(self._work(name, doing))

    def _work(self, name: str, doing: Doing | None) -> Callable[[], Awaitable[str]]:
        async def work() -> str:
            self.append(name)
            if doing is not None:
                await doing()
            return name

        return work

    @property
    def undone(self) -> list[str]:
        return [deed for deed in self if deed.startswith("-")]


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise ValueError("it is broken")


def turns(number: int) -> Doing:
    """Wait so many turns of the loop."""

    async def wait() -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    return wait


async def crashes_at(engine: MemoryDurability, flow: AsyncFlow, step: str) -> None:
    """The process dies when that step is to be kept."""

    async def before(record: Record) -> None:
        if record.id.endswith(step):
            engine.crash()
            raise Crash

    async def at_once(record: Record) -> None:
        """Nothing stands in the way."""

    engine.before = before
    with pytest.raises(Crash):
        await flow.run({"items": [1, 2]}, run_id="r")
    engine.before = at_once


def racing(deeds: Deeds) -> Any:
    """The loser has booked something, and is cut off."""
    loser = deeds.book("lost") >> deeds.plain("never", for_ever)
    return Parallel(deeds.plain("won", turns(40)), loser, need=1, name="race")


def putting_up_with(deeds: Deeds) -> Any:
    """A branch that has booked something fails."""
    inner = AsyncFlow(deeds.book("lost"), name="inner")
    failing = inner >> deeds.plain("bad", fails)
    return Parallel(deeds.plain("good"), failing, on_error="collect", name="tolerant")


def over_items(deeds: Deeds) -> Any:
    """The flow of an item has booked something, and fails."""
    flow = AsyncFlow(deeds.book("lost") >> deeds.plain("bad", fails), name="item-flow")
    return Each(flow, over="items", on_error="collect", name="each")


def beside_each_other(deeds: Deeds) -> Any:
    left = deeds.book("a1", turns(30)) >> deeds.book("a2")
    return Parallel(left, deeds.book("b1") >> deeds.book("b2", turns(60)), name="both")


@pytest.mark.parametrize("part", [racing, putting_up_with, over_items, beside_each_other])
async def test_the_same_is_undone_in_the_same_order_after_a_crash(part: Callable[[Deeds], Any]) -> None:
    async def run(crash: bool) -> Deeds:
        deeds, engine = Deeds(), MemoryDurability()
        flow = AsyncFlow(
            part(deeds) >> deeds.plain("between") >> deeds.plain("pay", fails), name="flow", durability=engine
        )
        if crash:
            await crashes_at(engine, flow, "between#1")
        with pytest.raises(NodeError, match="pay"):
            await flow.run({"items": [1, 2]}, run_id="r")
        return deeds

    undisturbed = (await run(crash=False)).undone

    assert undisturbed
    assert (await run(crash=True)).undone == undisturbed


async def test_what_exec_has_done_is_undone_where_keeping_it_was_cut_off() -> None:
    deeds, engine, is_kept = Deeds(), MemoryDurability(), asyncio.Event()

    async def before(record: Record) -> None:
        if record.id.endswith("hotel#1"):
            is_kept.set()
            await for_ever()

    async def fail_meanwhile() -> None:
        await is_kept.wait()
        await fails()

    engine.before = before
    flow = AsyncFlow(Parallel(deeds.book("hotel"), deeds.plain("bad", fail_meanwhile)), durability=engine)

    with pytest.raises(NodeError, match="bad"):
        await flow.run(run_id="r")

    assert deeds == ["hotel", "bad", "-hotel"]


async def test_the_steps_of_a_branch_that_lost_count_after_a_crash_as_well() -> None:
    deeds, engine = Deeds(), MemoryDurability()
    flow = AsyncFlow(racing(deeds) >> deeds.plain("between") >> deeds.plain("end"), max_steps=5, durability=engine)
    await crashes_at(engine, flow, "between#1")

    with pytest.raises(StepLimitError):
        await flow.run({"items": [1, 2]}, run_id="r")
