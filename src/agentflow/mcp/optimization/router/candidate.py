"""A model that a router may choose: who answers, and what is known of it before it is asked.

    ModelRouter({"small": Candidate(provider, price=…, quality=0.8), "large": other_provider})
    models.yml: candidates: [small, large]        what is known stands in the entries of these models

What nobody has said is unknown: nothing is checked against it, and an unknown price is the last to be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from agentflow.errors import ConfigurationError
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.prices import Price
from agentflow.llm.config.schema import Capability
from agentflow.llm.messages import Response, StreamChunk
from agentflow.llm.providers.base import LLMProvider

__all__ = ["Candidate", "Pool", "given"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider and what is known of the model behind it.

    `model` is what the provider calls it (the candidate's name, where left out). `capabilities` is what it can do
    beside text; `context` and `max_output` are its limits in tokens. `regions` are all places where what it is told may
    be worked on. `quality` is how good its answers are on the whole, from 0 to 1: what a router without a learned
    policy goes by. Raises ConfigurationError for a quality out of that range.
    """

    provider: LLMProvider
    model: str | None = None
    price: Price | None = None
    capabilities: Iterable[Capability] | None = None
    context: int | None = None
    max_output: int | None = None
    regions: tuple[str, ...] = ()
    quality: float | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 0.0 <= self.quality <= 1.0:
            raise ConfigurationError(f"quality of a candidate is from 0 to 1, not {self.quality!r}")

    def config(self, name: str) -> ModelConfig:
        """What models.yml would say of it."""
        can = None if self.capabilities is None else frozenset(self.capabilities)
        return ModelConfig(
            name,
            self.provider.name,
            self.model or name,
            capabilities=can,
            context=self.context,
            max_output=self.max_output,
            price=self.price,
            regions=self.regions,
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of a router, by name, in the order in which they were stated.

    `describe` says what is known of one, `ask` gives the provider that asks it, and raises ConfigurationError for one
    that cannot be asked. `owned` are the providers that end with the router, `qualities` what was stated of them.
    """

    names: tuple[str, ...]
    describe: Callable[[str], ModelConfig]
    ask: Callable[[str], LLMProvider]
    owned: tuple[LLMProvider, ...] = ()
    qualities: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigurationError("a router needs at least one candidate")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"a candidate of a router is named twice: {', '.join(twice)}")

    def priced(self, name: str, answer: Response) -> Response:
        """The answer with its cost, where its provider has left that to others."""
        if answer.cost is not None or answer.usage is None:
            return answer
        config = self.describe(name)
        cost = config.cost(answer.usage, model=answer.model, service_tier=answer.service_tier)
        return answer if cost is None else replace(answer, cost=cost)

    def priced_chunk(self, name: str, chunk: StreamChunk) -> StreamChunk:
        """The same for a piece that says what was used."""
        if chunk.cost is not None or chunk.usage is None:
            return chunk
        cost = self.describe(name).cost(chunk.usage, model=chunk.model, service_tier=chunk.service_tier)
        return chunk if cost is None else replace(chunk, cost=cost)

    def check(self, names: Iterable[str], where: str) -> None:
        """Raises ConfigurationError for names that are no candidates; `where` is what names them."""
        strange = [name for name in names if name not in self.names]
        if strange:
            raise ConfigurationError(
                f"{where} names {', '.join(strange)}, which is no candidate of the router; they are "
                f"{', '.join(self.names)}"
            )


def given(candidates: Mapping[str, LLMProvider | Candidate]) -> Pool:
    """Candidates that were given as providers."""
    known = {name: each if isinstance(each, Candidate) else Candidate(each) for name, each in candidates.items()}
    configs = {name: each.config(name) for name, each in known.items()}
    return Pool(
        tuple(known),
        configs.__getitem__,
        lambda name: known[name].provider,
        tuple({id(each.provider): each.provider for each in known.values()}.values()),
        {name: each.quality for name, each in known.items() if each.quality is not None},
    )
