"""What could be done otherwise, and what it would save: one value for each proposal, and the words that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.replay import Change

__all__ = ["Fields", "Kind", "Proposal", "QualityChange", "Risk"]

Kind: TypeAlias = Literal["cache", "semantic", "route", "swap", "prompt_cache", "batch", "max_tokens"]
Risk: TypeAlias = Literal["none", "low", "some", "high"]
Fields: TypeAlias = Mapping[str, object]
"""What an entry of models.yml would say."""


@dataclass(frozen=True, slots=True)
class QualityChange:
    """The mean score of the calls that were judged: what it is, what it would be, and its lower bound then. `floor` is
    what it must not fall below."""

    before: float
    after: float
    low: float
    floor: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """One change. `saves` is US dollars a day.

    `means` says what these dollars are: `spent` is money, `reserved` is what limits and budgets hold back for answers
    that never come, `bound` is between nothing and so much, and nothing is claimed beyond. `calls` is how many of the
    log's calls it touches, `share` of so many. What stands in `models` is for models.yml; `how` says in words what to
    do. `details` are pairs of what there is to show.
    """

    kind: Kind
    title: str
    saves: Estimate
    how: str
    risk: Risk
    danger: str
    assumptions: tuple[str, ...]
    calls: int
    means: Literal["spent", "reserved", "bound"] = "spent"
    quality: QualityChange | None = None
    details: tuple[tuple[str, str], ...] = ()
    models: Mapping[str, Fields] = field(default_factory=dict)
    change: Change | None = None

    @property
    def is_sure(self) -> bool:
        """Whether it is money, and more than nothing at the lower bound."""
        return self.means == "spent" and self.saves.low is not None and self.saves.low > 0.0
