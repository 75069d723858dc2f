"""How the resources of a pool end: on their own loop, in a context of their own, once, whatever closing them does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.pool_disposal import Disposal
from agentflow.core.robustness.pool_making import Maker
from agentflow.core.robustness.pool_slots import Entry, Home, Make, Slots
from agentflow.core.robustness.time_limit import limit, remaining
from agentflow.errors import OperationTimeoutError


class Pool:
    """The books of a pool: how many were closed, and what was told."""

    def __init__(self, close: Callable[[str], Awaitable[None] | None] | None) -> None:
        self.done = 0
        self.told: list[Decision] = []
        self.disposal: Disposal[str] = Disposal(close, name="db", listener=self.told.append, done=self.ended)

    def ended(self) -> None:
        self.done += 1

    @property
    def why(self) -> list[Any]:
        assert all((each.kind, each.guard) == ("pool_closed_resource", "db") for each in self.told)
        return [each.data["why"] for each in self.told]


def entry(loop: asyncio.AbstractEventLoop) -> Entry[str]:
    return Entry("connection", Home(loop), 0.0, 100.0)


def running(test: Callable[[Entry[str]], Awaitable[None]]) -> VirtualClock:
    clock = VirtualClock()

    async def main() -> None:
        await test(entry(asyncio.get_running_loop()))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())
    return clock


# ---- closing


def test_what_needs_no_closing_has_ended_at_once() -> None:
    async def test(each: Entry[str]) -> None:
        pool = Pool(None)
        pool.disposal.dispose(each, "idle")
        assert (pool.done, pool.why) == (1, ["idle"])

    running(test)


def test_closing_may_take_its_time_and_is_kept_alive_meanwhile() -> None:
    """An event loop alone does not keep its tasks alive."""

    async def close(resource: str) -> None:
        await asyncio.sleep(5)

    async def test(each: Entry[str]) -> None:
        pool = Pool(close)
        pool.disposal.dispose(each, "broken")
        assert len(pool.disposal._tasks) == 1
        await asyncio.sleep(4)
        assert (pool.done, pool.told) == (0, [])
        await asyncio.sleep(2)
        assert (pool.done, pool.why, len(pool.disposal._tasks)) == (1, ["broken"], 0)

    running(test)


def test_a_deadline_of_who_gives_it_back_does_not_bind_its_closing() -> None:
    left: list[float] = []

    async def close(resource: str) -> None:
        left.append(remaining())

    async def test(each: Entry[str]) -> None:
        pool = Pool(close)
        with limit(1.0, "of somebody"):
            pool.disposal.dispose(each, "broken")
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert pool.why == ["broken"]

    running(test)
    assert left == [float("inf")]


def test_what_closing_raises_is_told_and_what_takes_too_long_is_given_up() -> None:
    async def fails(resource: str) -> None:
        raise LookupError(resource)

    async def hangs(resource: str) -> None:
        await asyncio.sleep(1000)

    async def test(each: Entry[str]) -> None:
        for close, error in ((fails, LookupError), (hangs, OperationTimeoutError)):
            pool = Pool(close)
            pool.disposal.dispose(each, "old")
            await asyncio.sleep(11)
            assert (pool.done, pool.why) == (1, ["old"])
            assert isinstance(pool.told[0].data["error"], error)

    running(test)


def test_closing_that_is_cancelled_has_ended_too() -> None:
    """As when its loop ends meanwhile."""

    async def close(resource: str) -> None:
        await asyncio.sleep(5)

    async def test(each: Entry[str]) -> None:
        pool, complaints = Pool(close), []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        pool.disposal.dispose(each, "closed")
        await asyncio.sleep(1)
        next(iter(pool.disposal._tasks)).cancel()
        await asyncio.sleep(1)
        assert (pool.done, pool.why, complaints) == (1, ["closed"], [])
        assert "error" not in pool.told[0].data

    running(test)


# ---- from another thread


def test_from_elsewhere_it_is_closed_on_its_own_loop_once() -> None:
    closed: list[str] = []
    loop = asyncio.new_event_loop()
    pool = Pool(closed.append)
    pool.disposal.dispose(entry(loop), "idle")
    assert (closed, pool.done) == ([], 0)

    async def turns() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    loop.run_until_complete(turns())
    loop.close()
    assert (closed, pool.done, pool.why) == (["connection"], 1, ["idle"])


def test_where_its_loop_has_ended_it_counts_as_ended_unclosed() -> None:
    closed: list[str] = []
    loop = asyncio.new_event_loop()
    loop.close()
    pool = Pool(closed.append)
    pool.disposal.dispose(entry(loop), "idle")
    assert (closed, pool.done, pool.why) == ([], 1, ["loop_ended"])


# ---- the books


def test_at_the_end_of_a_pool_what_is_idle_is_doomed_and_who_waits_is_named() -> None:
    async def test(each: Entry[str]) -> None:
        slots: Slots[str] = Slots(1, 100.0)
        loop = each.home.loop
        assert slots.claim(loop, 0.0) is Make.SLOT
        waits = slots.claim(loop, 0.0)
        assert slots.closed is False
        idle = Entry("idle", slots.home(loop), 0.0, 100.0)
        slots.home(loop).idle.append(idle)
        assert slots.close() == [waits]
        assert (slots.closed, len(slots.waiting), slots.doomed) == (True, 0, [(idle, "closed")])
        late = Entry("late", slots.home(loop), 0.0, 100.0)
        slots.taken += 1
        slots.give_back(late, None, 1.0)
        assert slots.doomed[-1] == (late, "closed")

    running(test)


def test_what_comes_back_from_a_loop_that_has_ended_is_not_lent_again() -> None:
    ended = asyncio.new_event_loop()
    ended.close()
    slots: Slots[str] = Slots(1, 100.0)
    slots.taken, each = 1, Entry("lost", Home(ended), 0.0, 100.0)
    slots.give_back(each, None, 1.0)
    assert (slots.taken, slots.doomed) == (0, [(each, "loop_ended")])


def test_room_is_made_by_what_lies_on_an_ended_loop_or_else_by_the_longest_idle() -> None:
    first, second, ended, mine = (asyncio.new_event_loop() for _ in range(4))
    slots: Slots[str] = Slots(3, 100.0)
    for loop, since in ((first, 2.0), (second, 1.0), (ended, 3.0)):
        slots.home(loop).idle.append(Entry(f"of {since}", slots.home(loop), since, 100.0))
        slots.taken += 1
    slots.home(mine)
    ended.close()
    for _ in range(3):
        assert slots.claim(mine, 5.0) is Make.SLOT
    assert [(each.resource, why) for each, why in slots.doomed] == [
        ("of 3.0", "other_loop"),
        ("of 1.0", "other_loop"),
        ("of 2.0", "other_loop"),
    ]
    for loop in (first, second, mine):
        loop.close()


@pytest.mark.parametrize(("now", "doomed"), [(9.9, []), (10.0, ["idle"]), (20.0, ["lifetime"])])
def test_what_is_idle_for_too_long_or_too_old_ends_at_that_moment(now: float, doomed: list[str]) -> None:
    async def test(each: Entry[str]) -> None:
        slots: Slots[str] = Slots(1, 10.0)
        slots.taken, each.home, each.dies = 1, slots.home(each.home.loop), 20.0
        slots.give_back(each, None, 0.0)
        assert slots.expire(each.home, now) == (float("inf") if doomed else 10.0)
        assert [why for _, why in slots.doomed] == doomed

    running(test)


# ---- whether it still works


def maker(validate: Any) -> Maker[str]:
    async def factory() -> str:
        return "connection"

    return Maker(factory, "db", validate, 5.0, 100.0, 0.1, VirtualClock(), None)


async def never(resource: str) -> bool:
    await asyncio.sleep(1000)
    return True


async def fails(resource: str) -> bool:
    raise LookupError(resource)


@pytest.mark.parametrize(
    ("validate", "works", "seconds"),
    [
        (None, True, 0.0),
        (lambda resource: resource == "connection", True, 0.0),
        (lambda resource: 0, False, 0.0),
        (fails, False, 0.0),
        (never, False, 5.0),
    ],
)
def test_what_cannot_be_validated_in_time_does_not_work(validate: Any, works: bool, seconds: float) -> None:
    async def test(each: Entry[str]) -> None:
        assert await maker(validate).works(each) is works

    assert running(test).monotonic() == seconds
