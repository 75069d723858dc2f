"""To give the cached answer, or to ask the model and learn: the decision, of numbers alone.

    explores(bound, chance, delta=0.02, per="hit")  ──▶  True: ask the model;  False: give what is cached

`bound` is a lower bound p of the probability that the cached answer is right, δ what may be wrong, `chance` uniform in
[0, 1). Two promises can be kept:

- per "hit": of the answers that are given, at most δ are wrong. The model is asked unless p ≥ 1 − δ. This is the
  stricter one.
- per "request": of all questions, at most δ are answered wrongly, as vCache promises: since a model that is asked is
  never wrong, P(right) = P(ask) + (1 − P(ask)) p ≥ 1 − δ, from which P(ask) ≥ τ = (1 − δ − p) / (1 − p) (the paper's
  equations for its explore probability). The model is asked if chance < τ. A cached answer that is right with p = 0.5
  is then still given in 4 of 100 cases at δ = 0.02, and half of these hits are wrong.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Per", "asking_probability", "explores"]

Per: TypeAlias = Literal["hit", "request"]


def explores(bound: float, chance: float, *, delta: float, per: Per) -> bool:
    """Whether the model is to be asked."""
    return chance < asking_probability(bound, delta=delta, per=per)


def asking_probability(bound: float, *, delta: float, per: Per) -> float:
    """τ: how likely the model must be asked, from 0 to 1."""
    right = max(bound, 0.0)
    if right >= 1.0 - delta:
        return 0.0
    return 1.0 if per == "hit" else (1.0 - delta - right) / (1.0 - right)
