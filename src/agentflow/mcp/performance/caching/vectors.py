"""Vectors of texts, kept text by text: of a hundred texts the three that are new are asked for.

    embed(a, b, c) ──▶ a, c are there ──▶ the model is asked for b ──▶ one Embeddings, in the order that was asked

A text's share of the bill is its share of the characters: providers tell the sum alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from agentflow.llm.messages import EmbeddingRequest, Embeddings, Usage
from agentflow.mcp.performance.caching.canonical import canonical_text
from agentflow.mcp.performance.caching.kept import Kept, Times
from agentflow.mcp.performance.caching.keys import Keyring
from agentflow.mcp.performance.caching.shelf import Shelf

__all__ = ["Vectors", "missing", "put_together"]


class Vectors:
    """The part of a cache that keeps vectors. `times` says how long an answer of now holds."""

    def __init__(self, shelf: Shelf, keyring: Keyring, provider: str, variant: str, times: Callable[[], Times]) -> None:
        self._shelf = shelf
        self._keyring = keyring
        self._provider = provider
        self._variant = variant
        self._times = times

    def names(self, request: EmbeddingRequest, tenant: str | None) -> Mapping[str, str]:
        """The name that each text's vector is kept under. Raises SerializationError."""
        return {text: self._name(request, text, tenant) for text in dict.fromkeys(request.inputs)}

    async def look(self, names: Mapping[str, str], tenant: str | None) -> dict[str, Kept]:
        """Those that are there, by text."""
        found = {}
        for text, name in names.items():
            held = await self._shelf.fresh(name, tenant)
            if held is not None and held.kept.vector:
                found[text] = held.kept
        return found

    async def keep(
        self, names: Mapping[str, str], texts: Sequence[str], answer: Embeddings, tenant: str | None
    ) -> None:
        """Keep the vectors of an answer to exactly these texts."""
        whole = sum(map(len, texts)) or 1
        for text, vector in zip(texts, answer.vectors, strict=True):
            cost = None if answer.cost is None else answer.cost * len(text) / whole
            await self._shelf.keep(names[text], tenant, self._kept(text, vector, cost, answer, tenant))

    def _kept(
        self, text: str, vector: Sequence[float], cost: float | None, answer: Embeddings, tenant: str | None
    ) -> Kept:
        times = self._times()
        labels = self._keyring.labels(models=(answer.model,), prompt=text, tags=(), tenant=tenant)
        packed = array("d", vector).tobytes()
        return Kept(
            times.created, times.expires, times.gone, answer.provider, answer.model, cost, labels, vector=packed
        )

    def _name(self, request: EmbeddingRequest, text: str, tenant: str | None) -> str:
        return self._keyring.name(tenant, canonical_text(request, text, self._provider, self._variant))


def put_together(
    request: EmbeddingRequest, found: Mapping[str, Kept], asked: Embeddings | None, provider: str
) -> Embeddings:
    """One answer, in the order of the texts. What was found costs nothing and took no tokens."""
    fresh = {} if asked is None else dict(zip(missing(request, found), asked.vectors, strict=True))
    vectors = tuple([fresh[text] if text in fresh else _vector(found[text]) for text in request.inputs])
    if asked is not None:
        return replace(asked, vectors=vectors)
    first = next(iter(found.values()))
    return Embeddings(vectors, first.model, first.provider or provider, usage=Usage(), cost=0.0)


def missing(request: EmbeddingRequest, found: Mapping[str, Kept]) -> tuple[str, ...]:
    """The texts that are to be asked for, each once, in their order."""
    return tuple([text for text in dict.fromkeys(request.inputs) if text not in found])


def _vector(kept: Kept) -> tuple[float, ...]:
    numbers = array("d")
    numbers.frombytes(kept.vector)
    return tuple(numbers)
