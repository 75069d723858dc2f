"""The presets, over real model calls: what a provider does is what is told, and no more often than once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.support.bench import Bench, Slow

from agentflow.core.observability.alerts import (
    Alert,
    AlertManager,
    AlertRule,
    breaker_open,
    burn_rate,
    cost_per_hour,
    error_rate,
    latency,
)
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.observers import observe
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import AgentFlowError, ServerError
from agentflow.llm.messages import Request, Usage
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

PRICED = """
models:
  toy/m: {provider: toy, model_id: m, price: {input: 1000, output: 0}}
"""


class Watched:
    """A bench whose calls are counted and watched, each evaluation 15 s after the one before."""

    def __init__(self, bench: Bench, *rules: AlertRule) -> None:
        self.bench = bench
        self.metrics = MetricsCollector(clock=bench.clock)
        self.told: list[Alert] = []
        self.manager = AlertManager(self.metrics, rules, actions={"told": self.told.append}, clock=bench.clock)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(alert.rule, alert.state.value) for alert in self.told]

    async def calls(self, number: int, every: float = 5.0) -> None:
        for _ in range(number):
            with suppress(AgentFlowError):
                await self.bench.ask().retry(RetryPolicy(max_attempts=1)).execute()
            await asyncio.sleep(every)


def down_for_a_while(tmp_path: Path, *rules: AlertRule) -> Watched:
    """A provider that fails for 40 calls, and then does not."""
    down = True

    def answer(request: Request) -> ScriptedAnswer:
        return ServerError("down") if down else "up"

    bench = Bench(tmp_path, {"toy": ScriptedProvider(answer, name="toy")})
    watched = Watched(bench, *rules)

    async def main() -> None:
        nonlocal down
        with observe(watched.metrics):
            async with watched.manager:
                await watched.calls(40)
                assert watched.said == [(alert.rule, "firing") for alert in watched.told]
                down = False
                await watched.calls(200)

    bench.run(main())
    return watched


def test_failing_calls_are_told_and_so_is_their_end(tmp_path: Path) -> None:
    watched = down_for_a_while(tmp_path, error_rate(), burn_rate())
    expected = [(rule, state) for rule in ("burn-rate", "error-rate") for state in ("firing", "resolved")]
    assert sorted(watched.said) == expected
    assert watched.told[-1].labels == {"provider": "toy", "model": "toy/m"}


def test_an_open_breaker_is_told_and_so_is_its_end(tmp_path: Path) -> None:
    watched = down_for_a_while(tmp_path, breaker_open())
    assert watched.said == [("breaker-open", "firing"), ("breaker-open", "resolved")]
    assert watched.told[0].labels == {"guard": "toy/m"}


def test_slow_calls_are_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(*[12.0] * 20, 1.0)})
    watched = Watched(bench, latency(above=10))

    async def main() -> None:
        with observe(watched.metrics):
            async with watched.manager:
                await watched.calls(120)

    bench.run(main())
    assert watched.said == [("latency", "firing"), ("latency", "resolved")]


def test_what_is_spent_in_an_hour_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(1.0, usage=Usage(input_tokens=1000))}, PRICED)
    watched = Watched(bench, cost_per_hour(above=10))  # a dollar a call

    async def main() -> None:
        with observe(watched.metrics):
            async with watched.manager:
                await watched.calls(15, every=10.0)
                await asyncio.sleep(4000.0)

    bench.run(main())
    assert watched.said == [("cost-per-hour", "firing"), ("cost-per-hour", "resolved")]
    assert watched.told[0].value == 11.0
