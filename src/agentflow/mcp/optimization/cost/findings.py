"""Everything that an analysis has found, ready to be read, drawn and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.mixing import Mix
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
from agentflow.mcp.optimization.cost.proposal import Proposal, QualityChange
from agentflow.mcp.optimization.cost.spend import SpendRow
from agentflow.mcp.optimization.cost.terms import Terms

__all__ = ["Findings", "Front", "FrontPoint"]


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A mix of models, or one model for everything: US dollars a day over the judged segments, mean score, its lower
    bound, and what one point (0.01) more would cost a day."""

    name: str
    cost: float
    quality: float
    low: float
    point: float = 0.0

    @classmethod
    def of(cls, name: str, mix: Mix, calls_a_day: float) -> FrontPoint:
        return cls(name, mix.cost * calls_a_day, mix.quality, mix.low, mix.price * 0.01 * calls_a_day)


@dataclass(frozen=True, slots=True)
class Front:
    """The cheapest mixes of models for every quality, the cheapest first; what each model would do alone; where the log
    stands."""

    points: tuple[FrontPoint, ...]
    single: tuple[FrontPoint, ...]
    present: FrontPoint | None


@dataclass(frozen=True)
class Findings:
    """`proposals` are in the order of what they save; `together` is what those that can be combined save one after the
    other (`order`), so that no dollar counts twice. `spent` is US dollars over the `days` of the log; amounts of
    proposals are US dollars a day. `front` is None where nothing was judged.
    """

    source: str
    calls: int
    runs: int
    days: float
    spent: float
    unpriced: int
    prices: PriceSnapshot
    terms: Terms
    proposals: tuple[Proposal, ...]
    together: Estimate | None
    order: tuple[str, ...]
    quality: QualityChange | None
    spend: Mapping[str, tuple[SpendRow, ...]]
    notes: tuple[str, ...]
    front: Front | None = None
    began: float | None = None
    ended: float | None = None

    @property
    def a_day(self) -> float:
        """US dollars."""
        return self.spent / self.days
