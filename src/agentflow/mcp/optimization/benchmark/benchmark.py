"""Measures models under a load that does not wait for them: how fast, how good, how dear, and with what certainty.

    report = await Benchmark(
        "gpt-4o", "fast",
        dataset=Dataset.read("questions.jsonl"), arrivals=Poisson(5.0), duration=60.0,
        objective=Objective(ttft=2.0, tpot=0.2), checkers=[Contains()],
    ).run()

    plan: warm-up ┃ measured window ┃ cool-down     every request has its moment before the first one is sent
          └────────── the same for each model ────┘ one model after the other

Every model gets the same questions at the same moments, so that they are compared request by request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Final, TypeAlias

from agentflow.clock import Clock, SystemClock
from agentflow.errors import ConfigurationError
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.providers.base import LLMProvider
from agentflow.mcp.optimization.benchmark.arrivals import Arrivals, positive
from agentflow.mcp.optimization.benchmark.as_json import Baseline, plan_of
from agentflow.mcp.optimization.benchmark.asking import Target, asking_model, asking_provider, loaded
from agentflow.mcp.optimization.benchmark.checking import Checker, name_of
from agentflow.mcp.optimization.benchmark.comparison import Comparison, compared
from agentflow.mcp.optimization.benchmark.crew import Crew
from agentflow.mcp.optimization.benchmark.dataset import Case, Questions
from agentflow.mcp.optimization.benchmark.findings import Run, Setting
from agentflow.mcp.optimization.benchmark.generator import Generated, Generator, Limits, Planned, Standing
from agentflow.mcp.optimization.benchmark.measures import Measures, Window
from agentflow.mcp.optimization.benchmark.objective import Objective
from agentflow.mcp.optimization.benchmark.report import BenchmarkReport
from agentflow.mcp.optimization.benchmark.trace import Trace

__all__ = ["Asked", "Benchmark", "Progress"]

Asked: TypeAlias = str | LLMProvider | tuple[str, LLMProvider]
"""A model's name; a provider; or a provider and what it is to be called."""

_SHARE: Final = 0.1
_LONGEST: Final = 10.0
_TELLING: Final = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """How things stand with the model that is measured now. `at` is in seconds since its run began, of `duration`;
    `planned` is how many requests there are in all."""

    model: str
    number: int
    of: int
    at: float
    duration: float
    planned: int
    standing: Standing


