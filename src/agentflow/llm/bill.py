"""What a request has cost: by what the provider says it has used, or by an estimate where it says nothing.

Request, Response          ──▶  USD, noted in the ledgers
chunk, chunk, … (Bill)     ──▶  what has come so far; what is left early is paid for all the same
"""

from __future__ import annotations

from msgspec.structs import replace

from agentflow.llm.estimate import estimated_tokens, text_tokens
from agentflow.llm.guards import Guards
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage

__all__ = ["Bill", "estimated", "input_tokens", "paid", "spent", "usage_facts"]


def paid(guards: Guards, request: Request, answer: Response) -> float | None:
    """What the answer has cost, noted in the ledgers; estimated there, where nobody says what it has used."""
    usage, cost = answer.usage, answer.cost
    if usage is not None:
        if cost is None:
            cost = guards.config.cost(usage, model=answer.model, service_tier=answer.service_tier)
        if guards.ledgers:
            guards.spend(usage, cost)
    elif guards.ledgers:
        guards.spend(*spent(guards, request, answer))
    return cost


def spent(
    guards: Guards, request: Request | EmbeddingRequest, answer: Response | Embeddings
) -> tuple[Usage, float | None]:
    """What the answer has used and cost, as a ledger notes it: estimated, where nobody says."""
    said, tier = (answer.text, answer.service_tier) if isinstance(answer, Response) else ("", None)
    usage, cost = answer.usage, answer.cost
    if usage is None:
        usage = Usage(input_tokens(request), text_tokens(said))
    if cost is None:
        cost = guards.cost(usage, answer.model, tier)
    return usage, cost


def estimated(request: Request, said: str) -> Usage:
    """What an answer has used, where the provider does not say."""
    return Usage(input_tokens(request), text_tokens(said))


def input_tokens(request: Request | EmbeddingRequest) -> int:
    if isinstance(request, Request):
        return sum(map(estimated_tokens, request.messages))
    return sum(map(text_tokens, request.inputs))


def usage_facts(usage: Usage | None) -> dict[str, object]:
    """Tokens, as an event tells them; None where nobody has counted."""
    if usage is None:
        return {"input_tokens": None, "output_tokens": None}
    facts: dict[str, object] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if usage.cached_tokens:
        facts["cached_tokens"] = usage.cached_tokens
    if usage.cache_write_tokens:
        facts["cache_write_tokens"] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        facts["reasoning_tokens"] = usage.reasoning_tokens
    return facts


class Bill:
    """What a stream has cost by now: usage is cumulative, so the last word counts.

    A stream that is left before it says so has been paid for all the same: then what was asked and what had come is
    estimated, where somebody keeps a ledger.
    """

    __slots__ = ("_cost", "_ended", "_guards", "_said", "_tier", "request", "usage")

    def __init__(self, guards: Guards, request: Request) -> None:
        self._guards = guards
        self.request = request
        self.usage: Usage | None = None
        self._cost: float | None = None
        self._tier: str | None = None
        self._said = 0
        self._ended: set[int] = set()

    @property
    def whole(self) -> bool:
        """Whether all that was asked for has come: every answer's end, and what it used."""
        return self.usage is not None and len(self._ended) >= (self.request.n or 1)

    def note(self, chunk: StreamChunk) -> StreamChunk:
        """The chunk, with the cost so far where its usage is known."""
        self._said += len(chunk.content) + len(chunk.reasoning)
        self._tier = chunk.service_tier or self._tier
        if chunk.finish_reason is not None:
            self._ended.add(chunk.index)
        if chunk.usage is None:
            return chunk
        self.usage, self._cost = chunk.usage, chunk.cost
        if self._cost is None:
            self._cost = self._guards.cost(chunk.usage, chunk.model or self.request.model, self._tier)
        return chunk if self._cost is None else replace(chunk, cost=self._cost)

    def settle(self) -> None:
        if self._guards.ledgers:
            self._guards.spend(*self._so_far())

    def facts(self) -> dict[str, object]:
        """What is known of it, for whoever watches a stream that does not come to its end."""
        usage, cost = self._so_far()
        facts: dict[str, object] = {**usage_facts(usage), "cost": cost}
        return facts if self.usage is not None else {**facts, "estimated": True}

    @property
    def cost_so_far(self) -> float | None:
        return self._so_far()[1]

    def _so_far(self) -> tuple[Usage, float | None]:
        if self.usage is not None:
            return self.usage, self._cost
        usage = estimated(self.request, "x" * self._said)
        return usage, self._guards.cost(usage, self.request.model, self._tier)
