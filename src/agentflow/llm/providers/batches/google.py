"""Gemini's batches: small ones in one body, large ones as a file of lines.

    POST /upload/v1beta/files                ──▶ files/…      {"key", "request": {…}}, a line each
    POST /models/{id}:batchGenerateContent   ──▶ batches/…    {"batch": {"displayName", "inputConfig": …}}
    GET  /batches/{id}                       ──▶ metadata.state, batchStats, inlinedResponses or responsesFile
    GET  /files/{id}:download?alt=media      ──▶ {"key", "response": {…}} or {"key", "error": {…}}, a line each

From ai.google.dev (gemini-api/docs/batch-api; api/batch-api; api/files; requests of its SDK 3.6): 20 MB in a body, 2 GB
in a file, half the price; the aim is 24 hours, after 48 a batch expires and has no answers. Creating is not idempotent:
asked twice, there are two batches. `displayName` carries our name for the batch, and a file's id is of our choice (40
of [a-z0-9-]), so both are found again. Vertex has another API for it, with buckets, which is not spoken here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from agentflow.errors import BadRequestError, NotFoundError
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
from agentflow.llm.providers.batches.lines import JSONL, encode, multipart_related, readable
from agentflow.llm.providers.batches.refusals import failure_of
from agentflow.llm.providers.http import Transport
from agentflow.llm.providers.lenient import count, mapping, moment, number, text

__all__ = ["GOOGLE", "INLINE", "GeminiBatches"]

GOOGLE: Final = BatchLimits(50_000, 500_000_000, window=172_800.0)
"""A file may hold 2 GB; it is uploaded in one piece, from memory, so ours are smaller. Nobody states a number of
requests."""
INLINE: Final = 16_000_000
"""Bytes of requests that go without a file. The limit is 20 MB for all of a body."""

_OUTCOMES: Final[Mapping[str, BatchOutcome]] = {
    "BATCH_STATE_SUCCEEDED": "completed",
    "BATCH_STATE_EXPIRED": "expired",
    "BATCH_STATE_CANCELLED": "cancelled",
    "BATCH_STATE_FAILED": "failed",
}
# google.rpc.Code, in which an error of a single request is told, as the HTTP status that Google maps it to.
_STATUS: Final = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 13: 500, 14: 503, 16: 401}
_IN_BODY: Final = "inline"
_NOTHING: Final = Raw(b"null")


class _Operation(Struct):
    name: str
    metadata: object = None
    done: bool = False
    response: object = None
    error: object = None


class _Operations(Struct):
    operations: list[_Operation] = []
    nextPageToken: str | None = None  # noqa: N815


class _File(Struct):
    name: str


class _Uploaded(Struct):
    file: _File


class _Line(Struct):
    key: str | None = None
    metadata: object = None
    response: Raw = _NOTHING
    error: object = None


class _Inlined(Struct):
    inlinedResponses: list[_Line] = []  # noqa: N815


class _Output(Struct):
    inlinedResponses: _Inlined | None = None  # noqa: N815
    output: _Output | None = None


class _Ended(Struct):
    response: _Output | None = None
    metadata: _Output | None = None


_OPERATION: Final = msgspec.json.Decoder(_Operation)
_OPERATIONS: Final = msgspec.json.Decoder(_Operations)
_UPLOADED: Final = msgspec.json.Decoder(_Uploaded)
_STORED: Final = msgspec.json.Decoder(_File)
_LINE: Final = msgspec.json.Decoder(_Line)
_ENDED: Final = msgspec.json.Decoder(_Ended)


class GeminiBatches:
    """The batches of the Gemini API. Files go by `uploads`, for they have an address of their own; `inline` is how many
    bytes of requests go without one."""

    def __init__(self, provider: HTTPProvider, uploads: Transport, *, inline: int = INLINE) -> None:
        self._provider = provider
        self._uploads = uploads
        self._inline = inline
        self.limits = GOOGLE

    def write(self, request: Request) -> BatchItem:
        return BatchItem(*self._provider.written(request))

    def takes_file(self, order: BatchOrder) -> bool:
        return order.size > self._inline

    async def upload(self, order: BatchOrder) -> str:
        told = encode({"file": {"name": f"files/{order.name}", "displayName": order.name, "mimeType": JSONL}})
        lines = b"\n".join([encode({"key": key, "request": Raw(item.body)}) for key, item in order.items])
        kind, body = multipart_related([("application/json; charset=utf-8", told), (JSONL, lines + b"\n")])
        answer, source = await self._provider.post_bytes(
            "/files",
            body,
            model=order.model,
            headers={"content-type": kind, "x-goog-upload-protocol": "multipart"},
            transport=self._uploads,
        )
        return decoded(_UPLOADED, answer.body, source).file.name

    async def find_upload(self, order: BatchOrder, *, since: float) -> str | None:
        try:
            answer, source = await self._provider.get_bytes(f"/files/{order.name}")
        except NotFoundError:
            return None
        return decoded(_STORED, answer.body, source).name

    async def create(self, order: BatchOrder, file: str | None) -> Batch:
        given = {"fileName": file} if file is not None else {"requests": {"requests": list(map(_inlined, order.items))}}
        body = encode({"batch": {"displayName": order.name, "inputConfig": given}})
        path = order.items[0][1].path.partition(":")[0] + ":batchGenerateContent"
        answer, source = await self._provider.post_bytes(path, body, model=order.model)
        return _seen(decoded(_OPERATION, answer.body, source))

    async def find(self, order: BatchOrder, *, since: float) -> tuple[Batch, ...]:
        found: list[Batch] = []
        page, read = "", set[str]()
        while True:
            more = f"&pageToken={quote(page, safe='')}" if page else ""
            answer, source = await self._provider.get_bytes(f"/batches?pageSize=100{more}")
            listed = decoded(_OPERATIONS, answer.body, source)
            found += [_seen(each) for each in listed.operations if _name(each) == order.name]
            read.add(page)
            page = listed.nextPageToken or ""
            if not page or page in read:
                return tuple(sorted(found, key=lambda batch: batch.created or 0.0))

    async def check(self, id: str) -> Batch:
        answer, source = await self._provider.get_bytes(f"/{quote(id, safe='/')}")
        return _seen(decoded(_OPERATION, answer.body, source))

    async def cancel(self, id: str) -> None:
        try:
            await self._provider.post_bytes(f"/{quote(id, safe='/')}:cancel", b"{}", model="")
        except BadRequestError:
            return  # it has ended

    async def answers(self, batch: Batch) -> AsyncIterator[BatchAnswer]:
        for place in batch.results:
            if place == _IN_BODY:
                answer, source = await self._provider.get_bytes(f"/{quote(batch.id, safe='/')}")
                for index, line in enumerate(_lines(decoded(_ENDED, answer.body, source))):
                    yield _answer(line, index)
                continue
            answer, source = await self._provider.get_bytes(f"/{quote(place, safe='/')}:download?alt=media")
            for index, line in enumerate(readable(_LINE, answer.body, source)):
                yield _answer(line, index)

    def read(self, answer: BatchAnswer, request: Request) -> Response:
        if answer.outcome == "answered":
            return self._provider.understood(answer.body, request, answer.request_id)
        raise failure_of(answer, self._provider.source(request.model, answer.request_id))


def _inlined(item: tuple[str, BatchItem]) -> dict[str, object]:
    key, asked = item
    return {"request": Raw(asked.body), "metadata": {"key": key}}


def _name(wire: _Operation) -> str:
    return text(mapping(wire.metadata).get("displayName"))


def _seen(wire: _Operation) -> Batch:
    known = mapping(wire.metadata)
    stats = mapping(known.get("batchStats"))
    outcome = _OUTCOMES.get(text(known.get("state")))
    if outcome is None and wire.done:
        outcome = "failed" if wire.error else "completed"
    done, failed = number(stats.get("successfulRequestCount")), number(stats.get("failedRequestCount"))
    return Batch(
        wire.name,
        outcome=outcome,
        done=None if done is None else int(done),
        failed=None if failed is None else int(failed),
        created=moment(known.get("createTime")),
        results=_places(mapping(wire.response), mapping(known.get("output"))) if outcome else (),
        faults=(_fault(mapping(wire.error)),) if wire.error else (),
    )


def _places(*outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the answers are: the operation says it once or twice, in its response and in its metadata."""
    for output in outputs:
        inner = mapping(output.get("output")) or output
        if file := text(inner.get("responsesFile")):
            return (file,)
        if inner.get("inlinedResponses"):
            return (_IN_BODY,)
    return ()


def _fault(error: Mapping[str, Any]) -> BatchFault:
    return BatchFault(text(error.get("message")) or "no reason given", str(error.get("code") or "") or None)


def _lines(ended: _Ended) -> list[_Line]:
    for output in (ended.response, ended.metadata):
        for inner in (output, output.output if output else None):
            if inner is not None and inner.inlinedResponses is not None:
                return inner.inlinedResponses.inlinedResponses
    return []


def _answer(line: _Line, index: int) -> BatchAnswer:
    """The key stands beside a line of a file, and in the metadata of an inlined answer."""
    key = line.key or text(mapping(line.metadata).get("key"))
    if not line.error and bytes(line.response) != b"null":
        return BatchAnswer(key, "answered", bytes(line.response), index=index)
    error = mapping(line.error)
    code = count(error.get("code"))
    return BatchAnswer(key, "failed", encode(error), _STATUS.get(code, code if code >= 400 else 500), index=index)
