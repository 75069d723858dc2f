"""What a call costs, in USD: the package's dated price table, and prices that models.yml states.

    PriceTable.built_in().cost("openai", "gpt-4o-2024-08-06", Usage(1_000, 200))   →  0.0045
                                                      └─ name, date cut off ─▶ Price ─ tier, length of prompt ─▶ Rates

A price that is not known is None, never 0: an unlisted model, a service tier or a batch without a price of its own,
sound where only words are priced. What providers charge beside tokens (web searches, storage) is not in it. The table
is written by scripts/prices.py; `updated` is its date. It is read when first needed, and a look-up is one dictionary's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Final

import msgspec
from msgspec import Struct

from agentflow.llm.config.model_ids import spellings
from agentflow.llm.messages import Usage

__all__ = ["Price", "PriceTable", "Rates"]

_MILLION: Final = 1_000_000
_STANDARD: Final = ("", "default", "standard", "on_demand")
_TIER_NAMES: Final = {"on_demand_flex": "flex", "on_demand_priority": "priority"}  # as Vertex says them
_BATCH: Final = "batch"
_MOST_NAMES: Final = 4_096


class Rates(Struct, frozen=True, array_like=True):
    """USD per million tokens of each sort; None where it is unknown.

    `cached` is what is read from a cache, `cache_write` what is written to one for minutes, `cache_write_1h` for an
    hour.
    """

    input: float
    output: float | None = None
    cached: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    input_audio: float | None = None
    output_audio: float | None = None

    @classmethod
    def stated(
        cls,
        input: float,
        output: float | None = None,
        *,
        cached: float | None = None,
        cache_write: float | None = None,
        cache_write_1h: float | None = None,
        input_audio: float | None = None,
        output_audio: float | None = None,
    ) -> Rates:
        """What is left out costs as plain input and output do; an hour's cache as a shorter one."""
        write = input if cache_write is None else cache_write
        return cls(
            input,
            output,
            input if cached is None else cached,
            write,
            write if cache_write_1h is None else cache_write_1h,
            input if input_audio is None else input_audio,
            output if output_audio is None else output_audio,
        )

    def cost(self, usage: Usage) -> float | None:
        """The price of these tokens; None where some of them have no known price."""
        parts = self._parts(usage)
        if parts is None:
            return None
        total = 0.0
        for count, rate in parts:
            if count > 0:
                if rate is None:
                    return None
                total += count * rate
        return total / _MILLION

    def _parts(self, usage: Usage) -> tuple[tuple[int, float | None], ...] | None:
        """Tokens of each sort, none counted twice, and what each costs."""
        if not (usage.cached_tokens or usage.cache_write_tokens or usage.input_audio_tokens):
            said = usage.output_audio_tokens
            return (
                (usage.input_tokens, self.input),
                (usage.output_tokens - said, self.output),
                (said, self.output_audio),
            )
        hour = usage.cache_write_1h_tokens
        written = max(0, usage.cache_write_tokens - hour)
        heard = 0 if self.input_audio == self.input else usage.input_audio_tokens
        stored = usage.cached_tokens + written + hour
        if heard and stored:
            return None  # nobody says how much of the cached was sound
        return (
            (usage.input_tokens - stored - heard, self.input),
            (usage.cached_tokens, self.cached),
            (written, self.cache_write),
            (hour, self.cache_write_1h),
            (heard, self.input_audio),
            (usage.output_tokens - usage.output_audio_tokens, self.output),
            (usage.output_audio_tokens, self.output_audio),
        )

    def times(self, factor: float) -> Rates:
        """Every rate, multiplied."""
        further = (getattr(self, name) for name in self.__struct_fields__[1:])
        return Rates(self.input * factor, *(None if rate is None else rate * factor for rate in further))


class Price(Struct, frozen=True):
    """A model's rates by service tier, and in each by the length of the prompt.

    The tier "" is the usual one; "batch" is the provider's batch API. In a tier, the last step whose number the input
    tokens exceed holds for all tokens of the call; one without rates is unknown.
    """

    rates: Mapping[str, tuple[tuple[int, Rates | None], ...]]

    @classmethod
    def flat(cls, rates: Rates, *, batch: float | None = None) -> Price:
        """One price for every length; `batch` is the factor that a batch costs."""
        steps: dict[str, tuple[tuple[int, Rates | None], ...]] = {"": ((0, rates),)}
        if batch is not None:
            steps[_BATCH] = ((0, rates.times(batch)),)
        return cls(steps)

    @property
    def usual(self) -> Rates | None:
        """The rates of a short prompt in the usual tier."""
        steps = self.rates.get("")
        return steps[0][1] if steps else None

    def cost(self, usage: Usage, *, service_tier: str | None = None, batch: bool = False) -> float | None:
        """USD; None where a tier, a length or a sort of token has no known price."""
        tier = _tier(service_tier, batch) if service_tier or batch else ""
        steps = None if tier is None else self.rates.get(tier)
        if not steps:
            return None
        rates = steps[0][1]
        for above, further in steps[1:]:
            if usage.input_tokens > above:
                rates = further
        return None if rates is None else rates.cost(usage)


