"""How often which values came: buckets of constant relative width, so a percentile is right within 1 %.

    value    0.5 ┊        1.0 ┊                2.0 ┊                                4.0
             ├┬┬┬┼┬┬┬┬┬┬┬┬┬┬┬┬┼┬─┬─┬─┬─┬─┬─┬─┬─┬─┬┼──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┤
             64 buckets of equal width between a power of two and the next

    lengths = Distribution.of([0.12, 0.34, 0.2])
    lengths.quantile(0.99)                       # within 0.8 % of the value of that rank
    lengths.merged(others)                       # exactly what one histogram of both would be

This is the log-linear bucketing of HdrHistogram, with the binary exponent of the number as its logarithm. A bucket is
at most 1/64 of its lower edge wide, and its middle stands for it, so the error is at most 1/128 = 0.79 % of the value.
Only buckets that have something in them are kept. What is closer to zero than 2⁻⁴⁰ (10⁻¹²) counts as zero, what is
larger than 2⁶³ as that; `minimum`, `maximum` and `total` are exact.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["EMPTY", "ERROR", "SMALLEST", "Distribution", "bucket_of", "middle"]

ERROR: Final = 1 / 128
"""The largest relative error of a quantile."""

SMALLEST: Final = 2.0**-40
_LARGEST: Final = math.nextafter(2.0**63, 0.0)
_BIAS: Final = 40  # so that the exponent of the smallest value, which frexp gives as -39, makes a number above 0


def bucket_of(value: float) -> int:
    """The number of the bucket: 0 for zero, and it grows with the value; that of `-value` is the negative of it."""
    if value < 0.0:
        return -bucket_of(-value)
    if value < SMALLEST:
        return 0
    mantissa, exponent = math.frexp(min(_LARGEST, value))
    return (exponent + _BIAS << 6) + int(mantissa * 128.0) - 64


def middle(bucket: int) -> float:
    """The value that stands for all of a bucket."""
    if bucket == 0:
        return 0.0
    octave, step = divmod(abs(bucket), 64)
    return math.copysign(math.ldexp(step + 64.5, octave - _BIAS - 7), bucket)


def _shorts() -> array[int]:
    return array("h")


def _counts() -> array[int]:
    return array("Q")


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values that were counted: how many, their sum, the extremes, and how many fell into which bucket, in order."""

    count: int = 0
    total: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    buckets: array[int] = field(default_factory=_shorts)
    counts: array[int] = field(default_factory=_counts)

    @staticmethod
    def of(values: Iterable[float]) -> Distribution:
        """The distribution of finite values."""
        kept = list(values)
        tally: dict[int, int] = {}
        for value in kept:
            bucket = bucket_of(value)
            tally[bucket] = tally.get(bucket, 0) + 1
        return Distribution.tallied(tally, sum(kept), min(kept, default=math.inf), max(kept, default=-math.inf))

    @staticmethod
    def tallied(tally: Mapping[int, int], total: float, minimum: float, maximum: float) -> Distribution:
        """Of counts by bucket, and what is known exactly."""
        order = sorted(tally)
        counts = array("Q", [tally[bucket] for bucket in order])
        return Distribution(sum(counts), total, minimum, maximum, array("h", order), counts)

    def merged(self, *others: Distribution) -> Distribution:
        """Of all the values together."""
        several = [each for each in (self, *others) if each.count]
        if len(several) < 2:
            return several[0] if several else self
        tally: dict[int, int] = {}
        for each in several:
            for bucket, count in zip(each.buckets, each.counts, strict=True):
                tally[bucket] = tally.get(bucket, 0) + count
        return Distribution.tallied(
            tally,
            sum([each.total for each in several]),
            min([each.minimum for each in several]),
            max([each.maximum for each in several]),
        )

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least this share (0 to 1) of all did not exceed; None where there is none."""
        if not self.count:
            return None
        rank = min(self.count, max(1, math.ceil(share * self.count)))
        if rank == self.count:
            return self.maximum
        if rank == 1:
            return self.minimum
        seen = 0
        for bucket, count in zip(self.buckets, self.counts, strict=True):
            seen += count
            if seen >= rank:
                return min(self.maximum, max(self.minimum, middle(bucket)))
        return self.maximum

    def up_to(self, bounds: Iterable[float]) -> tuple[int, ...]:
        """How many values did not exceed each bound. One that lies in the bucket of a bound counts as not exceeding it,
        so a value may be taken for one up to 1.6 % smaller."""
        sums = [0]
        for count in self.counts:
            sums.append(sums[-1] + count)
        return tuple([self._below(bound, sums) for bound in bounds])

    def _below(self, bound: float, sums: list[int]) -> int:
        if bound >= self.maximum:
            return self.count
        if not bound >= self.minimum:  # no number is not above any
            return 0
        return sums[bisect_right(self.buckets, bucket_of(bound))]


EMPTY: Final = Distribution()
