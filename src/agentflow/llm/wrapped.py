"""One request to an entry of models.yml that wraps models: a cache, a budget, a router answer it, or ask on.

    Request ──▶ cache ──▶ budget ──▶ router ──▶ GuardedModel ──▶ Response, or chunks
                  └─ each knows the Caller, and tells whoever watches what it decides

The entry itself guards, prices and tells nothing: that is done for each model that is asked in the end, and where none
is, nothing is paid. One limit of time spans all of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec.structs import replace

from agentflow.core.durability.step import DurableStep, current_step, step_out
from agentflow.core.limits import Ledger, Limits
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.timing import Timing
from agentflow.errors import ModelTimeoutError
from agentflow.llm.caller import asking_as, caller_of, steps_as
from agentflow.llm.guards import Guards
from agentflow.llm.messages import Request, Response, StreamChunk

__all__ = ["Wrapped"]

_HEAD_START: Final = 0.01  # seconds, at most a tenth of the time


class Wrapped:
    """The request under way. `answered` is who has answered, provider and model, as far as it is known. `step` is the
    durable step of the requests that are made for it."""

    __slots__ = (
        "_caller",
        "_deadline",
        "_guards",
        "_made",
        "_own",
        "_request",
        "_spent",
        "_started",
        "_step",
        "answered",
    )

    def __init__(
        self, guards: Guards, request: Request, deadline: Deadline | None, step: DurableStep | None = None
    ) -> None:
        self._own = deadline is None
        self._deadline = guards.deadline(request.timeout) if deadline is None else deadline
        self._guards = guards
        self._request = request
        self._step = step
        self._spent: list[Timing] = []
        self._started = guards.clock.monotonic()
        self._made = Ledger(Limits())
        self._caller = caller_of(guards, self._spent.append).charging(self._made)
        self.answered = guards.config.provider, request.model

    async def whole(self) -> Response:
        """The answer. Raises what the wrapped provider raises, and ModelTimeoutError."""
        try:
            with self._deadline, self._inside(), asking_as(self._caller):
                answer = await self._guards.provider.execute(self._bounded())
        finally:
            self._end()
        self.answered = answer.provider, answer.model
        return replace(answer, timing=self.timing(), run_id=self._guards.run_id)

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """The answer as it comes."""
        source = steps_as(self._caller, self._guards.provider.execute_streaming(self._bounded()))
        ended = False
        try:
            while True:
                try:
                    with self._deadline, self._inside():
                        chunk = await anext(source, None)
                except ModelTimeoutError:
                    if not ended:
                        raise
                    chunk = None  # nothing but the end of the connection is late
                if chunk is None:
                    return
                self._note(chunk)
                ended = ended or (chunk.finish_reason is not None and chunk.usage is not None)
                yield chunk
        finally:
            await source.aclose()
            self._end()

    @property
    def noted(self) -> bool:
        """Whether a model was asked, which the ledgers know of then."""
        return self._made.requests > 0

    def timing(self) -> Timing:
        """Where the time went: what the models that were asked say, and all of it in `total`."""
        total = self._guards.clock.monotonic() - self._started
        asked = sum(self._spent[1:], self._spent[0]) if self._spent else Timing(attempts=0)
        return Timing(**{**asked.as_dict(), "total": total})  # type: ignore[arg-type]

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """What is asked in here belongs to this question, in the journal of its step: a second one that is the same,
        asked after it, has answers of its own."""
        if self._step is None:
            yield
            return
        token = current_step.set(self._step)
        try:
            yield
        finally:
            step_out(token)

    def _note(self, chunk: StreamChunk) -> None:
        provider, model = self.answered
        self.answered = chunk.provider or provider, chunk.model or model

    def _bounded(self) -> Request:
        """The models inside have a moment less than there is: their own limit ends them, and their breakers hear of
        it."""
        left = self._deadline.remaining
        if left == float("inf"):
            return self._request
        return replace(self._request, timeout=left - min(_HEAD_START, left / 10))

    def _end(self) -> None:
        if self._own:
            self._deadline.close()
