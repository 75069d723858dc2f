"""Who asks for what, and when: arrivals like those of many independent callers, out of one seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentflow.core.robustness.shedding import Priority

__all__ = ["MEAN_TOKENS", "Request", "Tenant", "traffic"]

_INPUT: Final = (400.0, 0.6)  # median and spread (sigma) of log-normal lengths
_OUTPUT: Final = (150.0, 0.6)
MEAN_TOKENS: Final = (_INPUT[0] + _OUTPUT[0]) * math.exp(0.6**2 / 2)


@dataclass(frozen=True, slots=True)
class Tenant:
    """`share` of all requests is this one's."""

    name: str
    share: float
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Request:
    """`at` is when it comes, `patience` how many seconds its caller waits for the answer; `output_tokens` only the
    provider knows beforehand."""

    number: int
    at: float
    tenant: str
    priority: Priority
    input_tokens: int
    output_tokens: int
    patience: float

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def traffic(seed: int, tenants: Sequence[Tenant], *, rate: float, seconds: float, patience: float) -> list[Request]:
    """`rate × seconds` requests; the gaps between them are exponential, as in a Poisson process."""
    chance = random.Random(seed)
    shares = [tenant.share for tenant in tenants]
    requests: list[Request] = []
    at = 0.0
    for number in range(round(rate * seconds)):
        at += chance.expovariate(rate)
        tenant = chance.choices(tenants, shares)[0]
        asked, answer = _length(chance, *_INPUT), _length(chance, *_OUTPUT)
        requests.append(Request(number, at, tenant.name, tenant.priority, asked, answer, patience))
    return requests


def _length(chance: random.Random, median: float, spread: float) -> int:
    return max(1, min(round(chance.lognormvariate(math.log(median), spread)), round(8 * median)))
