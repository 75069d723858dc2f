"""What a rate limiter gives away: buckets and slots, who waits for them, and what is taken until its call has ended.

    reservation = allowance.take(need)           None where that would mean to wait
    reservation.settle(input_tokens=812)         ── or cancel(), or release(): the first of them counts

All of it is under one lock, for which no end ever waits (see turn). The queue is strictly in the order of coming.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from agentflow.core.robustness.alarm import Alarm
from agentflow.core.robustness.buckets import Buckets, Need, negative, total
from agentflow.core.robustness.flow_rate import FlowRate
from agentflow.core.robustness.turn import Turn
from agentflow.core.robustness.waiting import Waiter

__all__ = ["Allowance", "Available", "Queued", "Reservation"]

_NOTHING: Final = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Available:
    """What could be taken now if nobody waited; infinite where there is no limit, negative in debt. For `held` seconds
    nothing is granted at all."""

    requests: float
    tokens: float
    input_tokens: float
    output_tokens: float
    slots: float
    held: float


class Reservation:
    """What a call took. The first of `settle`, `cancel` and `release` counts; all of them may be called anywhere.

    `waited` is the seconds that it took to be granted. Made by an allowance, and without an `__init__`, which would
    take as long again.
    """

    __slots__ = ("_allowance", "ended", "need", "waited")

    _allowance: Allowance
    need: Need
    waited: float
    ended: bool

    def settle(
        self, *, input_tokens: int | None = None, output_tokens: int | None = None, tokens: int | None = None
    ) -> None:
        """The call has ended and took this much; None is as much as was reserved. No tokens at all: it was refused.

        `tokens` is the sum, for those who know no more: what it differs by is put down to the output where output was
        reserved, else to the input.
        """
        allowance = self._allowance
        if (input_tokens != 0 or output_tokens != 0) and not self.ended:
            flow = allowance.flow
            flow.count = count = flow.count + 1  # `flow.ended()`, and a call less
            if not count & 15:
                flow.look()
        if not allowance.counts_tokens:
            allowance.end(self, None)
            return
        _, _, asked, answer = self.need
        if tokens is not None and input_tokens is None and output_tokens is None:
            input_tokens = min(asked, tokens) if answer else tokens
            output_tokens = tokens - input_tokens
        more_in = 0 if input_tokens is None else input_tokens - asked
        more_out = 0 if output_tokens is None else output_tokens - answer
        if more_in < -asked or more_out < -answer:  # less than nothing is nothing
            more_in, more_out = max(more_in, -asked), max(more_out, -answer)
        allowance.end(self, (0, more_in + more_out, more_in, more_out) if more_in or more_out else None)

    def release(self) -> None:
        """It was sent, and nobody knows what it took: as much as was reserved."""
        self._allowance.end(self, None)

    def cancel(self) -> None:
        """It was never sent: all is given back."""
        self._allowance.cancel(self)


class Queued(Waiter[Reservation]):
    """One that waits, for what, and since when."""

    __slots__ = ("loop", "need", "since")

    def __init__(self, need: Need, since: float) -> None:
        super().__init__()
        self.loop = get_running_loop()
        self.need = need
        self.since = since


class Allowance:
    """`slots` is how many may hold a reservation at once. What says nothing of a lock is called under `turn`."""

    __slots__ = ("alarm", "buckets", "counts_tokens", "flow", "in_use", "needed", "now", "queue", "slots", "turn")

    def __init__(self, buckets: Buckets, slots: float, now: Callable[[], float]) -> None:
        self.buckets = buckets
        self.slots = slots
        self.now = now
        self.counts_tokens = buckets.counts_tokens
        self.in_use = 0
        self.flow = FlowRate(now)  # of answers
        self.queue: OrderedDict[Queued, None] = OrderedDict()  # in order; anyone may leave in constant time
        self.needed: Need = _NOTHING  # by all in the queue
        self.alarm = Alarm(self._rung)
        self.turn = Turn()

    def take(self, need: Need) -> Reservation | None:
        """Take it now; None where that would mean to wait, or to overtake somebody who waits. Takes the lock."""
        turn, buckets, now = self.turn, self.buckets, self.now
        turn.lock.acquire()  # by hand, as `with` costs twice as much
        try:
            if self.queue or self.in_use >= self.slots:
                return None
            if not buckets.free and not buckets.take(need, now()):
                return None
            self.in_use += 1
        finally:
            turn.lock.release()
            if turn.left:
                turn.catch_up()
        reservation = Reservation()
        reservation._allowance = self
        reservation.need = need
        reservation.waited = 0.0
        reservation.ended = False
        return reservation

    def available(self) -> Available:
        """What there is at this moment. Takes the lock."""
        with self.turn:
            now = self.now()
            levels = self.buckets.levels(now)
            return Available(*levels, self.slots - self.in_use, self.buckets.held(now))

    # ---- the end of a reservation: only the first counts, and none waits for the lock

    def end(self, reservation: Reservation, change: Need | None) -> None:
        """The call has ended; it took more by `change`, or less."""
        turn = self.turn
        if turn.lock.locked():
            turn.soon(partial(self._end, reservation, change))
            return
        turn.lock.acquire()
        try:
            if self.queue or reservation.ended:
                self._end(reservation, change)
            else:  # the same, and a call less
                reservation.ended = True
                self.in_use -= 1
                if change is not None:
                    self.buckets.adjust(change, self.now())
        finally:
            turn.lock.release()
            if turn.left:
                turn.catch_up()

    def cancel(self, reservation: Reservation) -> None:
        """Nothing was sent."""
        self.turn.soon(partial(self._cancel, reservation))

    def _end(self, reservation: Reservation, change: Need | None) -> None:
        if reservation.ended:
            return
        reservation.ended = True
        self.in_use -= 1
        if change is not None:
            self.buckets.adjust(change, self.now())
        if self.queue:
            self.pump()

    def _cancel(self, reservation: Reservation) -> None:
        if not reservation.ended:
            self.buckets.give_back(reservation.need)
            self._end(reservation, None)

    # ---- the queue

    def predicted(self, need: Need) -> float:
        """How long one who comes now will wait, at least: for all those in front and itself. When a slot comes free
        nobody knows."""
        now = self.now()
        return self.buckets.when(total(self.needed, need), now, ahead=len(self.queue)) - now

    def join(self, need: Need) -> Queued:
        waiter = Queued(need, self.now())
        self.queue[waiter] = None
        self.needed = total(self.needed, need)
        self.pump()
        return waiter

    def leave(self, waiter: Queued) -> None:
        if waiter in self.queue:
            del self.queue[waiter]
            self.needed = total(self.needed, negative(waiter.need))

    def pump(self) -> None:
        """Grant in order whatever can be granted, and have the rest looked at when the first of them can be."""
        now = self.now()
        while self.queue:
            head = next(iter(self.queue))
            if head.loop.is_closed():  # its task is gone with it
                self.leave(head)
            elif self.in_use >= self.slots:
                break  # whoever frees a slot comes by here
            elif self.buckets.take(head.need, now):
                self._grant(head, now)
            else:
                self.alarm.set(head.loop, self.buckets.when(head.need, now), now)
                return
        self.alarm.clear()

    def withdraw(self, waiter: Waiter[Reservation]) -> None:
        """Its caller has left: out of the queue with it, or on with what it was granted. Does not wait for the lock."""
        if waiter.value is not None:
            self.cancel(waiter.value)
        elif isinstance(waiter, Queued):
            self.turn.soon(partial(self._without, waiter))

    def _without(self, waiter: Queued) -> None:
        if waiter.value is not None:  # granted a moment ago
            self._cancel(waiter.value)
        else:
            self.leave(waiter)
            self.pump()

    def _grant(self, head: Queued, now: float) -> None:
        self.leave(head)
        reservation = Reservation()
        reservation._allowance = self
        reservation.need = head.need
        reservation.waited = max(0.0, now - head.since)
        reservation.ended = False
        if head.grant(reservation):
            self.in_use += 1
        else:
            self.buckets.give_back(head.need)

    def _rung(self, ring: int) -> None:
        with self.turn:
            self.alarm.rung(ring)
            self.pump()