class _Listed(Price, frozen=True):
    """A price of the table, with those that begin at a later date or hold at some minutes of the day (UTC)."""

    later: tuple[tuple[str, Mapping[str, tuple[tuple[int, Rates | None], ...]]], ...] = ()
    hours: tuple[tuple[int, int, Mapping[str, tuple[tuple[int, Rates | None], ...]]], ...] = ()

    @property
    def changes(self) -> bool:
        return bool(self.later or self.hours)

    def at(self, when: datetime) -> Price:
        day, minute = when.date().isoformat(), when.hour * 60 + when.minute
        rates = self.rates
        for start, those in self.later:
            if start <= day:
                rates = those
        for first, end, those in self.hours:
            if first <= minute < end:
                rates = those
        return Price(rates)


class _Provider(Struct, frozen=True):
    names: Mapping[str, str]
    models: Mapping[str, _Listed]


class _Table(Struct, frozen=True):
    source: str
    updated: str
    providers: Mapping[str, _Provider]


class PriceTable:
    """Prices by provider and model: `PriceTable.built_in()` is the one in the package.

    `source` says whose data it is made of, `updated` (YYYY-MM-DD) of which day. Safe to use from all threads.
    """

    def __init__(self, data: bytes) -> None:
        table = msgspec.json.decode(data, type=_Table)
        self.source = table.source
        self.updated = table.updated
        self._providers = table.providers
        self._found: dict[tuple[str, str], _Listed | None] = {}

    @staticmethod
    def built_in() -> PriceTable:
        """The table in the package, read once."""
        return _built_in()

    @property
    def providers(self) -> tuple[str, ...]:
        """Whose prices it holds, by their names in the built-in models.yml."""
        return tuple(self._providers)

    def cost(
        self,
        provider: str,
        model: str,
        usage: Usage,
        *,
        service_tier: str | None = None,
        batch: bool = False,
        when: datetime | None = None,
    ) -> float | None:
        """USD for `usage`, or None where the price is unknown.

        `service_tier` is what the answer says it used; `when` (now, if left out) counts where a price changes.
        """
        price = self.price(provider, model, when=when)
        return None if price is None else price.cost(usage, service_tier=service_tier, batch=batch)

    def price(self, provider: str, model: str, *, when: datetime | None = None) -> Price | None:
        """A model's price, by its id as an answer or a request names it, with a date or without."""
        key = (provider, model)
        try:
            found = self._found[key]
        except KeyError:
            found = self._remember(key)
        if found is None or not found.changes:
            return found
        return found.at(datetime.now(UTC) if when is None else when.astimezone(UTC))

    def _remember(self, key: tuple[str, str]) -> _Listed | None:
        if len(self._found) >= _MOST_NAMES:  # names come from answers; whoever makes them up shall not fill memory
            self._found.clear()
        self._found[key] = found = self._look_up(*key)
        return found

    def _look_up(self, provider: str, model: str) -> _Listed | None:
        room = self._providers.get(provider)
        if room is None:
            return None
        # A snapshot costs what its family costs, unless it is listed itself.
        for name in spellings(_untuned(model)):
            listed = room.models.get(room.names.get(name, name))
            if listed is not None:
                return listed
        return None


@cache
def _built_in() -> PriceTable:
    return PriceTable(resources.files("agentflow.llm.config").joinpath("prices.json").read_bytes())


def _tier(service_tier: str | None, batch: bool) -> str | None:
    """The tier's name in the table; None for a batch in a tier of its own, which nobody lists."""
    name = (service_tier or "").lower()
    name = "" if name in _STANDARD else _TIER_NAMES.get(name, name)
    return _BATCH if batch and name in ("", _BATCH) else None if batch else name


def _untuned(model: str) -> str:
    """`ft:gpt-4o-mini-2024-07-18:org::id` costs what any model tuned from that one costs."""
    return ":".join(model.split(":")[:2]) if model.startswith("ft:") else model
