"""Keeps an eye on what is given: tests one audited answer after the other, and says when too many are wrong.

    audited hit: right or wrong ──▶ evidence that the error exceeds δ ──≥ 1/α──▶ "off": nothing is given any more
    while off, would-be hits     ──▶ evidence that it is below δ       ──≥ 1/α──▶ "on" again, if that is wanted

Both are tests by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
2024): whoever bets at fair odds that more than δ are wrong cannot multiply his stake by 1/α, with a probability above
α, if at most δ are. It holds whenever one looks, and whatever came before, as long as each answer given is wrong with a
probability of at most δ. For each alternative q on a list, one stake grows by q/δ for a wrong answer and by
(1 − q)/(1 − δ) for a right one.

A tier may be sound for a long time and then break. So a new stake of 1/(n (n + 1)) is laid at each audit n, which
together make 1: what was lost in good times does not weigh on what begins today. A false alarm ever has a probability
of at most α.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

__all__ = ["State", "Watch", "error_interval"]

State: TypeAlias = Literal["on", "off"]

_WORSE: Final = (1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0)
_BETTER: Final = (0.0, 0.1, 0.25, 0.5)
_MOST: Final = 0.999  # a stake on certainty would be lost for good by one right answer


class Watch(Struct):
    """The state of one tenant's tier. `wrong` of `audited` answers were wrong since it was switched on (or off).

    `worse` and `better` are the stakes on the errors of the two lists, `since` says why it is in this state.
    """

    state: State = "on"
    audited: int = 0
    wrong: int = 0
    worse: list[float] = []
    better: list[float] = []
    since: str = "new"

    def see(self, right: bool, *, delta: float, alpha: float, recovers: bool, seen: str = "audited answers") -> bool:
        """Take one audited answer into account; whether the state has changed by it. `recovers` False leaves it off.
        `seen` says in the reason what was counted."""
        self.audited += 1
        self.wrong += not right
        if self.state == "on":
            if self._grown("worse", _WORSE, right, delta) < len(_WORSE) / alpha:
                return False
            self._turn("off", f"{self.wrong} of {self.audited} {seen} were wrong: more than {delta:g}")
            return True
        enough = self._grown("better", _BETTER, right, delta) >= len(_BETTER) / alpha
        if enough and recovers:
            self._turn("on", f"{self.wrong} of {self.audited} answers that it would have given were wrong")
            return True
        return False

    def switch(self, state: State, reason: str) -> bool:
        """By hand. Whether that changed anything; the test begins anew in any case."""
        changed = state != self.state
        self._turn(state, reason)
        return changed

    def _turn(self, state: State, reason: str) -> None:
        self.state, self.since = state, reason
        self.audited = self.wrong = 0
        self.worse, self.better = [], []

    def _grown(self, name: str, ratios: tuple[float, ...], right: bool, delta: float) -> float:
        """The sum of the stakes on one list's errors, after this answer."""
        fresh = 1.0 / (self.audited * (self.audited + 1.0))
        held: list[float] = getattr(self, name) or [0.0] * len(ratios)
        guesses = [min(ratio * delta, max(_MOST, delta)) for ratio in ratios]
        grown = [
            (stake + fresh) * ((1.0 - guess) / (1.0 - delta) if right else guess / delta)
            for stake, guess in zip(held, guesses, strict=True)
        ]
        setattr(self, name, grown)
        return sum(grown)


def error_interval(wrong: int, audited: int, *, alpha: float = 0.05) -> tuple[float, float]:
    """What the share of wrong answers may be, as a confidence sequence: it holds at all times at once.

    The errors p that an even mixture of all errors does not beat by 1/α: B(wrong + 1, right + 1) / (pʷ (1 − p)ʳ) < 1/α,
    Robbins' method of mixtures (1970), found by bisection on both sides of the observed share.
    """
    if not audited:
        return 0.0, 1.0
    right = audited - wrong
    mixture = math.lgamma(wrong + 1) + math.lgamma(right + 1) - math.lgamma(audited + 2)

    def excluded(p: float) -> bool:
        likely = (wrong * math.log(p) if wrong else 0.0) + (right * math.log1p(-p) if right else 0.0)
        return mixture - likely >= -math.log(alpha)

    share = wrong / audited
    low = 0.0 if not wrong else _edge(excluded, 0.0, share)
    high = 1.0 if not right else _edge(excluded, 1.0, share)
    return low, high


def _edge(excluded: Callable[[float], bool], outside: float, inside: float) -> float:
    for _ in range(50):
        middle = (outside + inside) / 2
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside
