"""OpenAI's batches, and Moonshot's, which are spelled alike: a file of lines up, two files of answers down.

    POST /files (purpose: batch)  ──▶ file-…      {"custom_id", "method": "POST", "url": "/v1/chat/completions", "body"}
    POST /batches                 ──▶ batch_…     {"input_file_id", "endpoint", "completion_window", "metadata"}
    GET  /batches/{id}            ──▶ status, request_counts, output_file_id, error_file_id
    GET  /files/{id}/content      ──▶ {"custom_id", "response": {"status_code", "request_id", "body"}, "error"}

From developers.openai.com (guides/batch; api/reference/resources/batches; types of its SDK 3.57): at most 50,000
requests and 200 MB a file, within 24 hours; half the price; answers in no order; a batch that expires or is cancelled
keeps what was done, which is charged, and lists the rest in the error file as `batch_expired` or `batch_cancelled`.
Moonshot's own documentation (platform.kimi.com/docs/guide/use-batch-api, api/batch-create) has the same endpoints and
fields, 100 MB a file, one model a file, kimi-k2.5 and kimi-k2.6 alone, and a window of 12 hours to 7 days.

`metadata` carries our name for the batch, and the file's name says it too: so both are found again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from agentflow.errors import BadRequestError
from agentflow.llm.messages import Request, Response
from agentflow.llm.providers.api import HTTPProvider, decoded
from agentflow.llm.providers.batches.endpoint import (
    Batch,
    BatchAnswer,
    BatchFault,
    BatchItem,
    BatchLimits,
    BatchOrder,
    BatchOutcome,
)
from agentflow.llm.providers.batches.lines import JSONL, FormPart, encode, multipart_form, readable
from agentflow.llm.providers.batches.refusals import failure_of
from agentflow.llm.providers.lenient import count, mapping, mappings, number, text

__all__ = ["MOONSHOT", "OPENAI", "FileBatches"]

OPENAI: Final = BatchLimits(50_000, 200_000_000)
MOONSHOT: Final = BatchLimits(50_000, 100_000_000)  # its documentation bounds the bytes alone

_NAME: Final = "agentflow_batch"  # of our entry in a batch's metadata
_WINDOW: Final = "24h"
_OUTCOMES: Final[Mapping[str, BatchOutcome]] = {
    "completed": "completed",
    "expired": "expired",
    "cancelled": "cancelled",
    "failed": "failed",
}
_NOT_DONE: Final[Mapping[str, Literal["expired", "cancelled"]]] = {
    "batch_expired": "expired",
    "batch_cancelled": "cancelled",
}


class _Batch(Struct):
    id: str
    status: object = None
    created_at: object = None
    output_file_id: object = None
    error_file_id: object = None
    request_counts: object = None
    metadata: object = None
    errors: object = None


class _Batches(Struct):
    data: list[_Batch]
    has_more: bool = False


class _File(Struct):
    id: str
    filename: str | None = None
    purpose: str | None = None


class _Files(Struct):
    data: list[_File]
    has_more: bool = False


class _Answered(Struct):
    status_code: object = None
    request_id: str | None = None
    body: Raw = Raw(b"null")


class _Line(Struct):
    custom_id: str
    response: _Answered | None = None
    error: object = None


_BATCH: Final = msgspec.json.Decoder(_Batch)
_BATCHES: Final = msgspec.json.Decoder(_Batches)
_FILE: Final = msgspec.json.Decoder(_File)
_FILES: Final = msgspec.json.Decoder(_Files)
_LINE: Final = msgspec.json.Decoder(_Line)


class FileBatches:
    """The batches of a provider that speaks OpenAI's API for them."""

    def __init__(self, provider: HTTPProvider, limits: BatchLimits = OPENAI) -> None:
        self._provider = provider
        self.limits = limits

    def write(self, request: Request) -> BatchItem:
        return BatchItem(*self._provider.written(request))

    def takes_file(self, order: BatchOrder) -> bool:
        return True

    async def upload(self, order: BatchOrder) -> str:
        lines = b"\n".join([_line(custom_id, item) for custom_id, item in order.items])
        kind, body = multipart_form(
            [FormPart("purpose", b"batch"), FormPart("file", lines + b"\n", _filename(order), JSONL)]
        )
        answer, source = await self._provider.post_bytes(
            "/files", body, model=order.model, headers={"content-type": kind}
        )
        return decoded(_FILE, answer.body, source).id

    async def find_upload(self, order: BatchOrder, *, since: float) -> str | None:
        path = after = "/files?purpose=batch&limit=1000"
        while True:
            answer, source = await self._provider.get_bytes(after)
            page = decoded(_FILES, answer.body, source)
            for file in page.data:
                if file.filename == _filename(order):
                    return file.id
            if not page.has_more or not page.data:
                return None
            after = f"{path}&after={quote(page.data[-1].id, safe='')}"

    async def create(self, order: BatchOrder, file: str | None) -> Batch:
        body = {
            "input_file_id": file,
            "endpoint": _url(order.items[0][1]),
            "completion_window": _WINDOW,
            "metadata": {_NAME: order.name},
        }
        answer, source = await self._provider.post_bytes("/batches", encode(body), model=order.model)
        return _seen(decoded(_BATCH, answer.body, source))

    async def find(self, order: BatchOrder, *, since: float) -> tuple[Batch, ...]:
        found: list[Batch] = []
        path = after = "/batches?limit=100"
        while True:
            answer, source = await self._provider.get_bytes(after)
            page = decoded(_BATCHES, answer.body, source)
            found += [_seen(each) for each in page.data if mapping(each.metadata).get(_NAME) == order.name]
            # The newest come first.
            past = bool(page.data) and (number(page.data[-1].created_at) or since) < since
            if past or not page.has_more or not page.data:
                return tuple(sorted(found, key=lambda batch: batch.created or 0.0))
            after = f"{path}&after={quote(page.data[-1].id, safe='')}"

    async def check(self, id: str) -> Batch:
        answer, source = await self._provider.get_bytes(f"/batches/{quote(id, safe='')}")
        return _seen(decoded(_BATCH, answer.body, source))

    async def cancel(self, id: str) -> None:
        try:
            await self._provider.post_bytes(f"/batches/{quote(id, safe='')}/cancel", b"{}", model="")
        except BadRequestError:
            return  # it has ended, or is being cancelled already

    async def answers(self, batch: Batch) -> AsyncIterator[BatchAnswer]:
        for file in batch.results:
            answer, source = await self._provider.get_bytes(f"/files/{quote(file, safe='')}/content")
            for line in readable(_LINE, answer.body, source):
                yield _answer(line)

    def read(self, answer: BatchAnswer, request: Request) -> Response:
        if answer.outcome == "answered":
            return self._provider.understood(answer.body, request, answer.request_id)
        raise failure_of(answer, self._provider.source(request.model, answer.request_id))


