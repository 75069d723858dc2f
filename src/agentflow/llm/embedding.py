"""Texts to vectors: in calls that the provider takes, each guarded and observed as a question is.

EmbeddingRequest ──▶ parts ──▶ pipeline (queue, limiter, breaker, attempts) ──▶ Embeddings ──▶ price, ledger
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from agentflow.core.durability.step import current_step
from agentflow.core.robustness.deadline import Deadline
from agentflow.errors import ProtocolError
from agentflow.llm.asked import Asked
from agentflow.llm.bill import spent
from agentflow.llm.guards import Guards
from agentflow.llm.messages import EmbeddingRequest, Embeddings
from agentflow.llm.providers.base import EmbeddingProvider
from agentflow.llm.streaming.join import total

if TYPE_CHECKING:  # loaded in a durable step alone
    from agentflow.llm.journal.answers import Entry

__all__ = ["embedded"]

_MOST_INPUTS: Final = 2048  # of one call for vectors, where the provider does not say
_MOST_BYTES: Final = 600_000  # of one call for vectors: OpenAI takes 300,000 tokens, of at least two bytes or so


async def embedded(guards: Guards, provider: EmbeddingProvider, request: EmbeddingRequest) -> Embeddings:
    """One vector for each text, however many calls that takes; one limit of time spans them. Raises what a question
    raises, and ProtocolError."""
    parts = _batches(request.inputs, getattr(provider, "most_inputs", _MOST_INPUTS))
    deadline = guards.deadline(request.timeout)
    try:
        answers = [await _Call(guards, provider, replace(request, inputs=part), deadline).whole() for part in parts]
    finally:
        deadline.close()
    return _together(answers) if answers else Embeddings((), request.model, guards.config.provider)


class _Call:
    """One call for vectors and its repetitions, bounded as `Attempts`."""

    __slots__ = ("_deadline", "_guards", "_provider", "request")

    def __init__(
        self, guards: Guards, provider: EmbeddingProvider, request: EmbeddingRequest, deadline: Deadline
    ) -> None:
        self._guards = guards
        self._provider = provider
        self.request = request
        self._deadline = deadline

    async def whole(self) -> Embeddings:
        """One vector for each text, with their cost. Raises as a question does."""
        step = current_step.get()
        if step is None:
            return await self._asked(None)
        from agentflow.llm.journal.answers import Entry

        guards = self._guards
        entry = Entry(step, self.request, guards.config.name, guards.config.provider, Embeddings)
        if entry.found is None:
            return await self._asked(entry)
        return await entry.replay(guards, entry.found.reply)

    async def _asked(self, entry: Entry[Embeddings] | None) -> Embeddings:
        guards, request = self._guards, self.request
        for ledger in guards.ledgers:
            ledger.request()
        key = None if entry is None else entry.key(guards.config.name)
        async with Asked(guards, request, self._deadline, key) as asked:
            if asked.noted:
                await asked.begin(request)
            held = await guards.pipeline.open(lambda: self._provider.embed(request), asked.operation(request))
            found = held.value
            usage, cost = spent(guards, request, found)
            asked.settle(held, usage, guards.clock.monotonic())
            guards.spend(usage, cost)
            if found.usage is not None:
                found = replace(found, cost=cost)
            if len(found.vectors) != len(request.inputs):
                raise ProtocolError(
                    f"{len(found.vectors)} vectors came for {len(request.inputs)} texts",
                    provider=found.provider,
                    model=found.model,
                )
            timing = asked.timing()
            try:
                if entry is not None:
                    await entry.keep(guards, request, found, timing.attempts)
            finally:
                if asked.noted:
                    await asked.success(found, timing)
            return found


def _batches(texts: tuple[str, ...], most: int) -> Iterator[tuple[str, ...]]:
    """Texts in calls that a provider takes: at most so many of them, and not too long together."""
    start = size = 0
    for index, text in enumerate(texts):
        length = len(text.encode())
        if index > start and (index - start >= most or size + length > _MOST_BYTES):
            yield texts[start:index]
            start, size = index, 0
        size += length
    if texts:
        yield texts[start:]


def _together(answers: Sequence[Embeddings]) -> Embeddings:
    """Several calls for vectors as one."""
    usage, cost = total([(answer.usage, answer.cost) for answer in answers])
    vectors = tuple([vector for answer in answers for vector in answer.vectors])
    return replace(answers[-1], vectors=vectors, usage=usage, cost=cost)
