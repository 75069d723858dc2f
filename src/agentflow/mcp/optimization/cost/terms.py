"""What proposals are made under: how good, how old, how sure. It loads nothing that needs an extra."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.mcp.optimization.cost.forecast import LEVEL

__all__ = ["Terms"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What proposals are to be made under.

    `quality_floor` is the mean score that a mix of models must reach for sure; without it, that of today less
    `tolerance`. `cache_ttl` is in seconds, `cache_capacity` a number of entries; with `cache_all`, requests whose
    answers vary are cached too. `patient` names flows and tenants for whom a day is soon enough. `likeness` is the
    cosine from which two questions may mean the same. `level` is that of all intervals.
    """

    quality_floor: float | None = None
    tolerance: float = 0.02
    cache_ttl: float = 3_600.0
    cache_capacity: int | None = None
    cache_all: bool = False
    patient: tuple[str, ...] = ()
    likeness: float = 0.95
    level: float = LEVEL
