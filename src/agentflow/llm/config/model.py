"""One model, resolved: everything that models.yml says about it, and what it costs.

models.yml  ──ModelRegistry.describe("gpt-4o")──▶  ModelConfig  ──cost(usage)──▶  USD
                                                        └ price: models.yml's own, else the list of its provider
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from msgspec import Struct

from agentflow.core.robustness.retry import RetryPolicy
from agentflow.llm.config.guarding import Guarding
from agentflow.llm.config.prices import Price, PriceTable
from agentflow.llm.config.schema import PRICE_LISTS, Capability, Condition
from agentflow.llm.content import Json
from agentflow.llm.messages import Thinking, Usage

__all__ = ["ROUTER", "ModelConfig", "StandIn", "price_list", "routed_to"]

ROUTER: Final = "router"
"""What stands for the provider of an entry that is no model itself."""

# Whose price list holds for a server at that address, whatever its entry is called.
_OWNERS: Final[Mapping[str, str]] = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "google",
    "api.moonshot.ai": "moonshot",
    "api.deepseek.com": "deepseek",
    "api.z.ai": "zai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.x.ai": "xai",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
}
_VERTEX: Final = "aiplatform.googleapis.com"  # each region puts its name before it
_OTHER_CURRENCY: Final = ("api.moonshot.cn", "open.bigmodel.cn")  # they bill in yuan, at prices of their own


class StandIn(NamedTuple):
    """A model that answers in another's place, when that fails with one of some errors (see `Condition`); without any,
    for all that another model may not have."""

    model: str
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model, resolved: None where models.yml says nothing, so that the provider decides.

    `name` is what callers say, `model_id` what the provider hears; `timeout` is the whole call's limit in seconds.
    `capabilities` None is unknown, so that nothing is checked; `context` and `max_output` are the model's limits in
    tokens. `price` is what models.yml states; without it the price list of the provider named by `price_list` holds.
    `regions` are all places where what it is told may be worked on; empty is unknown.
    `fallback` are the models that answer in this one's place, in order. `wrappers` are the sections of models.yml for
    what is put around the model, by name: without any it is asked itself.
    """

    name: str
    provider: str
    model_id: str
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    timeout: float | None = None
    guarding: Guarding = field(default_factory=Guarding)
    fallback: tuple[StandIn, ...] = ()
    api: str | None = None
    top_k: int | None = None
    thinking: Thinking | None = None
    capabilities: frozenset[Capability] | None = None
    context: int | None = None
    max_output: int | None = None
    price: Price | None = None
    price_list: str | None = None
    regions: tuple[str, ...] = ()
    wrappers: Mapping[str, Struct] = field(default_factory=dict)

    @property
    def routed(self) -> bool:
        """Whether it is no model itself: a router says who is asked."""
        return "router" in self.wrappers

    @property
    def retry(self) -> RetryPolicy:
        return self.guarding.retry

    def cost(
        self,
        usage: Usage,
        *,
        model: str | None = None,
        service_tier: str | None = None,
        batch: bool = False,
        when: datetime | None = None,
    ) -> float | None:
        """USD for `usage`; None where the price is unknown.

        `model` and `service_tier` are what the answer says; `when` (now, if left out) counts where a price changes.
        """
        price = self.price or self._listed(model, when)
        return None if price is None else price.cost(usage, service_tier=service_tier, batch=batch)

    def current_price(self, when: datetime | None = None) -> Price | None:
        """The price that models.yml states, else the one in the package's table."""
        return self.price or self._listed(None, when)

    def _listed(self, answered: str | None, when: datetime | None) -> Price | None:
        if self.price_list is None:
            return None
        table = PriceTable.built_in()
        found = table.price(self.price_list, answered, when=when) if answered else None
        return found or table.price(self.price_list, self.model_id, when=when)


def routed_to(config: ModelConfig) -> tuple[str, ...]:
    """The models that a router chooses from; none for a model."""
    return tuple(getattr(config.wrappers.get("router"), "candidates", ()))


def price_list(name: str, kind: str, base_url: str | None, stated: str | None) -> str | None:
    """Whose prices hold at a provider: of whom `prices:` names, else of the address's owner, else of its namesake."""
    if stated is not None or base_url is None:
        return stated or next((known for known in (name, kind) if known in PRICE_LISTS), None)
    host = urlsplit(base_url).hostname or ""
    if host in _OTHER_CURRENCY:
        return None
    owner = "google" if host.endswith(_VERTEX) else _OWNERS.get(host)
    return owner or (name if name in PRICE_LISTS else None)
