"""What a circuit breaker decides, and when: its states, what it remembers, its probes. No lock, no listener, no clock.

    machine = Machine(rules, clock.random, news)
    phase = machine.move_to(now)                 time alone makes an open one half open
    machine.passes(phase)                        whether one more call may be made; half open, it is a probe:
    phase.probes[probe] = now
    if machine.fails(number): machine.trip(now)  after the call of that number was recorded in phase.ring, or
    machine.judge_probes(now)                    after a probe was

`now` is an argument, in seconds that never go back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentflow.core.robustness.breaker_cohorts import Cohorts
from agentflow.core.robustness.breaker_rules import Rules
from agentflow.core.robustness.breaker_state import TRANSITIONS, BreakerEvent, BreakerState
from agentflow.core.robustness.breaker_window import CountRing, Ring
from agentflow.core.robustness.news import News

__all__ = ["BreakerCounts", "Machine", "Phase"]

_PROBING: Final = 1.0  # seconds after which to ask again while probes are out; nobody knows how long they take


@dataclass(frozen=True, slots=True)
class BreakerCounts:
    """A breaker at one moment: `calls` of its window (of the probes, half open), how many of them failed or were slow,
    calls of this generation `under_way`, `probes` that are out, all calls `refused` since it was made, and the number
    of its `generation`."""

    state: BreakerState
    calls: int
    failures: int
    slow: int
    under_way: int
    probes: int
    refused: int
    generation: int


class Phase:
    """One generation: the time between two changes of state. Permits hold theirs, so the late ones are known.

    `probes` are those that are out, and since when. `begun` and `ended` count calls without the lock: a `+= 1` with no
    call inside is not interrupted where there is a global interpreter lock, and elsewhere they are near enough.
    """

    __slots__ = (
        "begun",
        "closed",
        "cohorts",
        "ended",
        "number",
        "passes",
        "probes",
        "reason",
        "ring",
        "state",
        "until",
    )

    def __init__(
        self, state: BreakerState, number: int, ring: Ring, cohorts: Cohorts, reason: str, until: float | None
    ) -> None:
        self.state = state
        self.number = number
        self.ring = ring
        self.cohorts = cohorts
        self.begun = self.ended = 0
        self.reason = reason
        self.until = until
        self.closed = state is BreakerState.CLOSED
        self.passes = self.closed or state is BreakerState.DISABLED
        self.probes: dict[object, float] = {}

    @property
    def under_way(self) -> int:
        return max(0, self.begun - self.ended)

    def refusal(self, wait: float | None) -> str:
        """Why it lets nobody through, in words."""
        if self.state is BreakerState.FORCED_OPEN:
            return f"{self.reason}; reset() closes it"
        if self.state is BreakerState.HALF_OPEN:
            return f"half open ({self.reason}), and its probes are under way; try again in {wait or 0.0:.1f} s"
        return f"open, because {self.reason}; next probe in {wait or 0.0:.1f} s"


class Machine:
    """Every method is called under the owner's lock; `phase` may be looked at without it."""

    __slots__ = ("_news", "_random", "_span", "phase", "refused", "rules")

    def __init__(self, rules: Rules, random: Callable[[], float], news: News) -> None:
        self.rules = rules
        self.phase = Phase(BreakerState.CLOSED, 0, rules.window.ring(), Cohorts(rules.cohort), "", None)
        self.refused = 0
        self._news = news
        self._random = random
        self._span = rules.open_for  # how long the next opening lasts

    # ---- time

    def move_to(self, now: float) -> Phase:
        """Make the changes that time alone brings, as of when they fell due. Returns the phase at `now`."""
        phase = self.phase
        if phase.probes and now >= (late := self._late(phase)):
            reason = f"a probe was out for {self.rules.half_open_wait:g} s"
            phase = self._open(BreakerEvent.PROBE_LATE, reason, late)
        if phase.until is not None and now >= phase.until:
            phase = self._change(BreakerEvent.WAITED, phase.reason, now)
        return phase

    # ---- who may pass

    def passes(self, phase: Phase) -> bool:
        if phase.state is BreakerState.HALF_OPEN:
            return phase.ring.total + len(phase.probes) < self.rules.half_open_calls
        return phase.passes

    def wait(self, phase: Phase, now: float) -> float | None:
        """Seconds until it is worth asking again, None if nobody knows."""
        if phase.state is BreakerState.HALF_OPEN:
            return min(_PROBING, self._late(phase) - now)
        return None if phase.until is None else phase.until - now

    def retry_after(self, now: float) -> float | None:
        """The same for whoever only wants to know: 0 if a call would be let through now."""
        phase = self.move_to(now)
        return 0.0 if self.passes(phase) else self.wait(phase, now)

    def refuse(self, phase: Phase, now: float) -> float | None:
        """Count it. Returns the seconds until it is worth asking again."""
        self.refused += 1
        wait = self.wait(phase, now)
        told = {"state": phase.state.value, "reason": phase.reason, "retry_after": wait}
        self._news.add("breaker_refused", told)
        return wait

    # ---- what calls lead to

    def fails(self, number: int) -> bool:
        """Whether too many of the last calls failed or were slow; the newest of them was the `number`th to begin."""
        phase, rules = self.phase, self.rules
        ring = phase.ring
        if ring.total < rules.min_calls or not rules.bad(ring, ring.total):
            return False
        return rules.slowed(ring) or self._failing(phase, number)

    def trip(self, now: float) -> None:
        """Open because of that."""
        self._open(BreakerEvent.TRIPPED, self.rules.complaint(self.phase.ring, "calls"), now)

    def _failing(self, phase: Phase, number: int) -> bool:
        """Whether so many would have failed if all that are under way went well; or, where too many are under way to
        tell, so many of those that began together."""
        rate = self.rules.failure_rate
        if phase.ring.failures / (phase.ring.total + phase.under_way) >= rate:
            return True
        return phase.cohorts.share(number, phase.begun) >= rate

    def judge_probes(self, now: float) -> None:
        """Decide as on the whole batch, once what is still out could not change it."""
        ring, rules = self.phase.ring, self.rules
        if rules.bad(ring, rules.half_open_calls):
            self._open(BreakerEvent.PROBES_FAILED, rules.complaint(ring, "probes"), now)
        elif rules.good(ring, rules.half_open_calls - ring.total):
            self._change(BreakerEvent.PROBES_PASSED, "the probes went well", now)
            self._span = rules.open_for

    # ---- by hand

    def command(self, event: BreakerEvent, reason: str, now: float) -> None:
        self.move_to(now)
        self._change(event, reason, now)
        self._span = self.rules.open_for

    def hold_open(self, seconds: float, now: float) -> None:
        """Be open for so long, at least."""
        phase = self.move_to(now)
        if phase.until is None:
            self._change(BreakerEvent.HELD, "held open for another process", now, seconds)
        else:
            phase.until = max(phase.until, now + seconds)

    # ---- looking

    def counts(self, now: float) -> BreakerCounts:
        phase = self.move_to(now)
        ring = phase.ring
        ring.move_to(now)
        return BreakerCounts(
            state=phase.state,
            calls=ring.total,
            failures=ring.failures,
            slow=ring.slow,
            under_way=phase.under_way,
            probes=len(phase.probes),
            refused=self.refused,
            generation=phase.number,
        )

    # ---- within

    def _late(self, phase: Phase) -> float:
        """When the oldest of the probes will have been out for too long."""
        return min(phase.probes.values(), default=math.inf) + self.rules.half_open_wait

    def _open(self, event: BreakerEvent, reason: str, now: float) -> Phase:
        rules = self.rules
        seconds = self._span * (1 + rules.jitter * (2 * self._random() - 1))
        self._span = min(rules.max_open, self._span * rules.growth)
        return self._change(event, reason, now, seconds)

    def _change(self, event: BreakerEvent, reason: str, now: float, seconds: float | None = None) -> Phase:
        """Go where the table says; `seconds` is for how long, where that is open."""
        old = self.phase
        state = TRANSITIONS.get((old.state, event))
        if state is None:
            return old
        until = None if seconds is None else now + seconds
        self.phase = new = Phase(state, old.number + 1, self._ring(state), Cohorts(self.rules.cohort), reason, until)
        told = {"from": old.state.value, "to": state.value, "reason": reason, "open_for": seconds}
        self._news.add("breaker_state", told)
        return new

    def _ring(self, state: BreakerState) -> Ring:
        if state is BreakerState.HALF_OPEN:
            return CountRing(self.rules.half_open_calls)
        if state in (BreakerState.OPEN, BreakerState.FORCED_OPEN):
            return self.phase.ring
        return self.rules.window.ring()
