"""What a run is judged by: goodput, failures by kind, attempts, overshoot, latency, fairness, recovery.

tally = Tally(...)    fed by the world while it runs      outcome = tally.outcome(...)    plain numbers, for JSON
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agentflow.errors import (
    CircuitOpenError,
    LimiterError,
    LoadShedError,
    ModelError,
    OperationTimeoutError,
    OverloadedError,
    RateLimitError,
    ServerError,
)

from .traffic import Request

__all__ = ["KINDS", "Busiest", "Outcome", "Tally", "fair_shares", "jain", "merged", "percentile"]

_KINDS = (
    (LimiterError, "limiter"),  # it is a RateLimitError, too, so it comes first
    (LoadShedError, "shed"),
    (CircuitOpenError, "breaker"),
    (OperationTimeoutError, "time-out"),
    (RateLimitError, "429"),
    (OverloadedError, "529"),
    (ServerError, "503"),
)
KINDS = tuple(kind for _, kind in _KINDS)
_MINUTE = 60.0
_SPAN = 5  # seconds that must go well again
_WELL = 0.8  # of the requests that come on average


class Busiest:
    """The most that was counted in any 60 seconds."""

    __slots__ = ("_entries", "_sum", "most")

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int]] = deque()
        self._sum = self.most = 0

    def add(self, now: float, amount: int) -> None:
        entries = self._entries
        entries.append((now, amount))
        self._sum += amount
        while entries[0][0] <= now - _MINUTE:
            self._sum -= entries.popleft()[1]
        self.most = max(self.most, self._sum)


@dataclass(slots=True)
class Outcome:
    """One run of one variant, or several merged. `series` are counts by second of the run.

    `tenants` and `priorities` hold how many were offered, how many answered, and how many of them in the ideal;
    `recovery` holds, for each spell, the seconds from its end until all was well again.
    """

    scenario: str
    variant: str
    seconds: float
    offered: int
    good: int
    ideal: int
    sent: int  # requests of which at least one attempt was sent
    attempts: int
    spell_attempts: int  # in an outage, so in vain
    failures: dict[str, int]
    refused: dict[str, int]  # by the provider, attempts and not calls
    busiest_requests: float  # of a minute's limit; 0 where there is none
    busiest_tokens: float
    latencies: list[float]  # sorted, of the answered
    tenants: dict[str, list[int]]
    priorities: dict[str, list[int]]
    priority_latencies: dict[str, list[float]]
    recovery: list[float]
    most_under_way: int
    cpu: float
    series: dict[str, list[float]] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        """Of what the ideal answers."""
        return self.good / self.ideal

    @property
    def amplification(self) -> float:
        """Attempts for each call that was sent at all."""
        return self.attempts / max(1, self.sent)

    @property
    def wasted(self) -> float:
        """The part of all attempts that brought no answer to anybody."""
        return 1 - self.good / max(1, self.attempts)

    @property
    def fairness(self) -> float:
        """Jain's index of what each tenant got, measured by its max-min fair share of all that was answered."""
        shares = fair_shares({name: group[0] for name, group in self.tenants.items()}, self.good)
        return jain([group[1] / shares[name] for name, group in self.tenants.items()])

    def latency(self, share: float) -> float:
        return percentile(self.latencies, share)


class Tally:
    """Counts while the world runs."""

    def __init__(self, seconds: float) -> None:
        size = math.ceil(seconds) + 120
        self.offered: Counter[str] = Counter()
        self.series = {name: [0.0] * size for name in ("offered", "attempts", "good", "refused", "failed")}
        self.failures: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.attempted: Counter[int] = Counter()
        self.requests, self.tokens = Busiest(), Busiest()
        self.good: list[tuple[Request, float]] = []
        self.under_way = self.most_under_way = 0

    def came(self, request: Request) -> None:
        self.series["offered"][int(request.at)] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)

    def seen(self, request: Request, now: float, error: ModelError | None) -> None:
        """An attempt has arrived at the provider."""
        self.attempted[request.number] += 1
        self.series["attempts"][int(now)] += 1
        self.requests.add(now, 1)
        self.tokens.add(now, request.tokens)
        if error is not None:
            self.series["refused"][int(now)] += 1
            self.refused[kind_of(error)] += 1

    def answered(self, request: Request, now: float) -> None:
        self.under_way -= 1
        self.series["good"][int(now)] += 1
        self.good.append((request, now - request.at))

    def failed(self, request: Request, now: float, error: Exception) -> None:
        self.under_way -= 1
        self.series["failed"][int(now)] += 1
        self.failures[kind_of(error)] += 1

    def recovery(self, ends: Iterable[float], rate: float, last: float) -> list[float]:
        """For each end of a spell, the seconds until the first of five in which 80 % of the mean demand is answered;
        what never comes counts until the end."""
        good, needed = self.series["good"], _WELL * rate * _SPAN
        found = []
        for end in ends:
            start = math.ceil(end)
            while start < last and sum(good[start : start + _SPAN]) < needed:
                start += 1
            found.append(float(start - math.ceil(end)))
        return found


def kind_of(error: BaseException) -> str:
    for known, kind in _KINDS:
        if isinstance(error, known):
            return kind
    return type(error).__name__


def jain(values: Sequence[float]) -> float:
    """1 where all are equal, 1/n where one has all (Jain, Chiu and Hawe, 1984)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def fair_shares(demands: Mapping[str, float], total: float) -> dict[str, float]:
    """Max-min fair: nobody gets more than it asks for, and what the modest leave is divided among the others."""
    shares: dict[str, float] = {}
    left, rest = min(total, sum(demands.values())), sorted(demands, key=demands.__getitem__)
    while rest:
        name = rest.pop(0)
        shares[name] = min(demands[name], left / (len(rest) + 1))
        left -= shares[name]
    return shares


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so many do not exceed; 0 of nothing."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """Several runs of one variant as one. Worst cases stay worst cases; of the series the first run's is kept."""
    first = outcomes[0]
    if len(outcomes) == 1:
        return first
    return Outcome(
        scenario=first.scenario,
        variant=first.variant,
        seconds=sum(each.seconds for each in outcomes),
        offered=sum(each.offered for each in outcomes),
        good=sum(each.good for each in outcomes),
        ideal=sum(each.ideal for each in outcomes),
        sent=sum(each.sent for each in outcomes),
        attempts=sum(each.attempts for each in outcomes),
        spell_attempts=sum(each.spell_attempts for each in outcomes),
        failures=_added([each.failures for each in outcomes]),
        refused=_added([each.refused for each in outcomes]),
        busiest_requests=max(each.busiest_requests for each in outcomes),
        busiest_tokens=max(each.busiest_tokens for each in outcomes),
        latencies=sorted(latency for each in outcomes for latency in each.latencies),
        tenants=_grouped([each.tenants for each in outcomes]),
        priorities=_grouped([each.priorities for each in outcomes]),
        priority_latencies={
            name: sorted(latency for each in outcomes for latency in each.priority_latencies.get(name, ()))
            for name in first.priorities
        },
        recovery=[seconds for each in outcomes for seconds in each.recovery],
        most_under_way=max(each.most_under_way for each in outcomes),
        cpu=sum(each.cpu for each in outcomes),
        series=first.series,
    )


def _added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _grouped(groups: Sequence[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    return {name: [sum(column) for column in zip(*(each[name] for each in groups), strict=True)] for name in groups[0]}
