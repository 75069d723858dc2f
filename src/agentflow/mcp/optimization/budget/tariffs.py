"""Which models one call may be answered by, and so what it may cost at most in all.

one model                        ──▶  its own bound
a router of small and large      ──▶  the dearer of the two bounds
a cascade of small, then large   ──▶  their sum: both may be asked, and both are paid
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from msgspec import UNSET

from agentflow.clock import Clock
from agentflow.errors import UnboundedCostError
from agentflow.llm.config.model import ModelConfig, routed_to
from agentflow.llm.config.prices import Price, PriceTable, Rates
from agentflow.llm.messages import EmbeddingRequest, Request, Usage
from agentflow.mcp.optimization.budget.bound import Tariff, most
from agentflow.mcp.optimization.budget.money import charged

__all__ = ["Costs", "Described", "Sources", "Stated"]

_SOON: Final = timedelta(minutes=10)  # a call that begins at one price may be billed at the next


class Sources(Protocol):
    """Knows what may answer a call."""

    def most(self, request: Request | EmbeddingRequest, /) -> int:
        """What it may cost at most, 1e-9 US dollars. Raises UnboundedCostError."""
        ...

    def price(self, model: str, /) -> Price | None:
        """What an answer costs that does not say so itself; None where that cannot be told."""
        ...


@dataclass(frozen=True, slots=True)
class Costs:
    """The bound of a call, and the cost of an answer. `ceiling` (US dollars) stands in for a bound where none can be
    had."""

    sources: Sources
    ceiling: float | None = None

    def most(self, request: Request | EmbeddingRequest) -> int:
        """1e-9 US dollars. Raises UnboundedCostError."""
        try:
            return self.sources.most(request)
        except UnboundedCostError:
            if self.ceiling is None:
                raise
            return charged(self.ceiling)

    def cost(self, model: str, usage: Usage, tier: str | None) -> float | None:
        """US dollars; None where nobody knows."""
        price = self.sources.price(model)
        return None if price is None else price.cost(usage, service_tier=tier)


class Stated:
    """A provider that is used without models.yml: by what its maker says, else the package's price table."""

    def __init__(
        self, provider: str, clock: Clock, *, price: Price | Rates | None, max_output: int | None, context: int | None
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._price = Price.flat(price) if isinstance(price, Rates) else price
        self._max_output = max_output
        self._context = context

    def most(self, request: Request | EmbeddingRequest) -> int:
        prices = self._prices(request.model)
        return most(request, Tariff(request.model, prices, max_output=self._max_output, context=self._context))

    def price(self, model: str) -> Price | None:
        return next(iter(self._prices(model)), None)

    def _prices(self, model: str) -> list[Price]:
        if self._price is not None:
            return [self._price]
        table = PriceTable.built_in()
        return _known([table.price(self._provider, model, when=when) for when in _moments(self._clock)])


class Described:
    """An entry of models.yml, or all that its router may choose."""

    def __init__(
        self, name: str, describe: Callable[[str], ModelConfig], clock: Clock, *, media_tokens: int | None
    ) -> None:
        self._name = name
        self._describe = describe
        self._clock = clock
        self._media_tokens = media_tokens

    def most(self, request: Request | EmbeddingRequest) -> int:
        return self._most(self._name, request, frozenset())

    def price(self, model: str) -> Price | None:
        config = self._describe(self._name)
        return None if config.routed else config.current_price()

    def _most(self, name: str, request: Request | EmbeddingRequest, above: frozenset[str]) -> int:
        config = self._describe(name)
        candidates = [each for each in routed_to(config) if each not in above]
        if not config.routed:
            return most(request, self._tariff(config))
        bounds = [self._most(each, request, above | {config.name}) for each in candidates]
        times = _times(config)
        return sum(bounds) * times if times else max(bounds, default=0)

    def _tariff(self, config: ModelConfig) -> Tariff:
        return Tariff(
            config.name,
            _known([config.current_price(when) for when in _moments(self._clock)]),
            max_tokens=config.max_tokens,
            max_output=config.max_output,
            context=config.context,
            requests=_requests(config),
            media_tokens=self._media_tokens,
            params=config.params,
        )


def _times(config: ModelConfig) -> int:
    """How often a cascade may ask each of its models for one answer; 0 for a router that asks one of them alone."""
    cascade = getattr(config.wrappers.get("router"), "cascade", None)
    if cascade in (None, UNSET, False):
        return 0
    samples = getattr(cascade, "samples", 1)
    return samples if isinstance(samples, int) else 1


def _requests(config: ModelConfig) -> int:
    """How many requests of one call may be billed: a hedge is a second one, and so is each new beginning of a stream
    that broke. Other attempts follow an error, for which nothing is billed."""
    retry = config.guarding.retry
    streams = retry.max_attempts if retry.after_first_chunk else 1
    return streams + (1 if config.guarding.hedge is not None else 0)


def _known(prices: Sequence[Price | None]) -> list[Price]:
    """Once each: most do not change."""
    return list({id(price): price for price in prices if price is not None}.values())


def _moments(clock: Clock) -> tuple[datetime, datetime]:
    """Now, and when the call may be billed at the latest."""
    now = datetime.fromtimestamp(clock.time(), UTC)
    return now, now + _SOON
