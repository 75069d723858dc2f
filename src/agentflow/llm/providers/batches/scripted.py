"""Batches of a provider that says what it was told to: for tests of what is done with batches, without a network.

provider = ScriptedProvider(lambda request: request.prompt.upper())
provider.batches()          a batch is worked on as it is made, and lives as long as the provider does
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from agentflow.errors import ModelError, NotFoundError
from agentflow.llm.messages import Request, Response
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.providers.batches.endpoint import Batch, BatchAnswer, BatchItem, BatchLimits, BatchOrder

__all__ = ["ScriptedBatches"]

_ANY: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


class ScriptedBatches:
    """`limits` may be set, to see a job split."""

    def __init__(self, provider: LLMProvider) -> None:
        self.limits = BatchLimits(1_000, 10_000_000)
        self._provider = provider
        self._made: dict[str, tuple[BatchOrder, list[BatchAnswer]]] = {}
        self._errors: dict[str, ModelError] = {}

    def write(self, request: Request) -> BatchItem:
        return BatchItem("/scripted", msgspec.json.encode(request.to_json()))

    def takes_file(self, order: BatchOrder) -> bool:
        return False

    async def upload(self, order: BatchOrder) -> str:
        return order.name

    async def find_upload(self, order: BatchOrder, *, since: float) -> str | None:
        return None

    async def create(self, order: BatchOrder, file: str | None) -> Batch:
        answers = [await self._answer(custom_id, item) for custom_id, item in order.items]
        id = f"batch-{len(self._made) + 1}"
        self._made[id] = order, answers
        return await self.check(id)

    async def _answer(self, custom_id: str, item: BatchItem) -> BatchAnswer:
        try:
            response = await self._provider.execute(Request.from_json(_ANY.decode(item.body)))
        except ModelError as error:
            self._errors[custom_id] = error
            return BatchAnswer(custom_id, "failed")
        return BatchAnswer(custom_id, "answered", msgspec.json.encode(response.to_json()))

    async def find(self, order: BatchOrder, *, since: float) -> tuple[Batch, ...]:
        return tuple([await self.check(id) for id, (made, _) in self._made.items() if made.name == order.name])

    async def check(self, id: str) -> Batch:
        if id not in self._made:
            raise NotFoundError(f"there is no batch {id!r}: it lived as long as its provider", model="")
        _, answers = self._made[id]
        done = sum([answer.outcome == "answered" for answer in answers])
        return Batch(id, "completed", done, len(answers) - done)

    async def cancel(self, id: str) -> None:
        """It has ended."""

    async def answers(self, batch: Batch) -> AsyncIterator[BatchAnswer]:
        for answer in self._made[batch.id][1]:
            yield answer

    def read(self, answer: BatchAnswer, request: Request) -> Response:
        if answer.outcome == "answered":
            return Response.from_json(_ANY.decode(answer.body))
        raise self._errors[answer.custom_id]
