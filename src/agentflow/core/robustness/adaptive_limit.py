"""How many calls may be under way at once, learnt from how they end.

    Fixed(8)          as many as you say
    AIMD()            remote models: one more for each limitful of successes, a tenth fewer on a 429, 529 or time-out
    Gradient2()       local models: fewer as soon as the latency rises above what it usually is

A limit is a plain calculation: the load shedder calls it under its lock, the time is an argument. Remote models get
AIMD since the length of an answer says more about their latency than their load does. None of them grows while fewer
than half of the places are in use, for then nothing is learnt about the other half.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

__all__ = ["AIMD", "Fixed", "Gradient2", "Limit"]

_BEST_GRADIENT: Final = 1.0
_WORST_GRADIENT: Final = 0.5  # one window never takes more than smoothing × this
_WARM_UP: Final = 10  # windows of which the usual latency starts as the plain mean
_WINDOW_SAMPLES: Final = 10
_PROBE_SAMPLES: Final = 30  # a baseline of ten would be off by a third too often
_SETTLING: Final = 3.0  # times the usual latency
_SHRINK: Final = 0.9
_FEW: Final = 10  # calls: what befalls fewer says little of how many there may be


class Limit(Protocol):
    """What a load shedder asks. Neither method may raise, wait, or look at another clock."""

    @property
    def limit(self) -> int:
        """Calls that may be under way at once, at least 1."""
        ...

    def succeeded(self, now: float, seconds: float, in_flight: int) -> None:
        """A call ended well: `seconds` is its latency, `in_flight` counts it still."""
        ...

    def overloaded(self, now: float, began: float, in_flight: int) -> None:
        """A call that began at `began` ended with a sign of overload."""
        ...


class Fixed:
    """Always the same limit."""

    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit: int = _at_least("limit", limit, 1)

    def succeeded(self, now: float, seconds: float, in_flight: int) -> None: ...

    def overloaded(self, now: float, began: float, in_flight: int) -> None: ...


class AIMD:
    """Additive increase, multiplicative decrease (Chiu and Jain, 1989): swings between 0.9 and 1.0 of what is allowed.

    A sign of overload multiplies the limit by `decrease`, at most once in `window` seconds, and only if the call began
    after the last decrease: one that had begun before says nothing about the lower limit. After the window as many
    successes as the limit counts raise it by `increase`. Until the first sign of overload each success raises it by 1,
    so that it doubles (TCP's slow start, RFC 5681): from 20 to 1,000 takes 980 successes instead of half a million.
    `slow_start=False` leaves that out.

    Where fewer than half of the places were in use, a sign of overload says that these were too many already: it is
    they, or 10 if they were fewer, that are multiplied by `decrease` (TCP's FlightSize, RFC 5681 §3.1), and the way up
    from there is a slow start again. Or a limit of 1,000 would need half a minute of overload before it limited at all.
    """

    __slots__ = (
        "_decrease",
        "_exact",
        "_increase",
        "_lowered",
        "_maximum",
        "_minimum",
        "_slow_start",
        "_starting",
        "_successes",
        "_window",
        "limit",
    )

    def __init__(
        self,
        *,
        initial: int = 20,
        minimum: int = 1,
        maximum: int = 1000,
        decrease: float = 0.9,
        increase: float = 1.0,
        window: float = 1.0,
        slow_start: bool = True,
    ) -> None:
        _check_order(minimum, initial, maximum)
        if not 0.0 < decrease < 1.0:
            raise ValueError(f"decrease is a factor between 0 and 1, not {decrease!r}")
        self._increase = _positive("increase", increase)
        self._window = _positive("window", window)
        self._decrease = decrease
        self._minimum, self._maximum = minimum, maximum
        self._slow_start = self._starting = slow_start
        self._exact = float(initial)
        self._successes = 0
        self._lowered = -math.inf
        self.limit: int = initial

    def succeeded(self, now: float, seconds: float, in_flight: int) -> None:
        limit = self.limit
        if in_flight * 2 < limit or limit >= self._maximum or now - self._lowered < self._window:
            return
        self._successes += 1
        if self._starting:
            self._set(self._exact + 1.0)
        elif self._successes >= limit:
            self._set(self._exact + self._increase)

    def overloaded(self, now: float, began: float, in_flight: int) -> None:
        if began < self._lowered or now - self._lowered < self._window:
            return
        self._lowered = now
        used = max(in_flight, _FEW)
        idle = used * 2 < self.limit
        self._starting = idle and self._slow_start
        self._set((used if idle else self.limit) * self._decrease)

    def _set(self, exact: float) -> None:
        self._successes = 0
        self._exact = min(self._maximum, max(self._minimum, exact))
        self.limit = int(self._exact)


class Gradient2:
    """Follows the latency: long-term mean ÷ the mean of the last window, allowing for `tolerance` and a short queue.

        gradient = clamp(tolerance × usual ÷ latest, 0.5, 1)
        limit    = (1 − smoothing) × limit + smoothing × (gradient × limit + queue)

    After Netflix' Gradient2Limit (github.com/Netflix/concurrency-limits); a window lasts `window` seconds and 10
    samples. The latency must not hold time spent in a queue of ours; for a model give the time to the first token. The
    usual latency is a mean over `long_window` windows (exponential), and falls by a tenth with each window that needed
    less than half of it.

    Two things differ. A mean that is always taken under load takes load for normal and lets the limit creep up, so
    after each `probe` windows under load (10 at first, and after a surprise) one is measured at half the limit, and its
    latency is the usual one from then on, while windows with a gradient below 1 teach nothing. `probe=0` leaves that
    out. And a sign of overload (429, 529, time-out) counts as for AIMD: a tenth less, once a window. With `c` workers
    and a constant load the limit comes to rest near tolerance × c + queue, or 4 × queue if that is more.
    """

    __slots__ = (
        "_count",
        "_counted_from",
        "_exact",
        "_factor",
        "_ignored_before",
        "_lowered",
        "_maximum",
        "_minimum",
        "_opened",
        "_peak",
        "_probe",
        "_probing",
        "_queue",
        "_smoothing",
        "_sum",
        "_tolerance",
        "_until_probe",
        "_usual",
        "_window",
        "_windows",
        "limit",
    )

    def __init__(
        self,
        *,
        initial: int = 20,
        minimum: int = 1,
        maximum: int = 200,
        tolerance: float = 1.5,
        smoothing: float = 0.2,
        long_window: int = 600,
        queue: float = 4,
        window: float = 1.0,
        probe: int = 100,
    ) -> None:
        _check_order(minimum, initial, maximum)
        if not 1.0 <= tolerance < math.inf:
            raise ValueError(f"tolerance is a finite factor, 1 or more, not {tolerance!r}")
        if not 0.0 < smoothing <= 1.0:
            raise ValueError(f"smoothing is above 0 and at most 1, not {smoothing!r}")
        self._tolerance, self._smoothing = tolerance, smoothing
        self._factor = 2.0 / (_at_least("long_window", long_window, 1) + 1)
        self._queue = _positive("queue", queue)
        self._window = _positive("window", window)
        self._probe = _at_least("probe", probe, 0)
        self._minimum, self._maximum = minimum, maximum
        self._exact = float(initial)
        self.limit: int = initial
        self._usual = 0.0
        self._windows = 0
        self._until_probe = min(self._probe, _WARM_UP)
        self._probing = False
        self._lowered = self._ignored_before = self._counted_from = -math.inf
        self._opened = 0.0
        self._sum, self._count, self._peak = 0.0, 0, 0

    def succeeded(self, now: float, seconds: float, in_flight: int) -> None:
        if not 0.0 < seconds < math.inf or now - seconds < self._ignored_before or now < self._counted_from:
            return
        if not self._count:
            self._opened = now
        self._sum += seconds
        self._count += 1
        self._peak = max(self._peak, in_flight)
        enough = _PROBE_SAMPLES if self._probing else _WINDOW_SAMPLES
        if self._count >= enough and now - self._opened >= self._window:
            self._close(now)

    def overloaded(self, now: float, began: float, in_flight: int) -> None:
        if began >= self._lowered and now - self._lowered >= self._window:
            self._lowered = now
            self._set(int(self._exact) * _SHRINK)

    def _close(self, now: float) -> None:
        """A window is over."""
        latest, peak = self._sum / self._count, self._peak
        self._sum, self._count, self._peak = 0.0, 0, 0
        if self._probing:
            self._end_probe(latest)
            return
        self._windows += 1
        gradient = self._gradient(latest)
        if gradient == _BEST_GRADIENT or not self._probe or self._windows <= _WARM_UP:
            self._learn(latest)
        if peak * 2 >= self._exact:
            wanted = gradient * self._exact + self._queue
            self._set(self._exact + self._smoothing * (wanted - self._exact))
            self._maybe_probe(now)

    def _gradient(self, latest: float) -> float:
        if not self._usual:
            return _BEST_GRADIENT
        return min(_BEST_GRADIENT, max(_WORST_GRADIENT, self._tolerance * self._usual / latest))

    def _learn(self, latest: float) -> None:
        factor = max(self._factor, 1.0 / self._windows) if self._windows <= _WARM_UP else self._factor
        self._usual += factor * (latest - self._usual)
        if self._usual > 2.0 * latest:
            self._usual *= _SHRINK

    def _maybe_probe(self, now: float) -> None:
        self._until_probe -= 1
        if self._probe and self._until_probe <= 0:
            self._probing = True
            # What began under the whole limit says nothing about the half; and of what begins now the short ends first.
            self._ignored_before, self._counted_from = now, now + _SETTLING * self._usual
            self._set(self._exact)

    def _end_probe(self, latest: float) -> None:
        surprised = not _SHRINK < latest / self._usual < 1.0 / _SHRINK
        self._until_probe = min(self._probe, _WARM_UP) if surprised else self._probe
        self._probing = False
        self._usual = latest
        self._set(self._exact)

    def _set(self, exact: float) -> None:
        self._exact = min(self._maximum, max(self._minimum, exact))
        self.limit = max(self._minimum, int(self._exact / 2)) if self._probing else int(self._exact)


def _at_least(name: str, value: int, bound: int) -> int:
    if value < bound:
        raise ValueError(f"{name} is at least {bound}, not {value!r}")
    return value


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} is finite and above 0, not {value!r}")
    return value


def _check_order(minimum: int, initial: int, maximum: int) -> None:
    _at_least("minimum", minimum, 1)
    if not minimum <= initial <= maximum:
        raise ValueError(f"minimum ≤ initial ≤ maximum, not {minimum!r}, {initial!r}, {maximum!r}")
