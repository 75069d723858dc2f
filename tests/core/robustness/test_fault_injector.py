"""Injected faults: how many, which, and that the same seed gives the same ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.sweep import sweep

from agentflow.clock import VirtualClock
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.fault_injector import FaultInjector
from agentflow.errors import OverloadedError, RateLimitError, ServerError, StreamInterruptedError


async def outcome(faults: FaultInjector, clock: VirtualClock) -> tuple[float, str]:
    """How long a call took, and how it ended."""
    since = clock.monotonic()
    try:
        await faults.before()
    except Exception as error:
        return clock.monotonic() - since, type(error).__name__
    return clock.monotonic() - since, "well"


def outcomes(count: int, **options: Any) -> list[tuple[float, str]]:
    clock = VirtualClock()
    faults = FaultInjector(clock=clock, **options)

    async def main() -> list[tuple[float, str]]:
        return [await outcome(faults, clock) for _ in range(count)]

    return clock.run(main())


class Source:
    """Counts to 100, and knows whether it was closed."""

    def __init__(self, length: int = 100) -> None:
        self.length = length
        self.closed = False

    async def chunks(self) -> AsyncIterator[int]:
        try:
            for number in range(self.length):
                await asyncio.sleep(1)
                yield number
        finally:
            self.closed = True


async def read(chunks: AsyncIterator[int]) -> tuple[list[int], Exception | None]:
    got: list[int] = []
    try:
        async for chunk in chunks:
            got.append(chunk)
    except Exception as error:
        return got, error
    return got, None


# ---- before a call -------------------------------------------------------------------------------------------


def test_without_rates_nothing_happens() -> None:
    assert outcomes(100) == [(0.0, "well")] * 100


def test_the_same_seed_gives_the_same_faults() -> None:
    options: dict[str, Any] = {"latency": (1.0, 2.0), "latency_rate": 0.5, "error_rate": 0.3}
    assert outcomes(50, seed=1, **options) == outcomes(50, seed=1, **options)
    assert outcomes(50, seed=1, **options) != outcomes(50, seed=2, **options)


def test_the_third_call_meets_the_same_fault_whatever_the_others_do() -> None:
    """A seed is for calls, and not for the numbers that some of them draw."""
    alone = [ended for _, ended in outcomes(40, seed=3, error_rate=0.5)]
    slow = [ended for _, ended in outcomes(40, seed=3, error_rate=0.5, latency=(0.0, 9.0), latency_rate=0.5)]
    assert alone == slow


def test_rates_are_shares_of_calls() -> None:
    found = outcomes(2000, latency=3.0, latency_rate=0.25, error_rate=0.1)
    assert sum(seconds == 3.0 for seconds, _ in found) == pytest.approx(500, rel=0.15)
    assert sum(ended == "OverloadedError" for _, ended in found) == pytest.approx(200, rel=0.25)
    assert any(seconds and ended != "well" for seconds, ended in found)


def test_a_latency_without_a_rate_is_for_every_call() -> None:
    assert outcomes(3, latency=2.0) == [(2.0, "well")] * 3


def test_a_latency_may_be_a_range_or_a_function() -> None:
    assert all(1 <= seconds <= 2 for seconds, _ in outcomes(100, latency=(1.0, 2.0)))
    assert {seconds for seconds, _ in outcomes(100, latency=lambda chance: 5.0 if chance < 0.5 else 7.0)} == {5.0, 7.0}


def test_an_error_is_made_anew_each_time_and_drawn_from_several() -> None:
    found = outcomes(100, error_rate=1, error=[lambda: RateLimitError("slow"), lambda: ServerError("down"), ValueError])
    assert {ended for _, ended in found} == {"RateLimitError", "ServerError", "ValueError"}

    async def errors() -> list[BaseException]:
        faults, got = FaultInjector(error_rate=1), list[BaseException]()
        for _ in range(2):
            with pytest.raises(OverloadedError) as caught:
                await faults.before()
            got.append(caught.value)
        return got

    first, second = asyncio.run(errors())
    assert first is not second


def test_switched_off_nothing_happens_and_no_number_is_used_up() -> None:
    clock = VirtualClock()
    faults = FaultInjector(seed=4, error_rate=0.5, cut_rate=1, enabled=False, clock=clock)

    async def main() -> list[tuple[float, str]]:
        assert [await outcome(faults, clock) for _ in range(20)] == [(0.0, "well")] * 20
        assert len((await read(faults.stream(Source().chunks())))[0]) == 100
        faults.enabled = True
        return [await outcome(faults, clock) for _ in range(20)]

    assert clock.run(main()) == outcomes(20, seed=4, error_rate=0.5)


def test_it_stands_around_blocks_and_functions() -> None:
    entered: list[str] = []

    async def main() -> None:
        faults = FaultInjector(error_rate=1)
        with pytest.raises(OverloadedError):
            async with faults:
                entered.append("block")

        @faults
        async def ask(question: str) -> str:
            """Ask."""
            entered.append(question)
            return question

        with pytest.raises(OverloadedError):
            await ask("why?")
        faults.enabled = False
        async with faults:
            assert await ask("why?") == "why?"
        assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")
        with pytest.raises(ValueError, match="mine"):
            async with faults:
                raise ValueError("mine")

    asyncio.run(main())
    assert entered == ["why?"]


# ---- streams -------------------------------------------------------------------------------------------------


def test_a_stream_is_cut_after_some_chunks_and_its_source_closed() -> None:
    clock = VirtualClock()
    lengths: set[int] = set()

    async def main() -> None:
        faults = FaultInjector(cut_rate=1, cut_after=3, clock=clock)
        for _ in range(60):
            source = Source()
            got, error = await read(faults.stream(source.chunks()))
            assert isinstance(error, StreamInterruptedError)
            assert got == list(range(len(got)))
            assert source.closed or not got  # one that was never begun has nothing to close
            lengths.add(len(got))

    clock.run(main())
    assert lengths == {0, 1, 2, 3}


def test_a_share_of_streams_is_cut_and_the_others_come_whole() -> None:
    clock = VirtualClock()

    async def main() -> int:
        faults = FaultInjector(cut_rate=0.3, cut_error=lambda: ServerError("cut"), clock=clock)
        cut = 0
        for _ in range(400):
            got, error = await read(faults.stream(Source(20).chunks()))
            cut += error is not None
            assert error is not None or got == list(range(20))
        return cut

    assert clock.run(main()) == pytest.approx(120, rel=0.25)


def test_a_stream_that_is_too_short_to_be_cut_does_not_end_well_either() -> None:
    async def main() -> None:
        for seed in range(20):
            got, error = await read(FaultInjector(seed=seed, cut_rate=1, cut_after=50).stream(Source(2).chunks()))
            assert len(got) <= 2
            assert isinstance(error, StreamInterruptedError)

    VirtualClock().run(main())


def test_whoever_leaves_a_stream_closes_its_source() -> None:
    async def main() -> None:
        source = Source()
        stream = FaultInjector(cut_rate=0).stream(source.chunks())
        assert await anext(stream) == 0
        await stream.aclose()
        assert source.closed

    VirtualClock().run(main())


# ---- what is told, and refused -------------------------------------------------------------------------------


def test_the_listener_hears_of_each_fault_and_may_fail() -> None:
    heard: list[Decision] = []

    def listen(decision: Decision) -> None:
        heard.append(decision)
        raise RuntimeError("listener")

    async def main() -> None:
        faults = FaultInjector(latency=2.0, error_rate=1, cut_rate=1, cut_after=0, name="chaos", listener=listen)
        with pytest.raises(OverloadedError):
            await faults.before()
        await read(faults.stream(Source().chunks()))

    VirtualClock().run(main())
    assert heard == [
        Decision("fault_injected", "chaos", {"fault": "latency", "seconds": 2.0}),
        Decision("fault_injected", "chaos", {"fault": "error", "error": "OverloadedError"}),
        Decision("fault_injected", "chaos", {"fault": "cut", "error": "StreamInterruptedError", "chunks": 0}),
    ]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"latency": -1.0}, "latency"),
        ({"latency": (2.0, 1.0)}, "latency"),
        ({"latency_rate": 1.5}, "latency_rate"),
        ({"error_rate": -0.1}, "error_rate"),
        ({"cut_rate": float("nan")}, "cut_rate"),
        ({"cut_after": -1}, "cut_after"),
        ({"error": ()}, "error"),
        ({"cut_error": [ServerError("made already")]}, "cut_error"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        FaultInjector(**options)


def test_cancelled_at_any_wait_nothing_is_left() -> None:
    source: Source

    async def operation(clock: VirtualClock) -> None:
        nonlocal source
        source = Source(3)
        faults = FaultInjector(latency=1.0, clock=clock)
        await faults.before()
        stream = faults.stream(source.chunks())
        try:
            await read(stream)
        finally:
            await stream.aclose()

    def check() -> None:
        assert source.closed or asyncio.get_running_loop().time() <= 1

    assert sweep(operation, check) == 1 + 3
