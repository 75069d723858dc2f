"""What a batch API is: an order of many requests, what became of it, and the answers one by one.

    Request ──write──▶ BatchItem ─┐
    Request ──write──▶ BatchItem ─┴─ BatchOrder ──upload──▶ file ──create──▶ Batch(id, running)
                                                                    check ──▶ Batch(id, ended, "completed")
    Response ◀──read── BatchAnswer, BatchAnswer, … ◀──answers──┘    find  ──▶ those that an order may have become

Nothing here repeats anything: a call that fails says so, and whoever made it decides whether it may be made again. That
matters for `create` alone, which is what is paid for; after one whose outcome is unknown, `find` says what came of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from agentflow.llm.messages import Request, Response

__all__ = [
    "Batch",
    "BatchAnswer",
    "BatchEndpoint",
    "BatchFault",
    "BatchItem",
    "BatchLimits",
    "BatchOrder",
    "BatchOutcome",
]

BatchOutcome = Literal["completed", "expired", "cancelled", "failed"]
"""How a batch ended as a whole. All but `failed` may have answers: what was done before it ended is paid for."""


class BatchLimits(Struct, frozen=True):
    """What the provider takes in one batch: so many requests, so many bytes of them together. After `window` seconds it
    gives up what is not done."""

    requests: int
    bytes: int
    window: float = 86_400.0


class BatchItem(Struct, frozen=True):
    """One request as the API gets it: the body is, byte for byte, that of a direct call to `path`."""

    path: str
    body: bytes


class BatchOrder(Struct, frozen=True):
    """What is to become one batch. `name` is ours, told to every API that keeps names, so that the batch can be found
    again; `items` are pairs of a custom id and what is asked, all for one model and one path."""

    name: str
    model: str
    items: Sequence[tuple[str, BatchItem]]

    @property
    def size(self) -> int:
        """Bytes of all bodies."""
        return sum([len(item.body) for _, item in self.items])


class BatchFault(Struct, frozen=True):
    """Why a provider refused a batch. `index` is the request that it blames, None where it blames none."""

    message: str
    code: str | None = None
    index: int | None = None


class Batch(Struct, frozen=True):
    """A batch at the provider, as it was when it was asked after.

    `outcome` is None while it runs; `done` and `failed` count requests, None where the API does not say. `results` is
    where the answers are: names of files, or nothing where they are asked for by the id. `certain` is False where the
    API keeps no names, so that only the answers can tell whose batch it is.
    """

    id: str
    outcome: BatchOutcome | None = None
    done: int | None = None
    failed: int | None = None
    created: float | None = None
    results: tuple[str, ...] = ()
    faults: tuple[BatchFault, ...] = ()
    certain: bool = True


class BatchAnswer(Struct, frozen=True):
    """What the provider says of one request, as it stands on the wire. `outcome` is answered, failed (`body` is then
    the error), expired or cancelled; the last two were not worked on, and cost nothing. `index` is the place of the
    request in its order, where the API names no custom id."""

    custom_id: str
    outcome: Literal["answered", "failed", "expired", "cancelled"]
    body: bytes = b""
    status: int = 200
    request_id: str | None = None
    index: int | None = None


class BatchEndpoint(Protocol):
    """The batch API of one provider. All methods raise ModelError where the call fails."""

    @property
    def limits(self) -> BatchLimits: ...

    def write(self, request: Request) -> BatchItem:
        """Raises BadRequestError for what the API cannot say."""
        ...

    def takes_file(self, order: BatchOrder) -> bool:
        """Whether the order is uploaded before it is created."""
        ...

    async def upload(self, order: BatchOrder) -> str:
        """The id of a new file that holds the order."""
        ...

    async def find_upload(self, order: BatchOrder, *, since: float) -> str | None:
        """The file that an earlier `upload` of this order made; `since` is when, in seconds since 1970."""
        ...

    async def create(self, order: BatchOrder, file: str | None) -> Batch:
        """Begin. From here on it is paid for."""
        ...

    async def find(self, order: BatchOrder, *, since: float) -> tuple[Batch, ...]:
        """What earlier calls of `create` for this order may have made, the oldest first."""
        ...

    async def check(self, id: str) -> Batch:
        """Raises NotFoundError where the provider has no such batch (any more)."""
        ...

    async def cancel(self, id: str) -> None:
        """Ask for an early end. What is done by then is kept and paid for; one that has ended is left as it is."""
        ...

    def answers(self, batch: Batch) -> AsyncIterator[BatchAnswer]:
        """What became of the requests of a batch that has ended, in no order, and perhaps not of all."""
        ...

    def read(self, answer: BatchAnswer, request: Request) -> Response:
        """The answer as a direct call would return it. Raises the ModelError that it stands for."""
        ...
