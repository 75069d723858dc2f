"""Are two sets of measurements different, and by how much? With what chance may do taken into account.

    compared(before, after)  ──▶  Comparison: a Difference a metric, each with interval, p and Holm's p

Requests that were the same (same plan, same data set, same seed) are compared in pairs, so that what a long prompt
costs cancels out. Requests beside each other share the server's good and bad moments, so whole batches of neighbours
are flipped, shuffled and drawn, not single ones: twenty at most, as in `percentiles`.

    means, paired      signs of the batches' differences are flipped (Fisher's randomisation test)
    means, unpaired    batches are dealt anew to the two sides (permutation test)
    percentiles        batches are drawn with replacement (bootstrap), the same for both sides where they are paired

Intervals are those of the bootstrap. The p-values of all metrics together are corrected by Holm's method (1979): the
chance to call any difference real where there is none is 5 % at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from agentflow.mcp.optimization.benchmark.measures import Measures
from agentflow.mcp.optimization.benchmark.percentiles import batches_of, quantile
from agentflow.mcp.optimization.benchmark.record import Record

__all__ = ["ALPHA", "METRICS", "Comparison", "Difference", "compared", "holm"]

ALPHA: Final = 0.05
_EFFORT: Final = 2_499
_DRAWS: Final = 0.4
_LEAST: Final = 8  # values on each side, below which nothing is said


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared. `p` is the percentile, None for the mean; `better` is -1 where less is better."""

    name: str
    value: Callable[[Measures, Record], float | None]
    p: float | None = None
    better: int = -1


def _quality(measures: Measures, record: Record) -> float | None:
    """The worst mark of an answer; an error's is 0."""
    if not measures.marks:
        return None
    if not record.answered:
        return 0.0
    return min((marks[record.index] for marks in measures.marks.values() if record.index in marks), default=None)


METRICS: Final = (
    # Means are of what came at all; what did not is counted by error_share, and infinitely late in the percentiles.
    Metric("mean.ttft", lambda measures, record: _finite(record.ttft)),
    Metric("p99.ttft", lambda measures, record: record.ttft, 0.99),
    Metric("mean.tpot", lambda measures, record: record.tpot),
    Metric("mean.e2e", lambda measures, record: _finite(record.e2e)),
    Metric("p99.e2e", lambda measures, record: record.e2e, 0.99),
    Metric("error_share", lambda measures, record: float(not record.answered)),
    Metric("good_share", lambda measures, record: float(measures.is_good(record)), better=1),
    Metric("quality", _quality, better=1),
    Metric("cost", lambda measures, record: record.cost),
)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of both sides. `change` is after minus before, `low` and `high` its 95 % interval; `p` is the chance
    of such a change where there is none, `holm` the same with all metrics counted in; None where too little is known.
    `verdict` is better, worse, or same ("same" where it may be chance)."""

    metric: str
    before: float
    after: float
    change: float
    low: float
    high: float
    p: float
    holm: float
    better: int
    count: int

    @property
    def verdict(self) -> str:
        if self.holm >= ALPHA or self.change == 0.0:
            return "same"
        return "better" if self.change * self.better > 0.0 else "worse"

    @property
    def relative(self) -> float:
        """The change as a share of what was before."""
        return self.share(self.change)

    def share(self, change: float) -> float:
        """Any change as a share of what was before: infinite from nothing, all of it from what was infinite."""
        if not change:
            return 0.0
        if math.isinf(self.before):
            return math.copysign(1.0, change)
        return change / abs(self.before) if self.before else math.copysign(math.inf, change)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`before` and `after` are the names of the two; `paired` says whether request by request."""

    before: str
    after: str
    paired: bool
    differences: tuple[Difference, ...]

    def worse(self, tolerance: float = 0.0) -> list[Difference]:
        """What is worse by more than the share `tolerance`, and not by chance."""
        return [each for each in self.differences if each.verdict == "worse" and abs(each.relative) > tolerance]