class Benchmark:
    """One plan for one or several models. It always ends: after warm-up, `duration`, cool-down and `drain` at most.

    `duration` is the measured window; `warmup` before it and `cooldown` after it (a tenth of it and 10 s at most, where
    nothing is said) are sent and not counted. What is unanswered `drain` seconds after the last arrival is cut off and
    counts as infinitely late. `workers` load processes share the plan; with 0 it is sent from this event loop, which is
    the only way for a provider that lives in this process, and takes what else runs here into the measurement.

    A run is doubted (`report.doubts`) where the 99th percentile of the generator's own lag exceeds `max_lag`.
    With `guards` a model is asked as programs ask it, with retries, breaker and load shedder. `config` is a models.yml
    over the usual ones; `registry` serves instead of them where `workers` is 0. Raises ConfigurationError.
    """

    def __init__(
        self,
        *models: Asked,
        dataset: Questions,
        arrivals: Arrivals,
        duration: float,
        warmup: float | None = None,
        cooldown: float | None = None,
        drain: float = 30.0,
        objective: Objective | None = None,
        checkers: Sequence[Checker] = (),
        workers: int = 0,
        max_in_flight: int = 1000,
        max_lag: float = 0.02,
        timeout: float | None = None,
        guards: bool = False,
        seed: int = 0,
        config: str | None = None,
        registry: ModelRegistry | None = None,
        clock: Clock | None = None,
        watch: Callable[[Progress], None] | None = None,
    ) -> None:
        self._models = [_named(model) for model in models]
        _check(self._models, workers, max_in_flight, registry, clock)
        usual = min(_SHARE * positive("duration", duration), _LONGEST)
        self.window = Window(*_edges(warmup, duration, usual))
        self._cooldown = _not_negative("cooldown", usual if cooldown is None else cooldown)
        whole = self.window.end + self._cooldown
        if isinstance(arrivals, Trace):  # what comes after its last arrival is no load
            self.window = self.window.until(arrivals.duration)
            whole = min(whole, math.nextafter(arrivals.duration, math.inf))
        self._limits = Limits(whole, _not_negative("drain", drain), max_in_flight, bool(checkers))
        self._questions, self._arrivals = dataset, arrivals
        self._objective = objective or Objective()
        self._checkers = {name_of(checker): checker for checker in checkers}
        if len(self._checkers) < len(checkers):
            raise ConfigurationError("two checkers have one name: give one of the functions another")
        self._workers, self._max_lag = workers, positive("max_lag", max_lag)
        self._timeout, self._guards, self._seed, self._config = timeout, guards, seed, config
        self._registry, self._clock, self._watch = registry, clock or SystemClock(), watch
        self._running: Generator | Crew | None = None
        self._stopped = False

    @property
    def setting(self) -> Setting:
        """What is done, as the report tells it."""
        return Setting(
            dataset=str(getattr(self._questions, "name", "dataset")),
            fingerprint=self._questions.fingerprint,
            arrivals=_kind_of(self._arrivals),
            rate=self._arrivals.rate,
            duration=self.window.seconds,
            warmup=self.window.start,
            cooldown=self._cooldown,
            drain=self._limits.drain,
            workers=self._workers,
            max_in_flight=self._limits.max_in_flight,
            max_lag=self._max_lag,
            seed=self._seed,
            guards=self._guards,
            objective=str(self._objective),
            checkers=tuple(self._checkers),
        )

    def plan(self) -> list[Planned]:
        """Every request with its moment: the same whenever it is asked for."""
        moments = self._arrivals.moments(self._limits.duration, Random(self._seed))
        cases = self._questions.cases(len(moments))
        return [Planned(index, at, case) for index, (at, case) in enumerate(zip(moments, cases, strict=True))]

    def stop(self) -> None:
        """End early, from the same event loop: `run` returns what was measured until now, and doubts it."""
        self._stopped = True
        if self._running is not None:
            self._running.stop()

    async def run(self, *, baseline: Baseline | None = None) -> BenchmarkReport:
        """Measure each model, then compare: with its like in `baseline`, or with the first of them.

        Raises UnknownModelError, MissingKeyError and the like before anything is sent, and ProcessError for a load
        process that died. Cancelling it ends the load processes.
        """
        plan = self.plan()
        if not plan:
            raise ConfigurationError("no request falls into the run: it is too short for its rate, or for the trace")
        runs = []
        for number, (name, provider) in enumerate(self._models):
            if self._stopped:
                break
            runs.append(await self._measure(number, name, provider, plan))
        return BenchmarkReport(self.setting, tuple(runs), tuple(self._compare(runs, baseline)))

    # ---- one model -------------------------------------------------------------------------------------------

    async def _measure(self, number: int, name: str, provider: LLMProvider | None, plan: list[Planned]) -> Run:
        def watching(at: float, standing: Standing) -> None:
            if self._watch is not None:
                self._watch(
                    Progress(name, number + 1, len(self._models), at, self._limits.duration, len(plan), standing)
                )

        made = self._by_crew(name, plan, watching) if self._workers else self._here(name, provider, plan, watching)
        start, generated = await made
        # The generator's clock says when it began, the wall clock what time that was.
        began = self._clock.time() - (self._clock.monotonic() - start)
        marks = _marks(self._checkers, plan, generated)
        window = self.window if generated.stopped is None else self.window.until(generated.stopped)
        measures = Measures(name, tuple(generated.records), window, self._objective, marks)
        return Run(measures, began, tuple(generated.beats), generated.stopped is not None)

    async def _by_crew(
        self, name: str, plan: list[Planned], watching: Callable[[float, Standing], None]
    ) -> tuple[float, Generated]:
        target = Target(name, self._config, self._timeout, self._guards)
        begun = time.monotonic()
        async with Crew(target, plan, self._limits, workers=self._workers) as crew:
            self._running = crew
            begun = time.monotonic()
            if self._stopped:
                crew.stop()
            try:
                return await crew.run(lambda standing: watching(time.monotonic() - begun, standing))
            finally:
                self._running = None

    async def _here(
        self,
        name: str,
        provider: LLMProvider | None,
        plan: list[Planned],
        watching: Callable[[float, Standing], None],
    ) -> tuple[float, Generated]:
        own = loaded(self._config, guards=self._guards) if provider is None and self._registry is None else None
        if provider is None:
            registry = self._registry or own
            assert registry is not None
            ask = asking_model(Target(name, self._config, self._timeout, self._guards), registry)
        else:
            ask = asking_provider(provider, name, self._timeout)
        generator = Generator(ask, plan, self._limits, clock=self._clock)
        start = self._clock.monotonic()

        async def tell() -> None:
            while True:
                await self._clock.sleep(_TELLING)
                watching(self._clock.monotonic() - start, generator.standing)
                generator.standing.recent.clear()

        telling = asyncio.create_task(tell()) if self._watch is not None else None
        self._running = generator
        try:
            return start, await generator.run(start)
        finally:
            self._running = None
            if telling is not None:
                telling.cancel()
            if own is not None:
                await own.aclose()

    # ---- several ---------------------------------------------------------------------------------------------

    def _compare(self, runs: Sequence[Run], baseline: Baseline | None) -> list[Comparison]:
        dice = Random(self._seed)
        if baseline is None:
            return [compared(runs[0].measures, run.measures, paired=True, dice=dice) for run in runs[1:]]
        paired = baseline.plan == plan_of(asdict(self.setting))
        pairs = [(before, run.measures) for run in runs if (before := baseline.measures.get(run.name)) is not None]
        return [compared(before, after, paired=paired, dice=dice) for before, after in pairs]


