"""One request under way: what the guards have to know of it, how long it may take, and what it was in the end.

Asked ──operation──▶ pipeline ──held──▶ settle, timing ──▶ Telling, where somebody watches
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from agentflow.core.observability.audit.seat import current_audit
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.held import Held
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.retry import Repetition
from agentflow.core.robustness.timing import Timing
from agentflow.errors import ModelTimeoutError, NotFoundError
from agentflow.llm.bill import Bill, input_tokens
from agentflow.llm.guards import Guards
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage
from agentflow.llm.streaming.join import Joiner
from agentflow.llm.streaming.stream import close
from agentflow.llm.telling import Telling

if TYPE_CHECKING:
    from agentflow.core.observability.audit.recording import Act

__all__ = ["Asked"]

R = TypeVar("R")

_BEFORE: Final = ("pool", "connect")  # what may take too long before anything is sent


class Asked:
    """One request under way: guarded, bounded in time, and told to whoever watches.

    `async with asked:` is `failed` where it did not end well, and `end`. A whole answer calls them by itself, for most
    calls are `noted` by nobody and then have nothing to wait for there.
    """

    __slots__ = (
        "_act",
        "_counts",
        "_first",
        "_guards",
        "_joiner",
        "_operation",
        "_own",
        "_repetition",
        "_started",
        "_wasted",
        "bill",
        "deadline",
        "noted",
        "telling",
    )
    _counts: bool  # whether the limiter wants to know of tokens

    def __init__(
        self,
        guards: Guards,
        request: Request | EmbeddingRequest,
        deadline: Deadline | None,
        key: str | None = None,
    ) -> None:
        self._own = deadline is None
        self.deadline = deadline = guards.deadline(request.timeout) if deadline is None else deadline
        self._guards = guards
        self.bill: Bill | None = None  # what a stream has cost so far
        self._first: float | None = None  # when the first piece of a stream came
        self._wasted: list[float | None] | None = None  # what the hedged requests have cost that came to nothing
        self._repetition: Repetition | None = None
        self._started = guards.clock.monotonic()
        self._operation = operation = Operation(deadline, 0, 0, guards.tenant, guards.priority, policy=guards.policy)
        operation.key = key
        self._joiner: Joiner | None = None
        self._act: Act | None = None  # what the audit log knows of it
        self.telling: Telling | None = None
        self.noted = guards.scope is not None or current_audit() is not None
        """Whether anybody watches or audits."""
        if guards.scope is not None:
            self.telling = Telling(guards.config, guards.tenant, guards.scope)
            operation.tell, operation.remark = self.telling.decision, self.telling.remark
            operation.scope = self.telling.scope

    async def begin(self, request: Request | EmbeddingRequest, number: int = 0, *, streaming: bool = False) -> None:
        """The request, the `number`-th that its question takes, is about to be made. Raises AuditError."""
        if self.telling is not None:
            await self.telling.start(request, number, streaming=streaming)
        if current_audit() is not None:
            from agentflow.llm.auditing import call_begun

            scope = None if self.telling is None else self.telling.scope
            self._act = await call_begun(self._guards, request, scope)

    async def chunk(self, chunk: StreamChunk) -> None:
        """A piece of a stream has come."""
        self._joiner = self._joiner or Joiner()
        self._joiner.add(chunk)
        if self.telling is not None:
            await self.telling.chunk(chunk)

    def operation(self, request: Request | EmbeddingRequest) -> Operation:
        """What the guards have to know of it."""
        guards, operation = self._guards, self._operation
        pipeline = guards.pipeline
        self._counts = pipeline.counts_tokens
        if self._counts:
            operation.input_tokens = input_tokens(request)
            if isinstance(request, Request):
                operation.output_tokens = guards.output.estimate(pipeline.name, request.max_tokens)
        if pipeline.hedges:
            operation.on_drop = _dropped
            operation.on_loss = partial(self._lost, request)
        return operation

    @property
    def restarts(self) -> bool:
        """Whether a stream that breaks after it has begun may be begun anew."""
        if self._repetition is None:
            self._repetition = self._guards.pipeline.repetition(self._operation)
        return self._repetition is not None

    async def again(self, work: Callable[[], Awaitable[R]], broken: Held[R], failure: Exception) -> Held[R] | None:
        """Begin anew what has broken; None where there is no point in it."""
        assert self._repetition is not None
        self._first = None
        return await self._guards.pipeline.again(work, self._operation, broken, failure, self._repetition)

    def begun_anew(self, broken: Bill) -> None:
        """What came before has been paid for. Where it said what it has used, the answer's usage holds it already."""
        if broken.usage is None:
            self._wasted = [*(self._wasted or ()), broken.cost_so_far]

    def began(self) -> float:
        """The first piece of a stream is here, now."""
        self._first = now = self._guards.clock.monotonic()
        return now

    def settle(self, held: Held[R], usage: Usage | None, answered: float) -> None:
        """It is whole, and this is what it has used; it, or its first piece, came at `answered`."""
        seconds = answered - self._operation.begun  # without the wait for a connection: that is ours
        if usage is None:
            held.succeed(seconds=seconds)
            return
        held.succeed(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, seconds=seconds)
        if self._counts:
            self._guards.output.learn(self._guards.pipeline.name, usage.output_tokens)

    def timing(self, now: float | None = None) -> Timing:
        if now is None:
            now = self._guards.clock.monotonic()
        return self._operation.timing(now, self._started, self._first)

    async def end_of_stream(self, timing: Timing) -> None:
        if self.noted:
            joiner, config = self._joiner or Joiner(), self._guards.config
            await self.success(joiner.response(provider=config.provider, model=config.model_id), timing)

    async def success(self, answer: Response | Embeddings, timing: Timing) -> None:
        if self._act is not None:
            from agentflow.llm.auditing import call_ended

            call_ended(self._act, answer)
            self._act = None
        if self.telling is not None:
            await self.telling.success(answer, timing, self._hedged())

    async def failed(self, error: BaseException) -> None:
        """It ended so. One that was cancelled, or whose reader has left, has neither succeeded nor failed."""
        if isinstance(error, NotFoundError):
            self._guards.suggest_others(error)
        if self._act is not None:
            from agentflow.core.observability.audit.recording import ended

            ended(self._act, error=error)
            self._act = None
        if self.telling is None:
            return
        facts = {**self._paid(error), **self._hedged()}
        if isinstance(error, Exception):
            await self.telling.failed(error, self.timing(), facts)
        else:
            self.telling.left(self.timing(), facts)

    def _paid(self, error: BaseException) -> Mapping[str, object]:
        """What is known of its cost. A request that was sent and not answered may have been paid for: nobody knows."""
        if self.bill is not None:
            return self.bill.facts()
        if not self._operation.sent or (isinstance(error, ModelTimeoutError) and error.operation in _BEFORE):
            return {}
        return {"cost": None} if isinstance(error, ModelTimeoutError) or not isinstance(error, Exception) else {}

    async def __aenter__(self) -> Asked:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if error is not None:
            await self.failed(error)

    def end(self) -> None:
        if self._own:
            self.deadline.close()

    def _lost(self, request: Request | EmbeddingRequest) -> None:
        """A hedged request was given up after it had been sent: what was asked is paid for, and some of the answer."""
        usage = Usage(input_tokens(request), 0)
        cost = self._guards.cost(usage, request.model, None)
        self._wasted = [*(self._wasted or ()), cost]
        self._guards.spend(usage, cost)

    def _hedged(self) -> Mapping[str, object]:
        """How many requests were sent in vain beside this one, and what that has cost; None where nobody knows."""
        if not self._wasted:
            return {}
        known = [cost for cost in self._wasted if cost is not None]
        return {
            "lost_requests": len(self._wasted),
            "lost_cost": sum(known) if len(known) == len(self._wasted) else None,
        }


async def _dropped(value: object) -> None:
    """A hedged answer that came second: a stream is closed, a whole one is only paid for."""
    if isinstance(value, tuple):
        await close(value[0])
