"""Embedding requests as one, and its vectors as the answers to each.

(a, b) (c) (d, e)  ──merged──▶  (a, b, c, d, e)  ──embed──▶  5 vectors  ──parted──▶  2, 1, 2
(a … z)            ──divided──▶  (a … j) (k … t) (u … z)                ──joined──▶  26
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from agentflow.errors import ProtocolError
from agentflow.llm.estimate import text_tokens
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Usage
from agentflow.mcp.performance.batching.portions import portions, share
from agentflow.mcp.performance.batching.rules import BatchRules

__all__ = ["divided", "joined", "merged", "parted", "tokens_of"]


def tokens_of(request: EmbeddingRequest) -> list[int]:
    """Of each input, estimated."""
    return [text_tokens(text) for text in request.inputs]


def merged(requests: Sequence[EmbeddingRequest]) -> EmbeddingRequest:
    """One for all inputs. It has as long as the most patient of them."""
    limits = [request.timeout for request in requests]
    patient = None if None in limits else max(limit for limit in limits if limit is not None)
    return replace(requests[0], inputs=tuple(text for each in requests for text in each.inputs), timeout=patient)


def parted(found: Embeddings, requests: Sequence[EmbeddingRequest]) -> list[Embeddings | Exception]:
    """The answer to each of the merged requests, with its part of the usage and the cost. Raises ProtocolError."""
    wanted = sum(len(request.inputs) for request in requests)
    if len(found.vectors) != wanted:
        raise ProtocolError(f"{len(found.vectors)} vectors came for {wanted} texts", model=found.model)
    weights = [sum(tokens_of(request)) for request in requests]
    tokens = portions(found.usage.input_tokens if found.usage else 0, weights)
    answers: list[Embeddings | Exception] = []
    at = 0
    for request, weight, used in zip(requests, weights, tokens, strict=True):
        vectors = found.vectors[at : at + len(request.inputs)]
        at += len(request.inputs)
        usage = None if found.usage is None else Usage(used)
        answers.append(replace(found, vectors=vectors, usage=usage, cost=share(found.cost, weight, weights)))
    return answers


def divided(request: EmbeddingRequest, rules: BatchRules) -> list[EmbeddingRequest]:
    """Pieces that each go into one batch; a single text that is too long for any is a piece of its own."""
    if len(request.inputs) == 1:
        return [request]
    return [replace(request, inputs=tuple(texts)) for texts in _pieces(request, rules)]


def _pieces(request: EmbeddingRequest, rules: BatchRules) -> Iterator[list[str]]:
    piece: list[str] = []
    tokens = longest = 0
    for text, count in zip(request.inputs, tokens_of(request), strict=True):
        most = max(longest, count)
        if piece and not rules.fits(len(piece) + 1, rules.weight(tokens + count, most, len(piece) + 1)):
            yield piece
            piece, tokens, most = [], 0, count
        piece.append(text)
        tokens, longest = tokens + count, most
    yield piece


def joined(answers: Sequence[Embeddings]) -> Embeddings:
    """The answer to a request that was divided."""
    if len(answers) == 1:
        return answers[0]
    costs = [answer.cost for answer in answers]
    usages = [answer.usage for answer in answers]
    return replace(
        answers[0],
        vectors=tuple(vector for answer in answers for vector in answer.vectors),
        usage=None if None in usages else sum((usage for usage in usages if usage is not None), Usage()),
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
    )
