"""Replays what was asked, and proposes what would have been cheaper.

    optimizer = CostOptimizer(UsageLog.read("calls.jsonl"))
    findings = optimizer.propose(quality_floor=0.9, patient=["nightly*"])
    for proposal in findings.proposals:
        print(proposal.title, proposal.saves.value, proposal.saves.low, proposal.saves.high)     # US dollars a day
    write_report(findings, "out.html")                   # and write_picture, write_patch

Nothing is asked of any model, and nothing is changed. How sure a number is: `forecast.py`; what is proposed: `advice/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from agentflow.errors import ConfigurationError, MissingExtraError
from agentflow.llm.config.model import ModelConfig
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
from agentflow.mcp.optimization.cost.terms import Terms
from agentflow.mcp.optimization.cost.usage_log import UsageLog

if TYPE_CHECKING:
    from agentflow.mcp.optimization.cost.findings import Findings

__all__ = ["CostOptimizer"]

_NEEDED: Final = ("numpy", "scipy")


class CostOptimizer:
    """`log` is what was asked. Prices are those of `prices`, else of `describe` (such as `registry.describe`), else of
    the package's table. Raises MissingExtraError without numpy and scipy (extra `learn`)."""

    def __init__(
        self,
        log: UsageLog,
        *,
        prices: PriceSnapshot | None = None,
        describe: Callable[[str], ModelConfig] | None = None,
    ) -> None:
        if any(find_spec(name) is None for name in _NEEDED):
            raise MissingExtraError("CostOptimizer", "learn")
        self.log: Final = log
        if prices is None:
            prices = PriceSnapshot.listed(log) if describe is None else PriceSnapshot.configured(log, describe)
        self.prices: Final = prices

    def propose(
        self,
        *,
        quality_floor: float | None = None,
        tolerance: float = 0.02,
        cache_ttl: float = 3_600.0,
        cache_capacity: int | None = None,
        cache_all: bool = False,
        patient: Sequence[str] = (),
        likeness: float = 0.95,
        level: float = 0.95,
    ) -> Findings:
        """What could be done otherwise, as `Terms` says. Takes about a second for 10,000 calls.

        Raises ConfigurationError for terms that are impossible. A log without calls has no proposals, and a note.
        """
        terms = Terms(
            quality_floor=None if quality_floor is None else _within("quality_floor", quality_floor, 0.0, 1.0),
            tolerance=_within("tolerance", tolerance, 0.0, 1.0),
            cache_ttl=_within("cache_ttl", cache_ttl, 1e-3, 1e10),
            cache_capacity=None if cache_capacity is None else int(_within("cache_capacity", cache_capacity, 1, 1e12)),
            cache_all=cache_all,
            patient=_names(patient),
            likeness=_within("likeness", likeness, 0.0, 1.0),
            level=_within("level", level, 0.5, 0.9999),
        )
        from agentflow.mcp.optimization.cost.analysis import analysed  # loads numpy

        return analysed(self.log, self.prices, terms)


def _names(patient: Iterable[str]) -> tuple[str, ...]:
    if isinstance(patient, str):
        raise ConfigurationError(f"`patient` is a list of names: [{patient!r}]")
    return tuple(patient)


def _within(name: str, value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise ConfigurationError(f"`{name}` is between {least:g} and {most:g}, not {value!r}")
    return value
