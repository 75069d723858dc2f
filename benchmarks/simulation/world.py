"""One run: requests come, go through the real guards to the simulated provider, and are counted.

    outcome = play(scenario, variant, seed=7)

All of it happens on a `VirtualClock`, so that minutes pass in moments, and a seed gives one outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from agentflow.clock import Clock, VirtualClock
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.output_estimate import OutputEstimate
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.errors import ModelError, OperationTimeoutError, RejectedError

from .ideal import ideal
from .measures import Outcome, Tally
from .provider import Provider, Terms
from .traffic import Request, Tenant, traffic

__all__ = ["Guards", "Scenario", "Variant", "play"]


@dataclass(frozen=True, slots=True)
class Guards:
    """What a variant sends its calls through. The limiter is told what the answers' heads say."""

    pipeline: Pipeline
    limiter: RateLimiter | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to make calls. `named`: the guards are told whose call it is, and how important; `told` overrides what the
    provider tells."""

    name: str
    guards: Callable[[Clock], Guards]
    named: bool = True
    told: bool = True


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a provider, and who calls it; the variants live through the same requests."""

    name: str
    story: str
    terms: Terms
    variants: tuple[Variant, ...]
    rate: float = 20.0  # requests a second
    seconds: float = 200.0
    patience: float = 30.0
    tenants: tuple[Tenant, ...] = (Tenant("all", 1.0),)
    spell: str = ""  # what kind of spell the recovery is measured from

    @property
    def requests(self) -> int:
        """How many come in one run of one variant."""
        return round(self.rate * self.seconds)


def play(scenario: Scenario, variant: Variant, seed: int) -> Outcome:
    """Run one variant of a scenario to its end."""
    requests = traffic(seed, scenario.tenants, rate=scenario.rate, seconds=scenario.seconds, patience=scenario.patience)
    world = _World(scenario, variant, seed)
    before = time.process_time()
    seconds = world.clock.run(world.run(requests))
    return _outcome(scenario, variant, world.tally, requests, seconds, time.process_time() - before)


class _World:
    def __init__(self, scenario: Scenario, variant: Variant, seed: int) -> None:
        self.clock = VirtualClock(seed=seed)
        self._now = self.clock.monotonic
        self._variant = variant
        guards = variant.guards(self.clock)
        self._pipeline, self._limiter = guards.pipeline, guards.limiter
        self._output = OutputEstimate()
        self.tally = Tally(scenario.seconds + scenario.patience)
        terms = scenario.terms if variant.told else _silent(scenario.terms)
        self._provider = Provider(terms, seed + 1, self._now, self.tally.seen)

    async def run(self, requests: Iterable[Request]) -> float:
        """Until the last call is over; returns how long that took."""
        async with asyncio.TaskGroup() as calls:  # what is no failure of a call, but a mistake, ends the run
            for request in requests:
                if (wait := request.at - self._now()) > 0:
                    await asyncio.sleep(wait)
                self.tally.came(request)
                calls.create_task(self._call(request))
        return self._now()

    async def _call(self, request: Request) -> None:
        pipeline = self._pipeline
        deadline = pipeline.deadline(request.patience)
        try:
            held = await pipeline.open(lambda: self._provider.answer(request), self._operation(request, deadline))
        except (ModelError, RejectedError, OperationTimeoutError) as error:
            self.tally.failed(request, self._now(), error)
            return
        finally:
            deadline.close()
        held.succeed(input_tokens=request.input_tokens, output_tokens=request.output_tokens)
        self.tally.answered(request, self._now())
        self._output.learn("model", request.output_tokens)
        if self._limiter is not None and held.value is not None:
            self._limiter.observe(held.value)

    def _operation(self, request: Request, deadline: Deadline) -> Operation:
        if not self._variant.named:
            return Operation(deadline, input_tokens=request.input_tokens, output_tokens=self._guess())
        return Operation(
            deadline,
            input_tokens=request.input_tokens,
            output_tokens=self._guess(),
            tenant=request.tenant,
            priority=request.priority,
        )

    def _guess(self) -> int:
        return self._output.estimate("model") if self._pipeline.counts_tokens else 0


def _silent(terms: Terms) -> Terms:
    return replace(terms, told=False)


def _outcome(
    scenario: Scenario, variant: Variant, tally: Tally, requests: list[Request], seconds: float, cpu: float
) -> Outcome:
    terms, good = scenario.terms, [request for request, _ in tally.good]
    best = ideal(terms, requests)
    down = [spell for spell in terms.spells if spell.what == "down"]
    attempts = tally.series["attempts"]
    ends = [spell.end for spell in terms.spells if spell.what == scenario.spell]
    return Outcome(
        scenario=scenario.name,
        variant=variant.name,
        seconds=seconds,
        offered=len(requests),
        good=len(good),
        ideal=len(best),
        sent=len(tally.attempted),
        attempts=tally.attempted.total(),
        spell_attempts=int(sum(sum(attempts[int(spell.start) : int(spell.end)]) for spell in down)),
        failures=dict(sorted(tally.failures.items())),
        refused=dict(sorted(tally.refused.items())),
        busiest_requests=tally.requests.most / (terms.requests_per_minute or float("inf")),
        busiest_tokens=tally.tokens.most / (terms.tokens_per_minute or float("inf")),
        latencies=sorted(latency for _, latency in tally.good),
        tenants=_groups(requests, good, best, lambda request: request.tenant),
        priorities=_groups(requests, good, best, lambda request: request.priority.name.lower()),
        priority_latencies=_latencies(tally.good),
        recovery=tally.recovery(ends, scenario.rate, scenario.seconds),
        most_under_way=tally.most_under_way,
        cpu=cpu,
        series=tally.series,
    )


def _groups(
    offered: list[Request], good: list[Request], best: list[Request], key: Callable[[Request], str]
) -> dict[str, list[int]]:
    """By group: offered, answered, answered in the ideal."""
    counts = [Counter(map(key, requests)) for requests in (offered, good, best)]
    return {name: [count[name] for count in counts] for name in sorted(counts[0])}


def _latencies(good: list[tuple[Request, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for request, latency in good:
        found.setdefault(request.priority.name.lower(), []).append(latency)
    return {name: sorted(latencies) for name, latencies in sorted(found.items())}