def _url(item: BatchItem) -> str:
    """As a batch names an endpoint: with the version, which else stands in the base address."""
    return f"/v1{item.path}"


def _filename(order: BatchOrder) -> str:
    return f"{order.name}.jsonl"


def _line(custom_id: str, item: BatchItem) -> bytes:
    return encode({"custom_id": custom_id, "method": "POST", "url": _url(item), "body": Raw(item.body)})


def _seen(wire: _Batch) -> Batch:
    counts = mapping(wire.request_counts)
    done, failed = number(counts.get("completed")), number(counts.get("failed"))
    return Batch(
        wire.id,
        outcome=_OUTCOMES.get(text(wire.status)),
        done=None if done is None else int(done),
        failed=None if failed is None else int(failed),
        created=number(wire.created_at),
        results=tuple([file for each in (wire.output_file_id, wire.error_file_id) if (file := text(each))]),
        faults=tuple([_fault(each) for each in mappings(mapping(wire.errors).get("data"))]),
    )


def _fault(wire: Mapping[str, Any]) -> BatchFault:
    """Lines are counted from 1."""
    line = count(wire.get("line"))
    return BatchFault(
        text(wire.get("message")) or "no reason given", text(wire.get("code")) or None, line - 1 if line else None
    )


def _answer(line: _Line) -> BatchAnswer:
    response = line.response
    if response is None or line.error:
        error = mapping(line.error)
        outcome = _NOT_DONE.get(text(error.get("code")))
        if outcome is not None:
            return BatchAnswer(line.custom_id, outcome)
        return BatchAnswer(line.custom_id, "failed", encode(line.error), 200)
    status = count(response.status_code) or 200
    if status == 200:
        return BatchAnswer(line.custom_id, "answered", bytes(response.body), 200, response.request_id)
    body = msgspec.json.decode(response.body)
    error = mapping(body).get("error") or body
    return BatchAnswer(line.custom_id, "failed", encode(error), status, response.request_id)
