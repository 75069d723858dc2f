"""US dollars as whole numbers of 1e-9: limits are rounded down and costs up, so that no sum is ever too small."""

from __future__ import annotations

import math
from typing import Final

from agentflow.core.accounts import NANO

__all__ = ["MOST", "allowed", "charged", "dollars"]

MOST: Final = 1_000_000.0
"""US dollars. A thousand limits of it still are a number that Lua's doubles hold exactly."""

_NOISE: Final = 1e-4  # units: what a float adds to 0.1 dollars is no part of a cent


def allowed(limit: float) -> int:
    """A limit, rounded down."""
    return math.floor(limit * NANO + _NOISE)


def charged(cost: float) -> int:
    """A cost, rounded up."""
    return math.ceil(cost * NANO - _NOISE)


def dollars(amount: int) -> float:
    return amount / NANO
