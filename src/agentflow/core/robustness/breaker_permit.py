"""Leave to make one call, and the ledger of a breaker in which its end is entered.

    permit = ledger.acquire()        or CircuitOpenError
    permit.success()                 ── or permit.failure(error), or permit.drop(): the first of them counts

The ledger is the machine under a lock. The usual call, well ended where all is well, takes no lock at all; an end never
waits for it (see turn), and what there is to tell is told after it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, TypeVar

from agentflow.clock import Clock
from agentflow.core.robustness.breaker_machine import Machine, Phase
from agentflow.core.robustness.breaker_rules import Rules
from agentflow.core.robustness.breaker_state import BreakerState
from agentflow.core.robustness.breaker_verdict import Verdict, default_verdict
from agentflow.core.robustness.decision import Listener
from agentflow.core.robustness.news import News
from agentflow.core.robustness.turn import Turn
from agentflow.errors import CircuitOpenError

__all__ = ["Guard", "Ledger", "Permit"]

R = TypeVar("R")

_HALF_OPEN: Final = BreakerState.HALF_OPEN


class Permit:
    """Leave to make one call. Report how it ended, once: what comes second is ignored. Nothing here raises."""

    __slots__ = ("_ledger", "number", "phase", "since")

    def __init__(self, ledger: Ledger, phase: Phase, number: int, since: float) -> None:
        self._ledger = ledger
        self.number = number  # among those of its phase, from 1
        self.phase: Phase | None = phase  # None once it is settled
        self.since = since

    def success(self, seconds: float | None = None) -> None:
        """It went well. `seconds` is what counts for the slow-call rate (say, the time to the first token); None for
        the time since `acquire`."""
        self._ledger.settle(self, False, seconds)

    def failure(self, error: BaseException, seconds: float | None = None) -> None:
        """It ended with `error`, which is a failure or is ignored: then the permit is given back, unused."""
        if self._ledger.fails(error):
            self._ledger.settle(self, True, seconds)
        else:
            self._ledger.give_back(self)

    def drop(self) -> None:
        """It was cancelled, or never made: record nothing, and let another one probe."""
        self._ledger.give_back(self)

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It is recorded by how the block ends, unless the block has settled it."""
        if error is None:
            self.success()
        else:
            self.failure(error)


class Guard:
    """Takes its permit when it is entered, not when it is made: one that is never entered holds nothing."""

    __slots__ = ("_ledger", "_permit")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __enter__(self) -> Permit:
        self._permit = permit = self._ledger.acquire()
        return permit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._permit.__exit__(kind, error, trace)


class Ledger:
    """One for each breaker. `classify` says of an exception whether it is a failure."""

    __slots__ = ("_classify", "_name", "_news", "_slow", "_turn", "machine", "now", "timed")

    def __init__(
        self,
        rules: Rules,
        name: str,
        classify: Callable[[BaseException], Verdict] | None,
        clock: Clock,
        listener: Listener | None,
    ) -> None:
        self._turn = Turn()
        self._news = News(listener, name, self._turn.lock)
        self.machine = Machine(rules, clock.random, self._news)
        self.now = clock.monotonic
        self.timed = rules.timed
        self._slow = rules.slow
        self._name = name
        self._classify = classify or default_verdict

    # ---- the way in

    def acquire(self) -> Permit:
        phase = self.machine.phase
        if phase.passes:
            phase.begun = number = phase.begun + 1
            return Permit(self, phase, number, self.now() if self.timed else 0.0)
        return self.enter(take=True)

    def enter(self, *, take: bool) -> Permit:
        """The way in where not everybody passes."""
        now, machine = self.now(), self.machine
        refusal = None
        with self._turn:
            phase = machine.move_to(now)
            permit = Permit(self, phase, phase.begun + 1, now)
            if not machine.passes(phase):
                wait = machine.refuse(phase, now)
                refusal = CircuitOpenError(self._name, phase.refusal(wait), retry_after=wait)
            elif take:
                phase.begun += 1
                if phase.state is _HALF_OPEN:
                    phase.probes[permit] = now
        self._news.tell()
        if refusal is not None:
            raise refusal
        return permit

    # ---- the way out; nothing here waits for the lock

    def fails(self, error: BaseException) -> bool:
        if not isinstance(error, Exception):
            return False
        with suppress(Exception):
            return self._classify(error) == "failure"
        return default_verdict(error) == "failure"

    def settle(self, permit: Permit, failed: bool, seconds: float | None) -> None:
        phase = permit.phase
        if phase is None:
            return
        now, slow = 0.0, False
        if self.timed or not phase.passes:  # a look at the clock is a tenth of the whole
            clock = self.now
            now = clock()
            slow = (now - permit.since if seconds is None else seconds) > self._slow
        if phase.ring.quiet and not failed and not slow:
            permit.phase = None  # the usual case takes no lock
            phase.ended += 1
            return
        turn, news = self._turn, self._news
        if turn.lock.locked():
            turn.soon(partial(self._record, permit, now, failed, slow))
            news.tell()
            return
        turn.lock.acquire()
        try:
            self._record(permit, now, failed, slow)
        finally:
            turn.lock.release()
            if turn.left:
                turn.catch_up()
        if news.items:
            news.tell()

    def give_back(self, permit: Permit) -> None:
        if permit.phase is not None:
            self._turn.soon(partial(self._without, permit))
            self._news.tell()

    def _record(self, permit: Permit, now: float, failed: bool, slow: bool) -> None:
        phase, permit.phase = permit.phase, None
        machine = self.machine
        if phase is not machine.phase or phase is None:
            return
        phase.ended += 1
        if not phase.passes:
            self._record_probe(permit, phase, now, failed, slow)
            return
        if failed:
            phase.cohorts.failed(permit.number)
        if phase.ring.record(now, failed, slow) and phase.closed and machine.fails(permit.number):
            machine.trip(now if self.timed else self.now())

    def _record_probe(self, permit: Permit, phase: Phase, now: float, failed: bool, slow: bool) -> None:
        machine = self.machine
        if machine.move_to(now) is phase and phase.probes.pop(permit, None) is not None:
            phase.ring.record(now, failed, slow)
            machine.judge_probes(now)

    def _without(self, permit: Permit) -> None:
        phase, permit.phase = permit.phase, None
        if phase is not None:
            phase.ended += 1
            if phase.passes:
                phase.cohorts.dropped(permit.number)
            else:
                phase.probes.pop(permit, None)

    # ---- looking and commanding

    def at(self, look: Callable[[Machine, float], R]) -> R:
        """What `look` finds, or does, at this moment."""
        now = self.now()
        with self._turn:
            seen = look(self.machine, now)
        self._news.tell()
        return seen
