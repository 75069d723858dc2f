"""Anthropic's message batches: all requests in one body, all answers in one file of lines.

    POST /messages/batches               {"requests": [{"custom_id", "params": {…}}, …]}  ──▶ msgbatch_…
    GET  /messages/batches/{id}          ──▶ processing_status: in_progress, canceling, ended; request_counts
    GET  /messages/batches/{id}/results  ──▶ {"custom_id", "result": {"type": "succeeded", "message": {…}}}

From platform.claude.com (docs/en/build-with-claude/batch-processing; api/messages/batches; types of its SDK 2.14): at
most 100,000 requests or 256 MB, within 24 hours; half the price; answers in no order, of the types succeeded, errored,
canceled and expired, of which the first alone is charged; a custom id has at most 64 of [a-zA-Z0-9_-].

A batch bears no name of ours, and its custom ids show only in its results. So one that may be ours is known by its time
and its size, is watched until it ends, and is then told by its answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from agentflow.errors import BadRequestError
from agentflow.llm.messages import Request, Response
from agentflow.llm.providers.api import HTTPProvider, decoded
from agentflow.llm.providers.batches.endpoint import Batch, BatchAnswer, BatchItem, BatchLimits, BatchOrder
from agentflow.llm.providers.batches.lines import encode, readable
from agentflow.llm.providers.batches.refusals import failure_of
from agentflow.llm.providers.lenient import count, mapping, moment, text

__all__ = ["ANTHROPIC", "MessageBatches"]

ANTHROPIC: Final = BatchLimits(100_000, 256_000_000)

_PATH: Final = "/messages/batches"
_COUNTS: Final = ("processing", "succeeded", "errored", "canceled", "expired")


class _Batch(Struct):
    id: str
    processing_status: object = None
    request_counts: object = None
    created_at: object = None
    cancel_initiated_at: object = None
    results_url: object = None


class _Batches(Struct):
    data: list[_Batch]
    has_more: bool = False
    last_id: str | None = None


class _Result(Struct):
    type: str = ""
    message: Raw = Raw(b"null")
    error: object = None


class _Line(Struct):
    custom_id: str
    result: _Result


_BATCH: Final = msgspec.json.Decoder(_Batch)
_BATCHES: Final = msgspec.json.Decoder(_Batches)
_LINE: Final = msgspec.json.Decoder(_Line)


class MessageBatches:
    """The batches of a provider that speaks Anthropic's API."""

    def __init__(self, provider: HTTPProvider) -> None:
        self._provider = provider
        self.limits = ANTHROPIC

    def write(self, request: Request) -> BatchItem:
        return BatchItem(*self._provider.written(request))

    def takes_file(self, order: BatchOrder) -> bool:
        return False

    async def upload(self, order: BatchOrder) -> str:
        raise NotImplementedError("Anthropic takes batches without a file")

    async def find_upload(self, order: BatchOrder, *, since: float) -> str | None:
        return None

    async def create(self, order: BatchOrder, file: str | None) -> Batch:
        requests = [{"custom_id": custom_id, "params": Raw(item.body)} for custom_id, item in order.items]
        answer, source = await self._provider.post_bytes(_PATH, encode({"requests": requests}), model=order.model)
        return _seen(decoded(_BATCH, answer.body, source))

    async def find(self, order: BatchOrder, *, since: float) -> tuple[Batch, ...]:
        """Those of its size that were begun since then."""
        found: list[Batch] = []
        path = f"{_PATH}?limit=100"
        while True:
            answer, source = await self._provider.get_bytes(path)
            page = decoded(_BATCHES, answer.body, source)
            batches = [(each, _seen(each, certain=False)) for each in page.data]
            recent = [(wire, batch) for wire, batch in batches if batch.created is None or batch.created >= since]
            found += [batch for wire, batch in recent if _size(wire) == len(order.items)]
            # The newest come first.
            if len(recent) < len(batches) or not page.has_more or not page.last_id:
                return tuple(reversed(found))
            path = f"{_PATH}?limit=100&after_id={quote(page.last_id, safe='')}"

    async def check(self, id: str) -> Batch:
        answer, source = await self._provider.get_bytes(f"{_PATH}/{quote(id, safe='')}")
        return _seen(decoded(_BATCH, answer.body, source))

    async def cancel(self, id: str) -> None:
        try:
            await self._provider.post_bytes(f"{_PATH}/{quote(id, safe='')}/cancel", b"{}", model="")
        except BadRequestError:
            return  # it has ended

    async def answers(self, batch: Batch) -> AsyncIterator[BatchAnswer]:
        answer, source = await self._provider.get_bytes(f"{_PATH}/{quote(batch.id, safe='')}/results")
        for line in readable(_LINE, answer.body, source):
            yield _answer(line)

    def read(self, answer: BatchAnswer, request: Request) -> Response:
        if answer.outcome == "answered":
            return self._provider.understood(answer.body, request, answer.request_id)
        raise failure_of(answer, self._provider.source(request.model, answer.request_id))


def _size(wire: _Batch) -> int:
    """The counts add up to the number of requests, whatever has become of them."""
    counts = mapping(wire.request_counts)
    return sum([count(counts.get(name)) for name in _COUNTS])


def _seen(wire: _Batch, *, certain: bool = True) -> Batch:
    """It ends as completed also where all of it has expired or was cancelled: each request says what became of it."""
    counts: Mapping[str, object] = mapping(wire.request_counts)
    ended = wire.processing_status == "ended"
    cancelled = ended and wire.cancel_initiated_at is not None
    return Batch(
        wire.id,
        outcome="cancelled" if cancelled else "completed" if ended else None,
        done=count(counts.get("succeeded")),
        failed=count(counts.get("errored")),
        created=moment(wire.created_at),
        certain=certain,
    )


def _answer(line: _Line) -> BatchAnswer:
    result = line.result
    if result.type == "succeeded":
        return BatchAnswer(line.custom_id, "answered", bytes(result.message))
    if result.type == "expired":
        return BatchAnswer(line.custom_id, "expired")
    if result.type == "canceled":
        return BatchAnswer(line.custom_id, "cancelled")
    error = mapping(result.error)
    request_id = text(error.get("request_id")) or None
    return BatchAnswer(line.custom_id, "failed", encode(error.get("error") or error), 200, request_id)
