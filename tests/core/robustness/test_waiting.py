"""One that waits its turn: woken on its own loop by the first word it gets, and nothing is lost if it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.waiting import Waiter, running_loop


class Owner:
    """Who is left by whom: `(granted, value)` of each waiter that was withdrawn."""

    def __init__(self) -> None:
        self.left: list[tuple[bool, Any]] = []

    def withdraw(self, waiter: Waiter[str]) -> None:
        self.left.append((waiter.granted, waiter.value))


def waiting(test: Callable[[Waiter[str], Owner], Any]) -> None:
    """Run a test in virtual time with a waiter, and see that no timer is left."""

    async def main() -> None:
        await test(Waiter(), Owner())
        assert all(timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]

    VirtualClock().run(main())


def made(loop: asyncio.AbstractEventLoop) -> Waiter[str]:
    """A waiter of a loop that does not run at the moment: for whoever looks from here it is another thread's."""

    async def main() -> Waiter[str]:
        return Waiter()

    return loop.run_until_complete(main())


# ---- granted


def test_it_waits_until_it_is_granted_and_gets_what_was_given() -> None:
    async def test(waiter: Waiter[str], owner: Owner) -> None:
        assert (waiter.granted, waiter.refused, waiter.value) == (False, False, None)
        asyncio.get_running_loop().call_later(5, waiter.grant, "it")
        assert await waiter.wait(owner.withdraw) == "it"
        assert asyncio.get_running_loop().time() == 5
        assert (waiter.granted, waiter.refused, owner.left) == (True, False, [])

    waiting(test)


def test_what_was_granted_before_it_waits_is_there_at_once() -> None:
    async def test(waiter: Waiter[str], owner: Owner) -> None:
        assert waiter.grant("it") is True
        assert await waiter.wait(owner.withdraw, seconds=0.0, late=lambda: waiter.refuse(TimeoutError())) == "it"

    waiting(test)


def test_a_grant_from_elsewhere_travels_to_its_loop() -> None:
    loop, owner = asyncio.new_event_loop(), Owner()
    waiter = made(loop)
    assert running_loop() is None
    assert waiter.grant("it") is True
    assert loop.run_until_complete(waiter.wait(owner.withdraw)) == "it"
    loop.close()


def test_nothing_is_granted_to_a_loop_that_is_gone() -> None:
    """So whoever grants takes the next one instead."""
    loop = asyncio.new_event_loop()
    waiter = made(loop)
    loop.close()
    assert waiter.grant("it") is False
    assert (waiter.granted, waiter.value) == (False, None)
    waiter.refuse(LookupError("gone"))  # nobody hears it, and it is no error
    assert waiter.refused is True


# ---- refused


def test_it_raises_what_it_was_refused_with_and_has_left() -> None:
    async def test(waiter: Waiter[str], owner: Owner) -> None:
        waiter.refuse(LookupError("full"))
        assert waiter.refused is True
        with pytest.raises(LookupError, match="full"):
            await waiter.wait(owner.withdraw)
        assert owner.left == [(False, None)]

    waiting(test)


def test_the_first_word_counts() -> None:
    async def test(waiter: Waiter[str], owner: Owner) -> None:
        waiter.refuse(LookupError("first"))
        waiter.refuse(LookupError("second"))
        with pytest.raises(LookupError, match="first"):
            await waiter.wait(owner.withdraw)
        other: Waiter[str] = Waiter()
        other.grant("it")
        other.refuse(LookupError("late"))
        assert other.refused is False
        assert await other.wait(owner.withdraw) == "it"

    waiting(test)


# ---- late


@pytest.mark.parametrize(("seconds", "when"), [(3.0, 3.0), (0.0, 0.0), (-1.0, 0.0)])
def test_after_its_time_it_is_late_once(seconds: float, when: float) -> None:
    async def test(waiter: Waiter[str], owner: Owner) -> None:
        heard: list[float] = []

        def late() -> None:
            heard.append(asyncio.get_running_loop().time())
            waiter.refuse(TimeoutError("late"))

        with pytest.raises(TimeoutError, match="late"):
            await waiter.wait(owner.withdraw, seconds=seconds, late=late)
        await asyncio.sleep(9)
        assert heard == [when]

    waiting(test)


def test_who_is_served_in_time_is_never_late() -> None:
    async def test(waiter: Waiter[str], owner: Owner) -> None:
        asyncio.get_running_loop().call_later(1, waiter.grant, "it")
        assert await waiter.wait(owner.withdraw, seconds=3, late=lambda: pytest.fail("late")) == "it"
        await asyncio.sleep(9)

    waiting(test)


# ---- left


@pytest.mark.parametrize("granted", [False, True])
def test_who_is_cancelled_hands_back_what_it_was_granted(granted: bool) -> None:
    async def test(waiter: Waiter[str], owner: Owner) -> None:
        task = asyncio.ensure_future(waiter.wait(owner.withdraw, seconds=9, late=lambda: None))
        await asyncio.sleep(1)
        if granted:
            waiter.grant("it")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert owner.left == [(granted, "it" if granted else None)]
        waiter.refuse(LookupError("later"))  # nobody listens any more

    waiting(test)
