"""How many tokens a model will answer with, learned from its last answers: what a rate limiter reserves beforehand.

    estimate = OutputEstimate()
    tokens = estimate.estimate("openai/gpt-4o", max_tokens=4096)      1024 at first, then what 19 of 20 stay under
    estimate.learn("openai/gpt-4o", 312)                              after each answer

To reserve `max_tokens` would keep most of the quota idle, as few answers are that long. To reserve too little only
makes a debt, which later requests wait out.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from typing import Final

__all__ = ["OutputEstimate"]

_KEPT: Final = 128  # answers of each key
_ENOUGH: Final = 10  # answers, before they are believed
_FIRST_GUESS: Final = 1024
_PERCENT: Final = 95
_KEYS: Final = 256


class OutputEstimate:
    """The 95th percentile of the last 128 answers of each key; safe in several threads.

    It is the smallest of these that 95 % of them do not exceed (definition 1 in Hyndman & Fan, "Sample Quantiles in
    Statistical Packages", 1996). Of more than `keys` keys, those unused for longest are forgotten.
    """

    __slots__ = ("_answers", "_keys", "_lock")

    def __init__(self, *, keys: int = _KEYS) -> None:
        if keys < 1:
            raise ValueError(f"keys is how many models are remembered, so it is at least 1, not {keys}")
        self._keys = keys
        self._answers: OrderedDict[str, _Answers] = OrderedDict()
        self._lock = threading.Lock()

    def estimate(self, key: str, max_tokens: int | None = None) -> int:
        """What to reserve: never more than `max_tokens`, and 1024 until 10 answers are known."""
        with self._lock:
            answers = self._answers.get(key)
            if answers is None:
                guess = _FIRST_GUESS
            else:
                self._answers.move_to_end(key)
                guess = answers.bound() if len(answers.ordered) >= _ENOUGH else _FIRST_GUESS
        return guess if max_tokens is None else max(0, min(max_tokens, guess))

    def learn(self, key: str, tokens: int) -> None:
        """An answer was so long. Less than nothing counts as nothing."""
        with self._lock:
            answers = self._answers.get(key)
            if answers is None:
                answers = self._answers[key] = _Answers()
                if len(self._answers) > self._keys:
                    self._answers.popitem(last=False)
            else:
                self._answers.move_to_end(key)
            answers.add(max(0, tokens))


class _Answers:
    """The lengths of the last ones, as they came and sorted."""

    __slots__ = ("ordered", "recent")

    def __init__(self) -> None:
        self.recent: deque[int] = deque()
        self.ordered: list[int] = []

    def add(self, tokens: int) -> None:
        if len(self.recent) == _KEPT:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]
        self.recent.append(tokens)
        insort(self.ordered, tokens)

    def bound(self) -> int:
        count = len(self.ordered)
        return self.ordered[-(-count * _PERCENT // 100) - 1]
