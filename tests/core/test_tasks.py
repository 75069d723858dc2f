"""Several coroutines as one: when the crew is done, who is cancelled, and which error counts."""

from __future__ import annotations

import asyncio

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.tasks import Outcome, raise_first, run_together
from agentflow.errors import NodeError


async def after(seconds: float, error: BaseException | None = None) -> None:
    await asyncio.sleep(seconds)
    if error is not None:
        raise error


def run(*coroutines, **options) -> Outcome:
    """Run a crew on a virtual clock, and see that nothing of it is left."""

    async def main() -> Outcome:
        try:
            return await run_together(coroutines, **options)
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return VirtualClock().run(main())


def test_no_coroutines_are_done_at_once():
    assert run() == Outcome()


def test_winners_stand_in_order_of_time():
    assert run(after(3), after(1), after(2)).winners == [1, 2, 0]


def test_with_enough_winners_the_others_are_cancelled():
    clock = VirtualClock()

    async def main() -> None:
        outcome = await run_together([after(3), after(1), after(2), after(9)], enough=2)
        assert outcome.winners == [1, 2]
        assert clock.monotonic() == 2

    clock.run(main())


def test_the_first_failure_ends_a_crew_that_does_not_tolerate_any():
    clock = VirtualClock()
    error = ValueError("no")

    async def main() -> None:
        outcome = await run_together([after(3), after(1, error)])
        assert (outcome.winners, outcome.failures) == ([], [error])
        assert clock.monotonic() == 1

    clock.run(main())


def test_a_tolerant_crew_goes_on_while_enough_can_still_succeed():
    first, second = ValueError("1"), ValueError("2")
    outcome = run(after(1, first), after(3), after(2, second), enough=1, tolerate=True)
    assert (outcome.winners, outcome.failures) == ([1], [first, second])


def test_a_tolerant_crew_gives_up_once_enough_cannot_be_reached():
    clock = VirtualClock()

    async def main() -> None:
        outcome = await run_together([after(1, ValueError()), after(9), after(8)], enough=3, tolerate=True)
        assert len(outcome.failures) == 1
        assert clock.monotonic() == 1

    clock.run(main())


def test_failures_in_the_same_turn_of_the_loop_are_all_kept():
    """The second fails after the first has decided, and before anybody could cancel it."""

    async def scenario() -> Outcome:
        gate = asyncio.Event()

        async def fail(turns: int) -> None:
            await gate.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            raise ValueError(turns)

        asyncio.get_running_loop().call_soon(gate.set)
        return await run_together([fail(0), fail(1), fail(0)])

    outcome = VirtualClock().run(scenario())
    assert sorted(str(error) for error in outcome.failures) == ["0", "0", "1"]


def test_an_error_raised_while_being_cancelled_is_a_failure_too():
    async def stubborn() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            raise OSError("could not close")

    outcome = run(after(1, ValueError("first")), stubborn())
    assert [type(error) for error in outcome.failures] == [ValueError, OSError]


def test_what_a_cancelled_coroutine_still_returns_counts_for_nothing():
    async def late() -> None:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            return

    assert run(after(1), late(), enough=1).winners == [0]


def test_a_branch_that_cancels_itself_is_a_failure():
    async def own_end() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    (failure,) = run(own_end(), after(5)).failures
    assert "cancelled from within" in str(failure)


class Stop(BaseException):
    """Ends everything, like SystemExit, which asyncio would also let out of the loop."""


@pytest.mark.parametrize("options", [{}, {"tolerate": True}, {"enough": 1, "tolerate": True}])
def test_what_is_no_exception_is_raised_whatever_is_tolerated(options):
    with pytest.raises(Stop):
        run(after(1, Stop()), after(5), after(0.5, ValueError()) if options.get("tolerate") else after(6), **options)


def test_a_cancellation_from_outside_ends_all_and_is_passed_on():
    ended: list[int] = []

    async def member(number: int) -> None:
        try:
            await asyncio.sleep(99)
        finally:
            await asyncio.sleep(1)  # cleaning up takes its time, and is waited for
            ended.append(number)

    async def main() -> None:
        crew = asyncio.create_task(run_together([member(1), member(2)]))
        await asyncio.sleep(1)
        crew.cancel()
        with pytest.raises(asyncio.CancelledError):
            await crew
        assert ended == [1, 2]

    VirtualClock().run(main())


def test_a_second_cancellation_reaches_those_that_still_clean_up():
    clock = VirtualClock()

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(99)
        finally:
            await asyncio.sleep(1000)

    async def main() -> None:
        crew = asyncio.create_task(run_together([slow_to_end()]))
        await asyncio.sleep(1)
        crew.cancel()
        await asyncio.sleep(1)
        crew.cancel()
        with pytest.raises(asyncio.CancelledError):
            await crew
        assert clock.monotonic() == 2
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())


def test_an_error_during_a_cancellation_from_outside_is_not_reported_as_forgotten():
    reports: list[dict[str, object]] = []

    async def fails_to_end() -> None:
        try:
            await asyncio.sleep(99)
        finally:
            raise OSError("could not close")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        crew = asyncio.create_task(run_together([fails_to_end()]))
        await asyncio.sleep(1)
        crew.cancel()
        await asyncio.wait([crew])
        assert crew.cancelled()

    VirtualClock().run(main())
    assert reports == []


def test_the_first_node_error_carries_the_others():
    first, second = (NodeError(f"flow/{name}#1", "exec", 1, ValueError(name)) for name in "ab")
    third = OSError("c")
    with pytest.raises(NodeError) as caught:
        raise_first([first, second, third])
    assert caught.value is first
    assert first.siblings == (second, third)
