"""How long an answer holds: its time to live, less a little by chance, so that not all end at once."""

from __future__ import annotations

import math

from msgspec import Struct

from agentflow.errors import ConfigurationError
from agentflow.mcp.performance.caching.kept import Times

__all__ = ["Lifetime"]


class Lifetime(Struct, frozen=True):
    """`ttl` in seconds, of which up to the share `jitter` is taken off by chance. For `stale` seconds more the answer
    may be given although it is too old, while it is asked for anew."""

    ttl: float
    jitter: float = 0.1
    stale: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.ttl < math.inf:
            raise ConfigurationError(f"ttl is a number of seconds above 0, not {self.ttl:g}")
        if not 0 <= self.jitter < 1:
            raise ConfigurationError(f"jitter is a share of the ttl, from 0 to below 1, not {self.jitter:g}")
        if not 0 <= self.stale < math.inf:
            raise ConfigurationError(f"stale is a number of seconds, 0 for none, not {self.stale:g}")

    def of(self, now: float, chance: float, ttl: float | None = None) -> Times:
        """For an answer of now; `chance` is a random number in [0, 1)."""
        expires = now + (self.ttl if ttl is None else ttl) * (1 - self.jitter * chance)
        return Times(now, expires, expires + self.stale)
