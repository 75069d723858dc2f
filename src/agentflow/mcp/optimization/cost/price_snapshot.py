"""The prices that an analysis is made with: those of one day, written down and hashed, so that it can be done again.

    PriceSnapshot.configured(log, registry.describe)  ──▶  PriceSnapshot: {"gpt-4o": Price, …}, "2026-11-26", "9c1f…"

A model that nobody has a price for is not in it: its calls count with what the log says they cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import msgspec

from agentflow.errors import ConfigurationError
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.prices import Price, PriceTable, Rates
from agentflow.llm.messages import Usage
from agentflow.mcp.optimization.cost.call import Call

__all__ = ["PriceSnapshot"]


@dataclass(frozen=True)
class PriceSnapshot:
    """Prices by the name that a log gives a model; `dated` (YYYY-MM-DD) is the list's day, `source` whose it is."""

    prices: Mapping[str, Price]
    dated: str
    source: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the prices as sorted JSON: the same prices have the same one."""
        ordered = {name: self.prices[name] for name in sorted(self.prices)}
        return hashlib.sha256(msgspec.json.encode(ordered, order="deterministic")).hexdigest()

    @classmethod
    def listed(cls, calls: Iterable[Call], *, when: datetime | None = None) -> PriceSnapshot:
        """What the package's table has for the providers and models that the log names."""
        table = PriceTable.built_in()
        found = {
            name: table.price(provider, model_id or name, when=when or datetime.now(UTC))
            for name, (provider, model_id) in _asked(calls).items()
        }
        return cls({name: price for name, price in found.items() if price}, table.updated, table.source)

    @classmethod
    def configured(
        cls,
        calls: Iterable[Call],
        describe: Callable[[str], ModelConfig],
        *,
        more: Iterable[str] = (),
        when: datetime | None = None,
    ) -> PriceSnapshot:
        """What models.yml states for the models of the log and for `more`, else what the package's table has."""
        calls, moment = list(calls), when or datetime.now(UTC)
        prices = dict(cls.listed(calls, when=moment).prices)
        for name in {*prices, *_asked(calls), *more}:
            price = _stated(describe, name, moment)
            if price is not None:
                prices[name] = price
        table = PriceTable.built_in()
        return cls(prices, table.updated, f"models.yml, {table.source}")

    def __contains__(self, model: str) -> bool:
        return model in self.prices

    def cost(self, model: str, usage: Usage, *, batch: bool = False) -> float | None:
        """US dollars, or None."""
        price = self.prices.get(model)
        return None if price is None else price.cost(usage, batch=batch)

    def rates(self, model: str) -> Rates | None:
        """The usual rates of short prompts."""
        price = self.prices.get(model)
        return None if price is None else price.usual


def _asked(calls: Iterable[Call]) -> dict[str, tuple[str, str]]:
    return {call.model: (call.provider, call.model_id) for call in calls}


def _stated(describe: Callable[[str], ModelConfig], name: str, when: datetime) -> Price | None:
    try:
        return describe(name).current_price(when)
    except ConfigurationError:
        return None
