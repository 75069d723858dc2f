"""Conditions under which a benchmark fails, as one line each: for a CI that shall go red.

    p99.ttft > 2            a percentile or the mean of a time, in seconds: ttft, itl, tpot, e2e, lag
    error_share > 0.01      a number of `NUMBERS`
    fast: goodput < 5       of one model of several

A gate names what must *not* be. A number that could not be measured fails its gate: nobody knows that it is well.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.benchmark.measures import PERCENTILES, TIMES, Measures
from agentflow.mcp.optimization.benchmark.percentiles import Estimate

__all__ = ["NUMBERS", "Gate", "Verdict"]

_LINE: Final = re.compile(
    r"\s*(?:(?P<model>[^<>=]+?):\s+)?(?P<what>[^\s<>=]+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<limit>[-+.\deE]+)\s*"
)
_SIGNS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


NUMBERS: Final[Mapping[str, Callable[[Measures], float | None]]] = {
    "error_share": lambda measures: _value(measures.error_share),
    "good_share": lambda measures: _value(measures.good_share),
    "goodput": lambda measures: measures.goodput,
    "throughput": lambda measures: measures.throughput,
    "output_throughput": lambda measures: measures.output_throughput,
    "cost": lambda measures: measures.cost,
    "cost_per_million_good": lambda measures: measures.cost_per_million_good,
    "quality": lambda measures: min((each.value for each in measures.quality.values()), default=None),
}
"""What a gate may name beside times; `quality` is the worst checker's, `quality.NAME` that of one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a gate for one model. `measured` is None where there is no such number."""

    what: str
    condition: str
    model: str
    measured: float | None
    failed: bool

    def __str__(self) -> str:
        found = "was not measured" if self.measured is None else f"is {self.measured:.4g}"
        return f"{'fails' if self.failed else 'passes'}: {self.what} of {self.model} {found}, fails if {self.condition}"


@dataclass(frozen=True, slots=True)
class Gate:
    """`what` must not stand to `limit` as `sign` says, for `model` or, where that is None, for any."""

    what: str
    sign: str
    limit: float
    model: str | None = None

    @classmethod
    def parse(cls, text: str, models: Sequence[str] | None = None) -> Gate:
        """`models` are those that will be measured, where that is known. Raises ConfigurationError."""
        found = _LINE.fullmatch(text)
        if found is None:
            raise ConfigurationError(f"gate {text!r}: a gate looks like p99.ttft>2, error_share>0.01 or goodput<5")
        try:
            limit = float(found["limit"])
        except ValueError:
            raise ConfigurationError(f"gate {text!r}: {found['limit']!r} is no number") from None
        gate = cls(found["what"], found["sign"], limit, found["model"])
        gate._check(text)
        if models is not None and gate.model not in (None, *models):
            raise ConfigurationError(f"gate {text!r}: {gate.model!r} is none of the models: {', '.join(models)}")
        return gate

    def judge(self, measures: Measures) -> Verdict:
        """Whether it fails for a model that it is meant for."""
        measured = self._measured(measures)
        failed = measured is None or math.isnan(measured) or _SIGNS[self.sign](measured, self.limit)
        return Verdict(self.what, f"{self.sign}{self.limit:g}", measures.name, measured, failed)

    def __str__(self) -> str:
        return f"{self.what}{self.sign}{self.limit:g}"

    def _check(self, text: str) -> None:
        statistic, _, time = self.what.rpartition(".")
        fits = self.what in NUMBERS or self.what.startswith("quality.")
        if not fits and not (time in (*TIMES, "lag") and statistic in (*PERCENTILES, "mean")):
            raise ConfigurationError(
                f"gate {text!r}: nobody measures {self.what!r}; there are {', '.join(NUMBERS)}, and "
                f"{', '.join((*PERCENTILES, 'mean'))} of {', '.join((*TIMES, 'lag'))}, as in p99.ttft"
            )

    def _measured(self, measures: Measures) -> float | None:
        if self.what in NUMBERS:
            return NUMBERS[self.what](measures)
        if self.what.startswith("quality."):
            return _value(measures.quality.get(self.what.removeprefix("quality.")))
        statistic, _, time = self.what.rpartition(".")
        distribution = measures.lag if time == "lag" else measures.times[time]
        return _value(distribution.mean if statistic == "mean" else distribution.percentiles.get(statistic))
