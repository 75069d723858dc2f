"""What models.yml says of the guards of a model: its levels laid over each other.

defaults < provider < model   ──guarding──▶   Guarding(retry, breaker, shedder, rate_limit, hedge)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType

from agentflow.core.robustness.retry import RetryPolicy
from agentflow.llm.config.schema import Defaults, ModelEntry, ProviderEntry, set_fields

__all__ = ["GUARDS", "Guarding", "Options", "guarding"]

Options = Mapping[str, Any]
GUARDS: Final = ("retry", "breaker", "shedder", "rate_limit", "hedge")
"""The fields of a model's entry that say something of its guards."""
Switch = bool | Struct | UnsetType | None


@dataclass(frozen=True, slots=True)
class Guarding:
    """What models.yml says of a model's guards; None where one is switched off, an empty mapping for its defaults.

    `shares_limit` is True where the rate limit is the provider's, for all its models together.
    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    retry_budget: Options | None = field(default_factory=dict)
    breaker: Options | None = field(default_factory=dict)
    shedder: Options | None = field(default_factory=dict)
    rate_limit: Options = field(default_factory=dict)
    hedge: Options | None = None
    shares_limit: bool = False


def guarding(defaults: Defaults, provider: ProviderEntry, model: ModelEntry, *, in_process: bool = False) -> Guarding:
    """The levels laid over each other. What runs in this process has no server that could be down or overrun."""
    retry = _merged([defaults.retry, provider.retry, model.retry]) or {}
    budget = retry.pop("budget", True)
    own = _merged([model.rate_limit])
    shares = not own and model.rate_limit is not None  # null takes away what the provider's entry says
    common = _merged([provider.rate_limit]) if shares else None
    return Guarding(
        retry=RetryPolicy(**retry),
        retry_budget=_merged([budget]),
        breaker=_merged([not in_process, defaults.breaker, provider.breaker, model.breaker]),
        shedder=_merged([not in_process, defaults.shedder, provider.shedder, model.shedder]),
        rate_limit=own or common or {},
        hedge=_merged([False, provider.hedge, model.hedge]),
        shares_limit=bool(common),
    )


def _merged(levels: Sequence[Switch]) -> dict[str, Any] | None:
    """Later levels win field by field; False and null switch off what came before, True switches it on."""
    found: dict[str, Any] | None = None
    for level in levels:
        if level is UNSET:
            continue
        if not level:
            found = None
            continue
        found = {**(found or {}), **(set_fields(level) if isinstance(level, Struct) else {})}
    return found
