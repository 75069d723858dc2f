"""What a rate limiter may give away now, and when it may give more: token buckets that are taken together.

    level ▲ capacity ─────╮     ╭───        take      all the buckets, or none
          │               │   ╱             adjust    back (a refund), or more (a debt)
        0 ┼───────────────┼─╱───── now      clamp     the server says that less is left
          │               ╰ take            drain     the server said 429: nothing until then, then slowly

No I/O, no clock and no lock in here: `now` is an argument, in seconds of any clock that never goes back.

A bucket is one number, the time at which it was (or will be) empty: its level is `(now - zero) · rate`, at most the
capacity, and negative while `zero` lies ahead. This is the generic cell rate algorithm in its form of virtual
scheduling (ITU-T I.371, annex A), so there is nothing to refill, and a jump of the clock by hours fills it and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = [
    "INPUT",
    "OUTPUT",
    "QUANTITIES",
    "REQUESTS",
    "TOKENS",
    "Buckets",
    "Need",
    "ServerLimits",
    "negative",
    "total",
]

REQUESTS: Final = 0
TOKENS: Final = 1  # input and output together
INPUT: Final = 2
OUTPUT: Final = 3
QUANTITIES: Final = ("requests", "tokens", "input_tokens", "output_tokens")

Need: TypeAlias = tuple[int, int, int, int]  # how much of each quantity, in their order

_SLACK: Final = 1e-6  # a timer may come a little early, and floats are not exact: so many seconds are no wait
_LONGEST: Final = 86_400.0  # a server that wants us to wait longer than a day is asked again after a day
_DOUBLING: Final = 0.5
_ONCE: Final = 1.0  # seconds in which refusals are one event, whatever their number
_RAMP_ENDS: Final = 10.0  # by then a million requests may have gone


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the headers of an answer say is left; None where they say nothing. Resets are seconds from now."""

    requests_remaining: float | None = None
    requests_reset: float | None = None
    tokens_remaining: float | None = None
    tokens_reset: float | None = None
    input_tokens_remaining: float | None = None
    input_tokens_reset: float | None = None
    output_tokens_remaining: float | None = None
    output_tokens_reset: float | None = None

    def each(self) -> Iterator[tuple[int, float, float | None]]:
        """The quantities it speaks of: which, how much of it is left, and when there will be more."""
        told = (
            (self.requests_remaining, self.requests_reset),
            (self.tokens_remaining, self.tokens_reset),
            (self.input_tokens_remaining, self.input_tokens_reset),
            (self.output_tokens_remaining, self.output_tokens_reset),
        )
        for quantity, (remaining, reset) in enumerate(told):
            if remaining is not None and not math.isnan(remaining):
                yield quantity, max(0.0, remaining), reset


class _Bucket:
    """One quantity that we were told the rate of."""

    __slots__ = ("before", "capacity", "full", "per", "quantity", "zero")

    def __init__(self, quantity: int, per_minute: float, burst: float) -> None:
        self.quantity = quantity
        self.capacity = per_minute * burst
        self.per = 60.0 / per_minute  # seconds until there is one more
        self.full = 60.0 * burst  # seconds from empty to full
        self.zero = self.before = -math.inf  # now, and before the last taking

    def level(self, now: float) -> float:
        return min(self.capacity, (now - self.zero) / self.per)

    def when(self, amount: float, start: float) -> float:
        """The time from which on that much is there, `start` or later."""
        return max(start, max(self.zero, start - self.full) + amount * self.per)

    def clamp(self, level: float, now: float) -> bool:
        """Hold no more than `level` at `now`. True where at least one whole unit was taken away."""
        lost = self.level(now) - level
        if lost > 0:
            self.zero = now - level * self.per
        return lost >= 1


class _Told:
    """A quantity whose rate nobody configured, but of which the server says how much is left until some time."""

    __slots__ = ("left", "remaining", "until")

    def __init__(self, remaining: float, until: float) -> None:
        self.remaining = self.left = remaining
        self.until = until


