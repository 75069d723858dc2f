"""One request to one model, guarded and observed: attempts, stand-ins, limits, price, events.

    Request ──▶ ledger ──▶ pipeline (queue, limiter, breaker, attempts) ──▶ Response, or chunks ──▶ price, ledger
                               └─ fails for good ──▶ the next model of `fallback`, while nothing was delivered

The total time-out spans all attempts and waits. A wait that would outlast it is not begun. A stream is tried again only
as long as nothing of it was delivered; with `RetryPolicy(after_first_chunk=True)` also later, and then the first chunk
of its new beginning says `restart`. Another model takes over only where nothing was delivered. Events go to whoever
watches the flow: model_start, chunk, retry, limiter_wait, breaker_state, fallback, …, model_success, model_error. A
caller's own cancellation passes through and is reported as nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import NamedTuple, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from agentflow.clock import Clock
from agentflow.core.limits import Ledger
from agentflow.core.observability.scope import emit, observed
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.held import Held
from agentflow.core.robustness.load_shedder import Priority
from agentflow.core.robustness.notes import add_notes, brief
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.output_estimate import OutputEstimate
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.retry import Repetition, RetryPolicy
from agentflow.core.robustness.time_limit import bounded_by_context
from agentflow.core.robustness.timing import Timing
from agentflow.errors import (
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    ProtocolError,
    RejectedError,
    describe,
)
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.estimate import estimated_tokens, text_tokens
from agentflow.llm.media import loaded, needs_loading
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider
from agentflow.llm.streaming.join import Joiner
from agentflow.llm.streaming.stream import close

__all__ = ["Attempts", "Embedding", "Guards", "Substitute", "Substitutes", "Suggest", "ready"]

R = TypeVar("R")

Suggest = Callable[[str], list[str]]
"""Names of models that are like one that was not found."""


class Guards(Struct, frozen=True):
    """What every request of one question to one model has in common. `patient` is False where the caller himself set
    the time limit, so that a stand-in gets what is left of it."""

    config: ModelConfig
    provider: LLMProvider
    pipeline: Pipeline
    output: OutputEstimate
    policy: RetryPolicy | None
    clock: Clock
    tenant: str | None
    priority: Priority
    patient: bool
    ledgers: tuple[Ledger, ...]
    suggest: Suggest

    def deadline(self, seconds: float | None) -> Deadline:
        return Deadline(bounded_by_context(seconds), failure=self.late)

    def late(self, operation: str, seconds: float) -> Exception:
        """What is raised when the time is up."""
        return ModelTimeoutError(operation, seconds, provider=self.config.provider, model=self.config.model_id)

    def cost(self, usage: Usage, model: str, tier: str | None) -> float | None:
        return self.config.cost(usage, model=model, service_tier=tier)

    def spend(self, usage: Usage, cost: float | None) -> None:
        """A request was answered. It is noted at once, so that no cancellation can come between."""
        for ledger in self.ledgers:
            ledger.spend(usage.total_tokens, cost)

    def suggest_others(self, error: NotFoundError) -> None:
        """A model that is not found may have been misspelled: say which ones are like it."""
        if not error.suggestions:
            own = f"{self.config.provider}/"  # the same id elsewhere is no help: this provider was asked
            error.suggest([name for name in self.suggest(self.config.name) if "/" not in name or name.startswith(own)])


class Substitute(NamedTuple):
    """Another model for the same question. `by_tool` names the tool that it answers through, if it does."""

    guards: Guards
    request: Request
    by_tool: str | None = None


Substitutes: TypeAlias = Callable[[Request, Exception], Substitute | None]
"""Asked when a model has failed for good: the next one to try, or None."""


class Attempts:
    """One request and its repetitions. `deadline` bounds it together with others; without one it has its own, and
    `number` counts the requests that one question takes. `guards`, `request` and `by_tool` are those of the model that
    answers, in the end; `timing` is the account of all that were asked."""

    __slots__ = ("_deadline", "_earlier", "_number", "_substitutes", "by_tool", "guards", "request", "timing")

    def __init__(
        self,
        guards: Guards,
        request: Request,
        deadline: Deadline | None = None,
        number: int = 0,
        substitutes: Substitutes | None = None,
        by_tool: str | None = None,
    ) -> None:
        self.guards = guards
        self.request = request
        self.by_tool = by_tool
        self.timing: Timing | None = None
        self._deadline = deadline
        self._number = number
        self._substitutes = substitutes
        self._earlier: list[str] = []

    @property
    def answered(self) -> tuple[str, str]:
        """Provider and model that answer."""
        return self.guards.config.provider, self.request.model

    async def whole(self) -> Response:
        """The answer, with its cost. Raises ModelError, RejectedError, LimitExceededError, DocumentError."""
        if unready(self.request):
            self.request = await ready(self.request)
        common = self._begin()
        try:
            while True:
                asked = self._asked()
                try:
                    return await self._whole(asked)
                except (ModelError, RejectedError) as error:
                    if not await self._substituted(error, asked):
                        raise
        finally:
            if common is not None:
                common.close()

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """The answer as it comes; chunks with usage say what it has cost so far."""
        self.request = await ready(self.request)
        delivered = False
        common = self._begin()
        try:
            while True:
                asked = self._asked()
                source = self._chunks(asked)
                try:
                    async for chunk in source:
                        delivered = True
                        yield chunk
                    return
                except (ModelError, RejectedError) as error:
                    if delivered or not await self._substituted(error, asked):
                        raise
                finally:
                    await close(source)
        finally:
            if common is not None:
                common.close()

    def _begin(self) -> Deadline | None:
        """One request in the ledgers, whoever answers it, and one time limit for all models that are asked, where there
        are several; else the one model has its own. Returned is what is to be closed in the end."""
        for ledger in self.guards.ledgers:
            ledger.request()
        if self._substitutes is None or self._deadline is not None:
            return None
        self._deadline = self.guards.deadline(self.request.timeout)
        return self._deadline

    async def _substituted(self, error: Exception, asked: _Asked) -> bool:
        """Whether another model takes over from here, with the time that it may take."""
        found = self._following(error)
        if found is None:
            add_notes(error, self._earlier)
            return False
        if observed():
            facts = {"from": self.guards.config.name, "to": found.guards.config.name}
            await emit("fallback", {**facts, "error": describe(error), "error_type": type(error).__name__})
        self._earlier.append(f"{self.guards.config.name} had failed before: {brief(error)}")
        self._account(asked.timing().failure)
        self.guards, self.request, self.by_tool = found
        if self._deadline is not None:
            self._deadline.fails_with(self.guards.late)
            if self.guards.patient:
                self._deadline.restart(bounded_by_context(self.request.timeout))
        return True

    def _following(self, error: Exception) -> Substitute | None:
        """The next model; none where the time is up that the caller, or whatever is around, has given all of them."""
        if self._substitutes is None or bounded_by_context(None) == 0:
            return None
        if self._deadline is not None and not self.guards.patient and not self._deadline.remaining:
            return None
        return self._substitutes(self.request, error)

    def _account(self, timing: Timing) -> Timing:
        self.timing = timing if self.timing is None else self.timing + timing
        return self.timing

    async def _whole(self, asked: _Asked) -> Response:
        guards, request = self.guards, self.request
        provider = guards.provider
        try:
            if asked.watched:
                await asked.start()
            held = await guards.pipeline.open(lambda: provider.execute(request), asked.operation(request))
            answer = held.value
            now = guards.clock.monotonic()
            asked.settle(held, answer.usage, now)
            cost = _paid(guards, request, answer)
            timing = asked.timing(now)
            answer = replace(answer, cost=cost, timing=self._account(timing))
            if asked.watched:
                await asked.success(answer, timing)
            return answer
        except Exception as error:
            await asked.failed(error)
            raise
        finally:
            asked.end()

    async def _chunks(self, asked: _Asked) -> AsyncGenerator[StreamChunk, None]:
        guards, request = self.guards, self.request
        work = partial(_opened, guards.provider, request)
        async with asked:
            held = await guards.pipeline.open(work, asked.operation(request))
            restart = False
            while True:
                source, chunk = held.value
                began = asked.began()
                bill = _Bill(guards, request)
                failure: Exception | None = None
                theirs = False  # whether the model is at work, and not whoever watches or reads
                if restart:
                    chunk = replace(chunk or StreamChunk(), restart=True)
                try:
                    while chunk is not None:
                        chunk = bill.note(chunk)
                        if asked.watched:
                            await asked.chunk(chunk)
                        yield chunk
                        theirs = True
                        try:
                            with asked.deadline:
                                chunk = await anext(source, None)
                            theirs = False
                        except ModelTimeoutError:
                            if not bill.whole:
                                raise
                            chunk = None  # nothing but the end of the connection is late
                    asked.settle(held, bill.usage, began)
                    break
                except BaseException as error:
                    if not theirs:
                        held.leave()
                        raise
                    held.fail(error)
                    if not isinstance(error, ModelError) or not asked.restarts:
                        raise
                    failure = error
                finally:
                    bill.settle()
                    await close(source)
                try:
                    anew = await asked.again(work, held, failure)
                    if anew is None:
                        raise failure
                finally:
                    failure = None  # its traceback knows this frame
                held, restart = anew, True
            timing = asked.timing()
            self._account(timing)
            await asked.end_of_stream(timing)

    def _asked(self) -> _Asked:
        return _Asked(self.guards, self.request.timeout, self._deadline, self._number)


class Embedding:
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
        """One vector for each text, with their cost. Raises as `Attempts.whole`."""
        guards, request = self._guards, self.request
        for ledger in guards.ledgers:
            ledger.request()
        async with _Asked(guards, request.timeout, self._deadline, 0) as asked:
            held = await guards.pipeline.open(lambda: self._provider.embed(request), asked.operation(request))
            found = held.value
            usage = found.usage or Usage(sum(map(text_tokens, request.inputs)))
            asked.settle(held, usage, guards.clock.monotonic())
            cost = guards.cost(usage, found.model, None) if found.cost is None else found.cost
            guards.spend(usage, cost)
            if found.usage is not None:
                found = replace(found, cost=cost)
            if len(found.vectors) != len(request.inputs):
                raise ProtocolError(
                    f"{len(found.vectors)} vectors came for {len(request.inputs)} texts",
                    provider=found.provider,
                    model=found.model,
                )
            if asked.watched:
                await asked.success(found, asked.timing())
            return found


def unready(request: Request) -> bool:
    """Whether the request has files that are still to be read."""
    return any(map(needs_loading, request.messages))


async def ready(request: Request) -> Request:
    """The request with its files read."""
    if not unready(request):
        return request
    return replace(request, messages=await loaded(request.messages))


def _paid(guards: Guards, request: Request, answer: Response) -> float | None:
    """What the answer has cost, noted in the ledgers; estimated there, where nobody says what it has used."""
    usage, cost = answer.usage, answer.cost
    if usage is not None:
        if cost is None:
            cost = guards.config.cost(usage, model=answer.model, service_tier=answer.service_tier)
        if guards.ledgers:
            guards.spend(usage, cost)
    elif guards.ledgers:
        used = _estimate(request, answer.text)
        guards.spend(used, guards.cost(used, answer.model, answer.service_tier) if cost is None else cost)
    return cost


def _estimate(request: Request, said: str) -> Usage:
    """What an answer has used, where the provider does not say."""
    return Usage(_input_tokens(request), text_tokens(said))


def _input_tokens(request: Request | EmbeddingRequest) -> int:
    if isinstance(request, Request):
        return sum(map(estimated_tokens, request.messages))
    return sum(map(text_tokens, request.inputs))


_Opened: TypeAlias = tuple[AsyncIterator[StreamChunk], StreamChunk | None]


async def _opened(provider: LLMProvider, request: Request) -> _Opened:
    """A stream and its first chunk."""
    source = provider.execute_streaming(request)
    try:
        return source, await anext(source, None)
    except BaseException:
        await close(source)
        raise


async def _dropped(value: object) -> None:
    """A hedged answer that came second: a stream is closed, a whole one is only paid for."""
    if isinstance(value, tuple):
        await close(value[0])


class _Bill:
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
        usage, cost = self.usage, self._cost
        if not self._guards.ledgers:
            return
        if usage is None:
            usage = _estimate(self.request, "x" * self._said)
            cost = self._guards.cost(usage, self.request.model, self._tier)
        self._guards.spend(usage, cost)


class _Asked:
    """One request under way: begun in the ledgers, guarded, bounded in time, and told to whoever watches.

    `async with asked:` is `start`, then `failed` where it did not end well, and `end`. A whole answer calls them by
    itself, for most calls are watched by nobody and then have nothing to wait for there.
    """

    __slots__ = (
        "_counts",
        "_facts",
        "_first",
        "_guards",
        "_joiner",
        "_number",
        "_operation",
        "_own",
        "_repetition",
        "_started",
        "_wasted",
        "deadline",
        "watched",
    )
    # What is only known of a call that is watched is only set then: each call makes one of these.
    _facts: dict[str, object]
    _counts: bool  # whether the limiter wants to know of tokens

    def __init__(self, guards: Guards, seconds: float | None, deadline: Deadline | None, number: int) -> None:
        self.watched = observed()
        self._own = deadline is None
        self.deadline = deadline = guards.deadline(seconds) if deadline is None else deadline
        self._guards = guards
        self._number = number
        self._joiner: Joiner | None = None
        self._first: float | None = None  # when the first piece of a stream came
        self._wasted: list[float | None] | None = None  # what the hedged requests have cost that came to nothing
        self._repetition: Repetition | None = None
        self._started = guards.clock.monotonic()
        self._operation = operation = Operation(deadline, 0, 0, guards.tenant, guards.priority, policy=guards.policy)
        if self.watched:
            operation.tell = self._tell

    def operation(self, request: Request | EmbeddingRequest) -> Operation:
        """What the guards have to know of it."""
        guards, operation = self._guards, self._operation
        pipeline = guards.pipeline
        self._counts = pipeline.counts_tokens
        if self._counts:
            operation.input_tokens = _input_tokens(request)
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

    async def chunk(self, chunk: StreamChunk) -> None:
        self._joiner = self._joiner or Joiner()
        self._joiner.add(chunk)
        if chunk.content or chunk.restart:
            await emit("chunk", {"content": chunk.content, **({"restart": True} if chunk.restart else {})})

    async def end_of_stream(self, timing: Timing) -> None:
        if self.watched:
            joiner, config = self._joiner or Joiner(), self._guards.config
            answer = joiner.response(provider=config.provider, model=config.model_id)
            await self.success(answer, timing)

    async def success(self, answer: Response | Embeddings, timing: Timing) -> None:
        usage = answer.usage
        end = {
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
            "finish_reason": answer.finish_reason if isinstance(answer, Response) else None,
            "request_id": answer.request_id,
            "cost": answer.cost,
            "timing": asdict(timing),
            **self._hedged(),
        }
        await emit("model_success", {**self._facts, **end, "duration": timing.total})

    async def __aenter__(self) -> _Asked:
        try:
            if self.watched:
                await self.start()
        except BaseException:
            self.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        # A cancelled call, or a stream that its reader has left, has neither succeeded nor failed.
        if isinstance(error, Exception):
            await self.failed(error)

    async def start(self) -> None:
        guards = self._guards
        self._facts = {"model": guards.config.name, "provider": guards.config.provider}
        if guards.tenant is not None:
            self._facts["tenant"] = guards.tenant
        if self._number:
            self._facts["round"] = self._number
        try:
            await emit("model_start", self._facts)
        except BaseException:
            self.watched = False  # who did not hear that it began does not hear that it failed
            raise

    async def failed(self, error: Exception) -> None:
        if isinstance(error, NotFoundError):
            self._guards.suggest_others(error)
        if self.watched:
            timing = self.timing()
            end = {"error": type(error).__name__, "message": describe(error), "timing": asdict(timing)}
            await emit("model_error", {**self._facts, **end, "duration": timing.total})

    async def _tell(self, kind: str, facts: Mapping[str, object], attempt: int) -> None:
        """A decision of a guard, with the model that it is about."""
        config = self._guards.config
        await emit(kind, {"model": config.name, "provider": config.provider, "attempt": attempt, **facts})

    def _lost(self, request: Request | EmbeddingRequest) -> None:
        """A hedged request was given up after it had been sent: what was asked is paid for, and some of the answer."""
        usage = Usage(_input_tokens(request), 0)
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

    def end(self) -> None:
        if self._own:
            self.deadline.close()
