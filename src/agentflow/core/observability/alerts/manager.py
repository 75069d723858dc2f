"""Watches metrics by rules, and says when something is wrong and when it is over.

    every 15 s: snapshot ──▶ rules ──▶ inactive → pending → firing → resolved ──┬─▶ observers: each change, an event
                                                                                └─▶ actions: each beginning, each end

    manager = AlertManager(metrics, [latency(above=10), breaker_open()], actions={"log": Log(), "ops": notify})
    async with manager:                     # or `with manager:` where no event loop runs
        await flow.run({"topic": "tides"})

`evaluate(now)` decides, and does nothing else: the same snapshots at the same times give the same alerts. `check()`
does so and tells what came of it; the manager calls it in turn. What is slow or broken in what is told (an action, an
observer) keeps neither the next evaluation nor a run waiting. The end of the manager evaluates once more, so a short
program hears of its alerts, too, and waits up to `grace` seconds for actions to have been told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.alerts.action import Action, Log, Told, as_action
from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.alerts.announcer import Announcer
from agentflow.core.observability.alerts.evaluator import Evaluation, Evaluator, Readings
from agentflow.core.observability.alerts.fields import Fields
from agentflow.core.observability.alerts.lane import ActionCounts, Lane
from agentflow.core.observability.alerts.reader import Reader, Source
from agentflow.core.observability.alerts.rule import AlertRule
from agentflow.core.observability.alerts.settings import read_settings
from agentflow.core.observability.alerts.silence import Silence
from agentflow.core.observability.alerts.spelling import doubts
from agentflow.core.observability.redaction.redactor import redact
from agentflow.core.portal import run_blocking
from agentflow.errors import ConfigurationError, describe

__all__ = ["AlertCounts", "AlertManager"]

_CLOCK: Final = SystemClock()
_log = logging.getLogger("agentflow.alerts")


@dataclass(frozen=True, slots=True)
class AlertCounts:
    """How the manager fared: evaluations, those that `failed` (no snapshot, or a rule that does not fit its metric),
    the last failure in words; for how many groups of series something is remembered, how many there was no room for at
    the last evaluation; and each action by its name."""

    evaluations: int
    failed: int
    last_error: str | None
    watched: int
    unwatched: int
    actions: Mapping[str, ActionCounts]


class AlertManager:
    """`source` is a MetricsCollector, or any function that returns a MetricsSnapshot; `interval` is in seconds.

    `actions` are told of alerts, by names that rules may choose from; a function will do, and without any there is the
    log. `max_series` bounds for how many groups of one rule something is remembered. `name` begins the ids of alerts
    and is the run of their events; without one each manager has its own.

    It runs on one event loop at a time. `evaluate`, `silence` and what only looks may be called from any thread.
    """

    def __init__(
        self,
        source: Source,
        rules: Sequence[AlertRule],
        *,
        actions: Mapping[str, Action | Told] | None = None,
        clock: Clock = _CLOCK,
        interval: float = 15.0,
        grace: float = 5.0,
        max_series: int = 1000,
        name: str | None = None,
    ) -> None:
        if not 0 < interval < float("inf"):
            raise ConfigurationError(f"interval: found {interval}, allowed is a finite number of seconds above 0")
        if not 0 <= grace < float("inf"):
            raise ConfigurationError(f"grace: found {grace}, allowed is a finite number of seconds, 0 or more")
        self._name = name or f"alerts-{os.urandom(6).hex()}"
        self._evaluator = Evaluator(rules, name=self._name, max_series=max_series)
        self._announcer = Announcer(self._name, clock)
        self._reader = Reader(source, self._evaluator.read)
        told = {"log": Log()} if actions is None else actions
        self._lanes = {each: Lane(each, as_action(action, each)) for each, action in told.items()}
        self._clock = clock
        self._interval = interval
        self._grace = grace
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._task: asyncio.Task[None] | None = None
        self._evaluations = self._failed = self._unwatched = 0
        self._last_error: str | None = None
        _check_names(rules, self._lanes)
        for doubt in doubts(rules):
            _log.warning(doubt)

    @classmethod
    def from_mapping(
        cls,
        source: Source,
        mapping: Mapping[str, object] | Sequence[object],
        *,
        actions: Mapping[str, Action | Told] | None = None,
        clock: Clock = _CLOCK,
        path: str = "alerts",
    ) -> AlertManager:
        """A manager from what YAML holds: interval, grace, rules, actions, silences; a list is the rules alone.

        `actions` are further ones, which only code can give. Raises ConfigurationError, which names the field and what
        is allowed there.
        """
        settings = read_settings(mapping, path, clock=clock)
        with Fields({}, path).placed():
            manager = cls(
                source,
                settings.rules,
                actions={**settings.actions, **(actions or {})} or None,
                clock=clock,
                interval=settings.interval,
                grace=settings.grace,
            )
        manager._evaluator.silences = settings.silences
        return manager

    # ---- looking ---------------------------------------------------------------------------------------------

    @property
    def rules(self) -> tuple[AlertRule, ...]:
        return self._evaluator.rules

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """What was pending, firing, without data or lately resolved at the last evaluation."""
        with self._locked():
            return self._evaluator.alerts(self._clock.time())

    @property
    def silences(self) -> tuple[Silence, ...]:
        """Those that still hold."""
        now = self._clock.monotonic()
        with self._locked():
            return tuple([each for each in self._evaluator.silences if now < each.until])

    def counts(self) -> AlertCounts:
        with self._locked():
            return AlertCounts(
                self._evaluations,
                self._failed,
                self._last_error,
                self._evaluator.watched,
                self._unwatched,
                {name: lane.counts() for name, lane in self._lanes.items()},
            )

    # ---- silences --------------------------------------------------------------------------------------------

    def silence(self, match: Mapping[str, str], seconds: float, *, reason: str = "") -> Silence:
        """Tell nobody of alerts with these labels for so many seconds. `rule` and `severity` may be named like labels,
        and a value may be a pattern, as for file names: `{"rule": "latency", "model": "gpt-4*"}`."""
        if not 0 < seconds < float("inf"):
            raise ConfigurationError(f"a silence lasts a finite number of seconds, more than 0, not {seconds}")
        silence = Silence(dict(match), self._clock.monotonic() + seconds, reason)
        with self._locked():
            self._evaluator.silences += (silence,)
        return silence

    def end(self, silence: Silence) -> None:
        """End a silence before its time."""
        with self._locked():
            self._evaluator.silences = tuple([each for each in self._evaluator.silences if each is not silence])

    # ---- evaluating ------------------------------------------------------------------------------------------

    def evaluate(self, now: float | None = None) -> Evaluation:
        """Look at the metrics, and decide. `now` is monotonic seconds; without it, the clock's.

        It remembers what it decided, tells nobody, and does nothing. Raises what the source raises.
        """
        return self._decide(self._reader.read_now(), now)

    async def check(self, now: float | None = None) -> Evaluation:
        """Evaluate, tell observers of each change, and hand actions what is theirs; wait for none of them.

        The metrics are read in a thread.
        """
        try:
            readings = await self._reader.read()
        except Exception as error:  # noqa: BLE001 - the next time they may be there again
            self._fail("the metrics", error)
            return Evaluation()
        evaluation = self._decide(readings, now)
        for alert in evaluation.changes:
            self._announcer.tell(alert)
        for alert in evaluation.notices:
            for name in self._lanes if alert.actions is None else alert.actions:
                self._lanes[name].put(alert)
        return evaluation

    async def drained(self, timeout: float | None = None) -> bool:
        """Whether the actions have been told everything, within `timeout` seconds (`grace` without it)."""
        seconds = self._grace if timeout is None else timeout
        return all(await asyncio.gather(*[lane.drained(seconds) for lane in self._lanes.values()]))

    # ---- running ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Evaluate now and every `interval` seconds, until `aclose`."""
        if self._running() is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name=self._name, context=Context())

    async def aclose(self) -> None:
        """Evaluate once more, give actions up to `grace` seconds, and end. What they have not been told by then is
        counted as dropped."""
        task, self._task = self._running(), None
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
                await self.check()
            await self.drained()
        finally:
            await self._reader.aclose()
            for lane in self._lanes.values():
                await lane.aclose()

    async def __aenter__(self) -> AlertManager:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> AlertManager:
        """The same for code without an event loop: it runs on that of the sync calls, in a thread of its own."""
        run_blocking(self.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run_blocking(self.aclose)

    # ---- within ----------------------------------------------------------------------------------------------

    def _decide(self, readings: Readings, now: float | None) -> Evaluation:
        with self._locked():
            moment = self._clock.monotonic() if now is None else now
            evaluation = self._evaluator.evaluate(readings, moment, self._clock.time())
            self._evaluations += 1
            full = evaluation.unwatched > 0 and not self._unwatched
            self._unwatched = evaluation.unwatched
        if full:
            _log.warning("too many series: %d of them are not watched", evaluation.unwatched)
        for rule, error in evaluation.problems:
            self._fail(f"the alert rule {rule}", error)
        return evaluation

    async def _watch(self) -> None:
        due = self._clock.monotonic()
        while True:
            await self.check()
            now, due = self._clock.monotonic(), due + self._interval
            if due <= now:  # what was missed is not made up for
                due = now + self._interval
            await self._clock.sleep(due - now)

    def _running(self) -> asyncio.Task[None] | None:
        """The task that evaluates, if it does so on this event loop: one of an earlier loop, or of the process that
        this one was forked from, does nothing any more."""
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return None
        return task

    def _fail(self, what: str, error: Exception) -> None:
        text = redact(describe(error))[:500]
        with self._locked():
            self._failed += 1
            self._last_error = f"{what}: {text}"
            count = self._failed
        if str(count).rstrip("0") == "1":  # the first, the tenth, the hundredth, …
            _log.warning("%s cannot be evaluated (%d failures): %s", what, count, text)

    def _locked(self) -> threading.Lock:
        if self._process != os.getpid():  # a thread that the child does not have may have held it
            self._process, self._lock = os.getpid(), threading.Lock()
        return self._lock


def _check_names(rules: Sequence[AlertRule], lanes: Mapping[str, Lane]) -> None:
    for rule in rules:
        for name in rule.actions or ():
            if name not in lanes:
                raise ConfigurationError(f"rules {rule.name}.actions: found {name!r}, allowed are {', '.join(lanes)}")