def _named(model: Asked) -> tuple[str, LLMProvider | None]:
    if isinstance(model, str):
        return model, None
    if isinstance(model, tuple):
        return model
    return model.name, model


def _check(
    models: Sequence[tuple[str, LLMProvider | None]],
    workers: int,
    max_in_flight: int,
    registry: ModelRegistry | None,
    clock: Clock | None,
) -> None:
    names = [name for name, _ in models]
    if not names:
        raise ConfigurationError("there is no model to measure: name one")
    if len(set(names)) < len(names):
        raise ConfigurationError("two models have one name: give a provider another, as in (name, provider)")
    if workers < 0 or max_in_flight < 1:
        raise ConfigurationError("workers is 0 or more, max_in_flight 1 or more")
    if workers and (any(provider is not None for _, provider in models) or registry is not None or clock is not None):
        raise ConfigurationError(
            "load processes know models by their names alone: with workers there can be no provider, registry or clock "
            "of this process; leave workers at 0"
        )


def _edges(warmup: float | None, duration: float, usual: float) -> tuple[float, float]:
    start = _not_negative("warmup", usual if warmup is None else warmup)
    return start, start + duration


def _not_negative(name: str, value: float) -> float:
    return 0.0 if value == 0.0 else positive(name, value)


def _kind_of(arrivals: Arrivals) -> str:
    """As in "gamma, cv 3", for the report."""
    cv, name = getattr(arrivals, "cv", None), getattr(arrivals, "name", None)
    kind = type(arrivals).__name__.lower()
    return kind + (f", cv {cv:g}" if cv is not None else "") + (f" of {name}" if name else "")


def _marks(checkers: dict[str, Checker], plan: Sequence[Planned], generated: Generated) -> dict[str, dict[int, float]]:
    cases = {each.index: each.case for each in plan}
    return {name: dict(_marked(checker, cases, generated)) for name, checker in checkers.items()}


def _marked(checker: Checker, cases: dict[int, Case], generated: Generated) -> list[tuple[int, float]]:
    """A checker's marks, where it gave one."""
    found = []
    for record in generated.records:
        mark = checker(record.text, cases[record.index]) if record.answered else None
        if mark is not None:
            found.append((record.index, min(1.0, max(0.0, float(mark)))))
    return found
