"""How many calls a second were answered of late."""

from __future__ import annotations

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.flow_rate import FlowRate


def answer(flow: FlowRate, clock: VirtualClock, times: int, seconds: float) -> None:
    for _ in range(times):
        clock.advance(seconds / times)
        flow.ended()


def test_nothing_has_flowed_at_first() -> None:
    clock = VirtualClock()
    assert FlowRate(clock.monotonic).per_second(clock.monotonic()) == 0.0


def test_a_crowd_in_one_moment_is_so_many_a_second() -> None:
    clock = VirtualClock()
    flow = FlowRate(clock.monotonic)
    answer(flow, clock, 500, 0.001)
    assert flow.per_second(clock.monotonic()) == 500.0


@pytest.mark.parametrize("rate", [1, 5, 40, 1_000])
def test_a_steady_flow_is_measured_closely(rate: int) -> None:
    clock = VirtualClock()
    flow = FlowRate(clock.monotonic)
    answer(flow, clock, rate * 40, 40.0)
    assert flow.per_second(clock.monotonic()) == pytest.approx(rate, rel=0.05)


def test_what_flowed_before_the_last_two_seconds_is_forgotten() -> None:
    clock = VirtualClock()
    flow = FlowRate(clock.monotonic)
    answer(flow, clock, 10_000, 10.0)
    answer(flow, clock, 300, 3.0)
    assert flow.per_second(clock.monotonic()) == pytest.approx(100, rel=0.1)


def test_a_pause_counts_as_time() -> None:
    clock = VirtualClock()
    flow = FlowRate(clock.monotonic)
    answer(flow, clock, 3_200, 10.0)
    clock.advance(1e6)
    assert flow.per_second(clock.monotonic()) < 0.01