class Buckets:
    """Up to four buckets, and what the server has said. Amounts are 0 or more.

    A need of nothing waits, too, for a bucket in debt: whoever counts tokens only afterwards is limited as well.
    """

    __slots__ = (
        "_buckets",
        "_grown",
        "_hold",
        "_last",
        "_ramp",
        "_slowed",
        "_start",
        "_told",
        "_watched",
        "counts_tokens",
        "free",
    )

    def __init__(self, per_minute: tuple[float | None, float | None, float | None, float | None], burst: float) -> None:
        self._buckets = [_Bucket(kind, rate, burst) for kind, rate in enumerate(per_minute) if rate is not None]
        self.counts_tokens = any(bucket.quantity != REQUESTS for bucket in self._buckets)
        self._told: dict[int, _Told] = {}
        self._hold = -math.inf
        self._watched = False  # whether the server has said anything that still counts
        self.free = not self._buckets  # nothing limits anything, so there is no need to ask
        self._last: Need = (1, 0, 0, 0)
        self._ramp: float | None = None  # when the slow start began
        self._grown = 0  # how many it has let through
        self._start = 1.0  # how many more when they double first
        self._slowed = -math.inf  # when it was told to

    def take(self, need: Need, now: float) -> bool:
        """Take it all if it is there now."""
        if self._watched and not self._server_allows(need, now):
            return False
        latest = now + _SLACK
        for bucket in self._buckets:
            bucket.before = zero = bucket.zero
            if zero < (full := now - bucket.full):  # what is full does not overflow
                zero = full
            bucket.zero = zero = zero + need[bucket.quantity] * bucket.per
            if zero > latest:
                self._put_back(bucket)
                return False
        self._last = need
        if self._watched:
            self._taken(need, now)
        return True

    def when(self, need: Need, now: float, *, ahead: int = 0) -> float:
        """The earliest time at which that much could be taken, `now` if it could at once; `ahead` is how many requests
        it consists of, beside the last one."""
        start = when = max(now, self._hold)
        for bucket in self._buckets:
            when = max(when, bucket.when(need[bucket.quantity], start))
        for quantity, told in self._told.items():
            if need[quantity] > told.left or told.left < 1:
                when = max(when, told.until)
        if self._ramp is not None:
            when = max(when, self._ramp_allows(self._grown + ahead + 1))
        return when

    def above_capacity(self, need: Need) -> tuple[str, int, float] | None:
        """The quantity of which so much is never there, how much is asked for, and how much there ever is."""
        for bucket in self._buckets:
            if need[bucket.quantity] > bucket.capacity:
                return QUANTITIES[bucket.quantity], need[bucket.quantity], bucket.capacity
        return None

    def adjust(self, change: Need, now: float) -> None:
        """Take so much more of each quantity, even into debt; what is negative is given back, whenever that is."""
        for bucket in self._buckets:
            if more := change[bucket.quantity]:
                if more > 0 and bucket.zero < now - bucket.full:
                    bucket.zero = now - bucket.full
                bucket.zero += more * bucket.per

    def give_back(self, need: Need) -> None:
        """It was never sent."""
        for bucket in self._buckets:
            bucket.zero -= need[bucket.quantity] * bucket.per
        for quantity, told in self._told.items():
            told.left = min(told.remaining, told.left + need[quantity])

    def observe(self, limits: ServerLimits, now: float) -> dict[str, float]:
        """Believe the server where it says that less is left. Returns what is held at that for now.

        A bucket's level is lowered to what remains and never raised. The level is already without the requests under
        way, which the server may not have seen yet, so they are not taken off a second time. A quantity without a
        bucket is held at what the server's last word was, until its reset; settling does not change that. Where nothing
        of it is left, all wait, even those who say that they need none: they may only not have counted.
        """
        held: dict[str, float] = {}
        ours = {bucket.quantity: bucket for bucket in self._buckets}
        for quantity, remaining, reset in limits.each():
            if quantity in ours:
                if ours[quantity].clamp(remaining, now):
                    held[QUANTITIES[quantity]] = remaining
            elif reset is not None and 0 < reset < math.inf and remaining < math.inf:
                self._watch(True)
                self._told[quantity] = _Told(remaining, now + min(reset, _LONGEST))
                if remaining < 1:
                    held[QUANTITIES[quantity]] = remaining
            else:
                self._told.pop(quantity, None)
        return held

    def drain(self, seconds: float, now: float, flow: float = 0.0) -> float:
        """Nothing for so long, or until an earlier drain ends if that is later. Returns how long that is.

        Afterwards no bucket holds more than the last request took, so that the crowd which has gathered goes at the
        rate and not in one burst. Where no rate is known, requests start again at half of `flow`, the calls that were
        answered a second, but at least with one, and go at twice that rate every half second (TCP's slow start, RFC
        5681 §3.1, by time as answers may take minutes). Refusals of one second, and those that come before the drain
        is over, are of one crowd and halve once.
        """
        wait = min(seconds, _LONGEST) if seconds > 0 else 0.0  # NaN is no wait
        held, self._hold = self._hold, max(self._hold, now + wait)
        self._watch(True)
        for bucket in self._buckets:
            one = min(max(1, self._last[bucket.quantity]), bucket.capacity)
            bucket.zero = max(bucket.zero, self._hold - one * bucket.per)
        if not self._buckets:
            self._slow_down(held, flow, now)
        return self._hold - now

    def levels(self, now: float) -> tuple[float, float, float, float]:
        """What there is of each quantity now, infinite where nobody limits it, negative in debt."""
        levels = [math.inf] * len(QUANTITIES)
        for quantity, told in self._told.items():
            if now < told.until:
                levels[quantity] = told.left
        for bucket in self._buckets:
            levels[bucket.quantity] = bucket.level(now)
        requests, tokens, asked, answer = levels
        return requests, tokens, asked, answer

    def held(self, now: float) -> float:
        """Seconds for which nothing is granted because of a drain."""
        return max(0.0, self._hold - now)

    def _put_back(self, last: _Bucket) -> None:
        """This one had not enough: undo what was taken, in it and in those before it."""
        for bucket in self._buckets:
            bucket.zero = bucket.before
            if bucket is last:
                return

    def _server_allows(self, need: Need, now: float) -> bool:
        """Whether what the server has said lets it pass: its drain, the slow start after that, and its last word on
        what has no bucket."""
        if now < self._hold - _SLACK:
            return False
        for quantity in [quantity for quantity, told in self._told.items() if told.until <= now + _SLACK]:
            del self._told[quantity]
        if any(need[quantity] > told.left or told.left < 1 for quantity, told in self._told.items()):
            return False
        return self._ramp is None or self._ramp_allows(self._grown + 1) <= now + _SLACK

    def _taken(self, need: Need, now: float) -> None:
        """Count it against what the server has said."""
        for quantity, told in self._told.items():
            told.left -= need[quantity]
        self._grown += 1
        if self._ramp is not None and now > self._ramp + _RAMP_ENDS:
            self._ramp = None
        self._watch(bool(self._told) or self._ramp is not None)

    def _watch(self, watched: bool) -> None:
        self._watched, self.free = watched, not watched and not self._buckets

    def _slow_down(self, held: float, flow: float, now: float) -> None:
        """Start slowly after the drain; the one before it went until `held`."""
        if self._ramp is not None and (now < held or now < self._slowed + _ONCE):
            self._ramp += self._hold - max(now, held)  # the same start, later
            return
        self._ramp, self._grown = self._hold, 0
        self._start, self._slowed = max(1.0, flow / 2 * _DOUBLING / math.log(2)), now

    def _ramp_allows(self, number: int) -> float:
        """When the slow start lets so many have gone."""
        assert self._ramp is not None
        after = _DOUBLING * math.log2(1 + (number - 1) / self._start)
        return self._ramp + min(_RAMP_ENDS, after)


def total(one: Need, other: Need) -> Need:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def negative(need: Need) -> Need:
    return -need[0], -need[1], -need[2], -need[3]
