"""What could be answered by somebody who always knows the provider's state: what goodput is compared with.

It sends each request, in the order of coming, at the first moment at which the provider will answer it, and none whose
caller would be gone by then. No wait is lost, no attempt fails, nothing is asked for in vain. It prefers nobody, short
requests neither: who would, could answer still more of them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from .provider import NETWORK, Rates, Terms
from .traffic import Request

__all__ = ["ideal"]

_WAY: Final = sum(NETWORK) / 2
_LONG: Final = 360  # tokens: so much time must be left, for short requests too, or they alone would pass at the brim


def ideal(terms: Terms, requests: Iterable[Request]) -> list[Request]:
    """The requests that are answered in time."""
    rates = Rates(terms)
    busy: list[float] = []  # a heap: when each that is at work will be done
    answered: list[Request] = []
    now = 0.0
    for request in requests:
        start = _start(terms, rates, busy, request, max(now, request.at + _WAY))
        longest = replace(request, output_tokens=max(request.output_tokens, _LONG))
        if start + terms.seconds(longest, start) > request.at + request.patience:
            continue
        now = start
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        rates.take(request.tokens, start)
        heapq.heappush(busy, start + terms.seconds(request, start))
        answered.append(request)
    return answered


def _start(terms: Terms, rates: Rates, busy: list[float], request: Request, now: float) -> float:
    """The first moment, `now` or later, at which a worker is free, the rates allow it, and the provider is up."""
    while now < request.at + request.patience:
        down = terms.spell("down", now)
        places = min(math.inf if terms.workers is None else terms.workers, terms.places_at(now))
        at_work = sum(done > now for done in busy) if len(busy) >= places else 0
        wait = rates.wait(request.tokens, now)
        if down is not None:
            now = down.end
        elif at_work >= places:
            now = min(done for done in busy if done > now)
        elif wait > 0:
            now += wait
        else:
            return now
    return now
