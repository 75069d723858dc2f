"""One request to one model, guarded and observed: attempts, stand-ins, limits, price, events.

    Request ──▶ ledger ──▶ pipeline (queue, limiter, breaker, attempts) ──▶ Response, or chunks ──▶ price, ledger
                               └─ fails for good ──▶ the next model of `fallback`, while nothing was delivered

The total time-out spans all attempts and waits. A wait that would outlast it is not begun. A stream is tried again only
as long as nothing of it was delivered; with `RetryPolicy(after_first_chunk=True)` also later, and then the first chunk
of its new beginning says `restart`. Another model takes over only where nothing was delivered. Events go to whoever
watches the flow: model_start, chunk, retry, limiter_wait, breaker_state, fallback, …, model_success, model_error. A
caller's own cancellation passes through and is reported as nothing.

Where the entry wraps models (`wrapped.py`), all of that is done for each model that is asked in the end, and here only
what belongs to the question: stand-ins and the journal.

In a durable step the answer is looked for in the step's journal before anything else, and is kept there as soon as it
is whole (`journal/answers.py`). One that is found is no request: nothing is guarded, sent or paid, and the one event is
model_replayed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from msgspec.structs import replace

from agentflow.core.durability.step import DurableStep, current_step
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.notes import add_notes, brief
from agentflow.core.robustness.time_limit import bounded_by_context
from agentflow.core.robustness.timing import Timing
from agentflow.errors import ModelError, ModelTimeoutError, RejectedError, describe
from agentflow.llm.asked import Asked
from agentflow.llm.bill import Bill, paid
from agentflow.llm.guards import Guards
from agentflow.llm.media import loaded, needs_loading
from agentflow.llm.messages import Request, Response, StreamChunk
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.streaming.join import Joiner, chunks_of
from agentflow.llm.streaming.stream import close
from agentflow.llm.wrapped import Wrapped

if TYPE_CHECKING:  # loaded in a durable step alone
    from agentflow.llm.journal.answers import Entry

__all__ = ["Attempts", "Substitute", "Substitutes", "ready"]


class Substitute(NamedTuple):
    """Another model for the same question. `by_tool` names the tool that it answers through, if it does."""

    guards: Guards
    request: Request
    by_tool: str | None = None


class Substitutes(Protocol):
    """The models that stand in for another one, in their order. Each is given away once."""

    def __call__(self, request: Request, error: Exception, /) -> Substitute | None:
        """The model has failed for good: the next one to try, or None."""
        ...

    def named(self, model: str, request: Request, /) -> Substitute | None:
        """The one that has answered, where the answer is recorded. None where it no longer stands in."""
        ...


class Attempts:
    """One request and its repetitions. `deadline` bounds it together with others; without one it has its own, and
    `number` counts the requests that one question takes. `guards`, `request` and `by_tool` are those of the model that
    answers, in the end; `timing` is the account of all that were asked."""

    __slots__ = (
        "_deadline",
        "_earlier",
        "_entry",
        "_first",
        "_noted",
        "_number",
        "_substitutes",
        "_wrapped",
        "by_tool",
        "guards",
        "request",
        "timing",
    )

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
        self._noted = False  # in the ledgers
        self._number = number
        self._substitutes = substitutes
        self._earlier: list[str] = []
        self._entry: Entry[Response] | None = None  # in the journal of a durable step
        self._first = guards.config.name
        self._wrapped: Wrapped | None = None  # where the entry is answered by what wraps models

    @property
    def answered(self) -> tuple[str, str]:
        """Provider and model that answer."""
        found = None if self._entry is None else self._entry.found
        if found is not None:
            return found.reply.provider, found.reply.model
        if self._wrapped is not None:
            return self._wrapped.answered
        return self.guards.config.provider, self.request.model

    @property
    def run_id(self) -> str | None:
        """The run in which it was answered: an earlier one, where this one was forked from it."""
        found = None if self._entry is None else self._entry.found
        return self.guards.run_id if found is None else found.reply.run_id

    @property
    def replayed(self) -> bool:
        """Whether the answer was found in a journal."""
        return self._entry is not None and self._entry.found is not None

    @property
    def recorded_as(self) -> str:
        """The name of the answer in its durable step; empty outside of one."""
        return "" if self._entry is None else self._entry.name

    async def whole(self) -> Response:
        """The answer, with its cost. Raises ModelError, RejectedError, LimitExceededError, DocumentError, and in a
        durable step DurabilityError and SerializationError."""
        if unready(self.request):
            self.request = await ready(self.request)
        step = current_step.get()
        if step is not None and (found := await self._found(step)) is not None:
            return found
        common = self._begin()
        try:
            while True:
                asked = self._asked()
                try:
                    return await (self._whole(asked) if isinstance(asked, Asked) else self._through(asked))
                except (ModelError, RejectedError) as error:
                    if not await self._substituted(error, asked):
                        raise
        finally:
            if common is not None:
                common.close()

    async def chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """The answer as it comes; chunks with usage say what it has cost so far. A stream that is left or breaks is
        not kept in a journal; one that is found there comes in few chunks."""
        self.request = await ready(self.request)
        step = current_step.get()
        if step is not None and (found := await self._found(step)) is not None:
            for chunk in chunks_of(found):
                yield chunk
            return
        delivered = False
        common = self._begin()
        try:
            while True:
                asked = self._asked()
                source = self._chunks(asked) if isinstance(asked, Asked) else self._pieces_through(asked)
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
        """One time limit for all models that are asked, where there are several; else the one model has its own.
        Returned is what is to be closed in the end."""
        if self._substitutes is None or self._deadline is not None:
            return None
        self._deadline = self.guards.deadline(self.request.timeout)
        return self._deadline

    async def _substituted(self, error: Exception, asked: Asked | Wrapped) -> bool:
        """Whether another model takes over from here, with the time that it may take."""
        found = self._following(error)
        if found is None:
            add_notes(error, self._earlier)
            return False
        if self.guards.scope is not None:
            facts = {"from": self.guards.config.name, "to": found.guards.config.name}
            told = {**facts, "error": describe(error), "error_type": type(error).__name__}
            await self.guards.scope.send("fallback", told)
        self._earlier.append(f"{self.guards.config.name} had failed before: {brief(error)}")
        self._account(asked.timing().failure)
        self._noted = self._noted or (isinstance(asked, Wrapped) and asked.noted)
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

    async def _found(self, step: DurableStep) -> Response | None:
        """The answer as the journal of this step has it, from whoever gave it; None where there is none yet."""
        from agentflow.llm.journal.answers import Entry

        entry = self._entry = Entry(step, self.request, self._first, self.guards.config.provider, Response)
        if entry.found is None:
            return None
        by, reply = entry.found
        if by != self._first and self._substitutes is not None:
            stood_in = self._substitutes.named(by, self.request)
            if stood_in is not None:
                self.guards, self.request, self.by_tool = stood_in
        self.timing = reply.timing
        return await entry.replay(self.guards, reply, self._number)

    async def _whole(self, asked: Asked) -> Response:
        guards, request = self.guards, self.request
        provider = guards.provider
        try:
            if asked.noted:
                await asked.begin(request, self._number)
            held = await guards.pipeline.open(lambda: provider.execute(request), asked.operation(request))
            answer = held.value
            now = guards.clock.monotonic()
            asked.settle(held, answer.usage, now)
            cost = paid(guards, request, answer)
            timing = asked.timing(now)
            answer = replace(answer, cost=cost, timing=self._account(timing), run_id=guards.run_id)
            try:
                if self._entry is not None:
                    await self._entry.keep(guards, request, answer)
            finally:
                if asked.noted:
                    await asked.success(answer, timing)
            return answer
        except BaseException as error:
            await asked.failed(error)
            raise
        finally:
            asked.end()

    async def _through(self, wrapped: Wrapped) -> Response:
        """The answer of what wraps models."""
        answer = await wrapped.whole()
        answer = replace(answer, timing=self._account(answer.timing or Timing()))
        if self._entry is not None:
            await self._entry.keep(self.guards, self.request, answer, paid=False)
        return answer

    async def _pieces_through(self, wrapped: Wrapped) -> AsyncGenerator[StreamChunk, None]:
        joiner = None if self._entry is None else Joiner()
        source = wrapped.chunks()
        try:
            async for chunk in source:
                if joiner is not None:
                    joiner.add(chunk)
                yield chunk
        finally:
            await close(source)
        self._account(wrapped.timing())
        if joiner is not None:
            await self._keep(joiner, paid=False)

    async def _chunks(self, asked: Asked) -> AsyncGenerator[StreamChunk, None]:
        guards, request = self.guards, self.request
        work = partial(_opened, guards.provider, request)
        joiner = None if self._entry is None else Joiner()
        async with asked:
            if asked.noted:
                await asked.begin(request, self._number, streaming=True)
            held = await guards.pipeline.open(work, asked.operation(request))
            restart = False
            while True:
                source, chunk = held.value
                began = asked.began()
                bill = asked.bill = Bill(guards, request)
                failure: Exception | None = None
                theirs = False  # whether the model is at work, and not whoever watches or reads
                if restart:
                    chunk = replace(chunk or StreamChunk(), restart=True)
                try:
                    while chunk is not None:
                        chunk = bill.note(chunk)
                        if joiner is not None:
                            joiner.add(chunk)
                        if asked.noted:
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
                asked.begun_anew(bill)
                held, restart = anew, True
            timing = asked.timing()
            self._account(timing)
            try:
                if joiner is not None:
                    await self._keep(joiner)
            finally:
                await asked.end_of_stream(timing)

    async def _keep(self, joiner: Joiner, *, paid: bool = True) -> None:
        """A stream is whole: keep what its chunks add up to, unless that is longer than any answer."""
        if self._entry is None or joiner.overflowed:
            return
        provider, model = self.answered
        reply = joiner.response(provider=provider, model=model)
        reply = replace(reply, timing=self.timing, run_id=self.guards.run_id)
        await self._entry.keep(self.guards, self.request, reply, paid=paid)

    def _asked(self) -> Asked | Wrapped:
        if self.guards.wrapped:
            step = None if self._entry is None else self._entry.inside
            self._wrapped = Wrapped(self.guards, self.request, self._deadline, step)
            return self._wrapped
        if not self._noted:  # one request in the ledgers, whoever answers it
            for ledger in self.guards.ledgers:
                ledger.request()
            self._noted = True
        self._wrapped = None
        key = None if self._entry is None else self._entry.key(self.guards.config.name)
        return Asked(self.guards, self.request, self._deadline, key)


def unready(request: Request) -> bool:
    """Whether the request has files that are still to be read."""
    return any(map(needs_loading, request.messages))


async def ready(request: Request) -> Request:
    """The request with its files read."""
    if not unready(request):
        return request
    return replace(request, messages=await loaded(request.messages))


_Opened: TypeAlias = tuple[AsyncIterator[StreamChunk], StreamChunk | None]


async def _opened(provider: LLMProvider, request: Request) -> _Opened:
    """A stream and its first chunk."""
    source = provider.execute_streaming(request)
    try:
        return source, await anext(source, None)
    except BaseException:
        await close(source)
        raise
