"""A model that writes: requests to chunks of text.

    writer = Writer(model, open_runtime)
    async for chunk in writer.chunks(request): …       closing it early stops the model

Prompts are read, grammars made and tokens chosen in the model's own thread; the event loop only hands on what comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agentflow.clock import Clock
from agentflow.errors import BadRequestError, ContextLengthError, MissingExtraError, ModelTimeoutError
from agentflow.llm.caller import current_caller
from agentflow.llm.estimate import estimated_tokens
from agentflow.llm.messages import Request, StreamChunk, Usage
from agentflow.mcp.performance.edge.decoder import Decoder
from agentflow.mcp.performance.edge.draft import Draft, Step
from agentflow.mcp.performance.edge.inbox import Inbox
from agentflow.mcp.performance.edge.job import Ended, Job, Piece
from agentflow.mcp.performance.edge.runtime import Runtime
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer
from agentflow.mcp.performance.edge.wishes import REGEX, Habits

if TYPE_CHECKING:
    from agentflow.mcp.performance.edge.constraint import Constraint, Grammars

__all__ = ["Writer"]


class Writer:
    """`load` opens the runtime, in the thread, when it is first needed. `price` is USD an hour of the machine."""

    def __init__(
        self, folder: Path, load: Callable[[], Runtime], *, rows: int, clock: Clock, price: float | None = None
    ) -> None:
        self._folder = folder
        self._load = load
        self._clock = clock
        self._price = price
        self._known: _Known | None = None
        self.decoder = Decoder(self._open, rows=rows, clock=clock)

    async def chunks(self, request: Request, *, streams: bool = True) -> AsyncGenerator[StreamChunk, None]:
        """What is written, as it is written, or at the end; the last chunk has the usage.

        Raises BadRequestError, ContextLengthError, ModelTimeoutError, UnsupportedError, and what opening raises.
        """
        inbox: Inbox[Piece] = Inbox(self.decoder.wake)
        jobs = [self._job(request, inbox, index, streams=streams) for index in range(request.n or 1)]
        try:
            for job in jobs:
                self.decoder.submit(job)
            ended: list[Ended] = []
            while len(ended) < len(jobs):
                for piece in await _in_time(inbox, request.timeout):
                    if isinstance(piece.said, Step):
                        yield _chunk(piece.index, piece.said, request.model)
                    elif piece.said.error is not None:
                        raise piece.said.error
                    else:
                        ended.append(piece.said)
            yield self._last(ended, request.model)
        finally:
            for job in jobs:
                job.left = True
            self.decoder.wake()

    def count(self, request: Request) -> int:
        """Tokens of the prompt. Reads the tokenizer, so not for an event loop."""
        return len(self._tokenizer().prompt(request.messages))

    def close(self) -> None:
        self.decoder.close()

    # ---- in the thread

    def _open(self) -> Runtime:
        tokenizer = self._tokenizer()
        runtime = self._load()
        self._known = _Known(tokenizer, Habits.of(_beside(self._folder)), runtime)
        return runtime

    def _tokenizer(self) -> EdgeTokenizer:
        return EdgeTokenizer(self._folder) if self._known is None else self._known.tokenizer

    def _job(self, request: Request, inbox: Inbox[Piece], index: int, *, streams: bool) -> Job:
        limit = request.timeout
        return Job(
            partial(self._draft, request, index),
            inbox,
            index=index,
            tenant=current_caller().tenant,
            cost=float(sum(map(estimated_tokens, request.messages)) + (request.max_tokens or 0)),
            deadline=None if limit is None else self._clock.monotonic() + limit,
            limit=limit or 0.0,
            streams=streams,
        )

    def _draft(self, request: Request, index: int) -> Draft:
        assert self._known is not None
        return self._known.draft(request, index)

    def _last(self, ended: list[Ended], model: str) -> StreamChunk:
        usage = Usage(max(each.prompt for each in ended), sum(each.written for each in ended))
        seconds = sum(each.seconds for each in ended)
        cost = None if self._price is None else self._price * seconds / 3600
        return StreamChunk(usage=usage, model=model, cost=cost)


class _Known:
    """What stands once the model is open."""

    def __init__(self, tokenizer: EdgeTokenizer, habits: Habits, runtime: Runtime) -> None:
        self.tokenizer = tokenizer
        self._habits = habits
        self._context = runtime.context_length
        self._vocabulary = runtime.vocabulary
        self._grammars: Grammars | None = None

    def draft(self, request: Request, index: int) -> Draft:
        wishes = self._habits.wishes(request)
        prompt = self.tokenizer.prompt(request.messages)
        if not prompt:
            raise BadRequestError("the prompt is empty: there is nothing to go on from")
        room = self._context - len(prompt)
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {len(prompt):,} tokens, and the model's context {self._context:,}: shorten it"
            )
        if index and wishes.seed is not None:
            wishes = replace(wishes, seed=wishes.seed + index)
        return Draft(prompt, wishes, self.tokenizer, room=room, constraint=self._constraint(request))

    def _constraint(self, request: Request) -> Constraint | None:
        pattern = request.params.get(REGEX)
        if request.output is None and pattern is None:
            return None
        if request.output is not None:
            return self._made().schema(request.output.schema)
        if not isinstance(pattern, str):
            raise BadRequestError(f"regex is {pattern!r}; it must be a text")
        return self._made().regex(pattern)

    def _made(self) -> Grammars:
        """Made when the first is needed: it reads the whole vocabulary."""
        if self._grammars is None:
            try:
                from agentflow.mcp.performance.edge.constraint import Grammars
            except ModuleNotFoundError as error:
                raise MissingExtraError("an answer held to a schema (llguidance)", "edge") from error
            self._grammars = Grammars(self.tokenizer, self._vocabulary)
        return self._grammars


async def _in_time(inbox: Inbox[Piece], limit: float | None) -> list[Piece]:
    """The thread keeps the time too, but may be in the middle of a long prompt."""
    try:
        return await asyncio.wait_for(inbox.all(), limit)
    except TimeoutError:
        raise ModelTimeoutError("total", limit or 0.0) from None


def _chunk(index: int, step: Step, model: str) -> StreamChunk:
    return StreamChunk(
        step.text,
        finish_reason=step.finish,
        raw_finish_reason=step.why,
        model=model,
        index=index,
        logprobs=() if step.logprob is None else (step.logprob,),
    )


def _beside(model: Path) -> Path:
    return model.parent if model.is_file() else model