def compared(before: Measures, after: Measures, *, paired: bool, dice: Random, effort: int = _EFFORT) -> Comparison:
    """`paired` where the same requests were made of both, told apart by their index. `effort` is how often signs are
    flipped or batches dealt; no p-value is below 1 / (effort + 1)."""
    chance = _Chance(paired, dice, effort)
    found = [difference for metric in METRICS if (difference := _difference(metric, before, after, chance)) is not None]
    corrected = holm([each.p for each in found])
    told = tuple([replace(each, holm=p) for each, p in zip(found, corrected, strict=True)])
    return Comparison(before.name, after.name, paired, told)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
    Scandinavian Journal of Statistics 1979)."""
    corrected = [1.0] * len(values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, values[index] * (len(values) - rank)))
        corrected[index] = least
    return corrected


# ---- one metric ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chance:
    paired: bool
    dice: Random
    effort: int


def _difference(metric: Metric, before: Measures, after: Measures, chance: _Chance) -> Difference | None:
    one, other = _values(metric, before), _values(metric, after)
    if chance.paired:
        both = [index for index in one if index in other]
        one, other = {index: one[index] for index in both}, {index: other[index] for index in both}
    if min(len(one), len(other)) < _LEAST:
        return None
    first, second = _Side(list(one.values()), metric.p), _Side(list(other.values()), metric.p)
    change = _minus(second.value, first.value)
    draws = sorted(_drawn(first, second, chance))
    tested = _flipped if chance.paired else _dealt
    p = tested(first, second, chance) if metric.p is None else _crossing(draws)
    return Difference(
        metric.name,
        first.value,
        second.value,
        change,
        quantile(draws, 0.025),
        quantile(draws, 0.975),
        p if change else 1.0,
        1.0,
        metric.better,
        min(len(one), len(other)),
    )


def _values(metric: Metric, measures: Measures) -> Mapping[int, float]:
    told = ((record.index, metric.value(measures, record)) for record in measures.counted)
    return {index: value for index, value in told if value is not None}


class _Side:
    """Values in the order of time, cut into batches, and their statistic under any weights of the batches."""

    __slots__ = ("_ordered", "_p", "sizes", "sums", "value")

    def __init__(self, values: Sequence[float], p: float | None) -> None:
        batches = batches_of([(value, 1) for value in values])
        self._p = p
        self.sums = [math.fsum(value for value, _ in batch) for batch in batches] if p is None else []
        self.sizes = [len(batch) for batch in batches]
        # From the largest on: a high percentile is found after few steps.
        self._ordered = sorted(((value, at) for at, batch in enumerate(batches) for value, _ in batch), reverse=True)
        self.value = self.under([1] * len(batches))

    def under(self, weights: Sequence[int]) -> float:
        count = sum(weight * size for weight, size in zip(weights, self.sizes, strict=True))
        if self._p is None:
            return math.fsum(weight * total for weight, total in zip(weights, self.sums, strict=True)) / count
        above = count - max(1, math.ceil(self._p * count - 1e-9))
        for value, at in self._ordered:
            above -= weights[at]
            if above < 0:
                return value
        return self._ordered[-1][0]


def _drawn(first: _Side, second: _Side, chance: _Chance) -> Iterator[float]:
    """The bootstrap's changes."""
    for _ in range(round(chance.effort * _DRAWS)):
        weights = _weights(len(first.sizes), chance.dice)
        others = weights if chance.paired else _weights(len(second.sizes), chance.dice)
        yield _minus(second.under(others), first.under(weights))


def _weights(count: int, dice: Random) -> list[int]:
    weights = [0] * count
    for at in dice.choices(range(count), k=count):
        weights[at] += 1
    return weights


def _crossing(draws: Sequence[float]) -> float:
    """Two-sided: how often the bootstrap's change is on the other side of zero."""
    below = sum(draw <= 0.0 for draw in draws)
    above = sum(draw >= 0.0 for draw in draws)
    return min(1.0, 2.0 * (min(below, above) + 1) / (len(draws) + 1))


def _flipped(first: _Side, second: _Side, chance: _Chance) -> float:
    apart = [other - one for one, other in zip(first.sums, second.sums, strict=True)]
    seen = abs(math.fsum(apart)) * (1.0 - 1e-12)
    extreme = 0
    for _ in range(chance.effort):
        bits = chance.dice.getrandbits(len(apart))
        flipped = sum([value if bits >> at & 1 else -value for at, value in enumerate(apart)])
        extreme += abs(flipped) >= seen
    return (extreme + 1) / (chance.effort + 1)


def _dealt(first: _Side, second: _Side, chance: _Chance) -> float:
    """Batches of both sides in one heap, dealt anew."""
    heap = list(zip([*first.sums, *second.sums], [*first.sizes, *second.sizes], strict=True))
    seen = abs(second.value - first.value) * (1.0 - 1e-12)
    total, count, take = math.fsum(first.sums) + math.fsum(second.sums), sum(size for _, size in heap), len(first.sums)
    extreme = 0
    for _ in range(chance.effort):
        dealt = chance.dice.sample(heap, take)
        part, size = sum([each[0] for each in dealt]), sum([each[1] for each in dealt])
        extreme += abs((total - part) / (count - size) - part / size) >= seen
    return (extreme + 1) / (chance.effort + 1)


def _minus(one: float, other: float) -> float:
    """Two infinities are alike."""
    return 0.0 if one == other else one - other
