"""Which models one call may be answered by, and so what it may cost at most in all.

one model                        ──▶  its own bound
a router of small and large      ──▶  the dearer of the two bounds
a cascade of small, then large   ──▶  their sum: both may be asked, and both are paid
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from agentflow.clock import Clock
from agentflow.errors import UnboundedCostError
from agentflow.llm.config.model import ModelConfig, routed_to
from agentflow.llm.config.prices import Price, PriceTable, Rates
from agentflow.llm.messages import EmbeddingRequest, Request, Usage
from agentflow.mcp.optimization.budget.bound import Tariff, most
from agentflow.mcp.optimization.budget.money import charged

__all__ = ["Costs", "Described", "Stated"]

_SOON: Final = timedelta(minutes=10)  # a call that begins at one price may be billed at the next


@dataclass(frozen=True, slots=True)
class Costs:
    """The bound of a call, and the price of an answer that brings none. `ceiling` (US dollars) stands in for a bound
    where none can be had; `every` says that all tariffs may be paid for by one call, and not one of them alone."""

    tariffs: Callable[[str], Sequence[Tariff]]
    ceiling: float | None = None
    every: bool = False
    repeats: int = 1

    def most(self, request: Request | EmbeddingRequest) -> int:
        """1e-9 US dollars. Raises UnboundedCostError."""
        try:
            bounds = [most(request, tariff) for tariff in self.tariffs(request.model)]
        except UnboundedCostError:
            if self.ceiling is None:
                raise
            return charged(self.ceiling)
        return (sum(bounds) if self.every else max(bounds)) * self.repeats

    def cost(self, model: str, usage: Usage, tier: str | None) -> float | None:
        """US dollars; None where it cannot be told: then there are several models, or none has a known price."""
        tariffs = self.tariffs(model)
        if len(tariffs) != 1 or not tariffs[0].prices:
            return None
        return tariffs[0].prices[0].cost(usage, service_tier=tier)


class Stated:
    """The tariff of a provider that is used without models.yml: what its maker says, else the package's price table."""

    def __init__(
        self, provider: str, clock: Clock, *, price: Price | Rates | None, max_output: int | None, context: int | None
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._price = Price.flat(price) if isinstance(price, Rates) else price
        self._max_output = max_output
        self._context = context

    def __call__(self, model: str) -> Sequence[Tariff]:
        prices = [self._price] if self._price is not None else self._listed(model)
        return (Tariff(model, prices, max_output=self._max_output, context=self._context),)

    def _listed(self, model: str) -> list[Price]:
        table = PriceTable.built_in()
        found = [table.price(self._provider, model, when=when) for when in moments(self._clock)]
        return [price for price in found if price is not None]


class Described:
    """The tariffs of an entry of models.yml: its own, or those of all that its router may choose."""

    def __init__(
        self, name: str, describe: Callable[[str], ModelConfig], clock: Clock, *, media_tokens: int | None
    ) -> None:
        self._name = name
        self._describe = describe
        self._clock = clock
        self._media_tokens = media_tokens

    def __call__(self, model: str) -> Sequence[Tariff]:
        return [self._tariff(config) for config in self._asked(self._name, set())]

    def _asked(self, name: str, seen: set[str]) -> list[ModelConfig]:
        config = self._describe(name)
        if config.name in seen:
            return []
        seen.add(config.name)
        candidates = routed_to(config)
        return [each for name in candidates for each in self._asked(name, seen)] if candidates else [config]

    def _tariff(self, config: ModelConfig) -> Tariff:
        prices = [config.current_price(when) for when in moments(self._clock)]
        return Tariff(
            config.name,
            [price for price in prices if price is not None],
            max_tokens=config.max_tokens,
            max_output=config.max_output,
            context=config.context,
            requests=_requests(config),
            media_tokens=self._media_tokens,
            params=config.params,
        )


def _requests(config: ModelConfig) -> int:
    """How many requests of one call may be billed: a hedge is a second one, and so is each new beginning of a stream
    that broke. Other attempts follow an error, for which nothing is billed."""
    retry = config.guarding.retry
    streams = retry.max_attempts if retry.after_first_chunk else 1
    return streams + (1 if config.guarding.hedge is not None else 0)


def moments(clock: Clock) -> tuple[datetime, datetime]:
    """Now, and when the call may be billed at the latest."""
    now = datetime.fromtimestamp(clock.time(), UTC)
    return now, now + _SOON
