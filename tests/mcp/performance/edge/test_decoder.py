"""One thread that writes many answers: who joins, who leaves, who waits, and what one failure costs the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.edge_models import tiny_folder

from agentflow.errors import ArtifactError, BadRequestError, ModelError, ModelTimeoutError, ServerError
from agentflow.mcp.performance.edge.decoder import Decoder
from agentflow.mcp.performance.edge.draft import Draft, Step, Wishes
from agentflow.mcp.performance.edge.fair_queue import FairQueue
from agentflow.mcp.performance.edge.inbox import Inbox
from agentflow.mcp.performance.edge.job import Ended, Job, Piece
from agentflow.mcp.performance.edge.runtimes.separate import Separate
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

VOCABULARY = 300


class CountingRuntime:
    """The next token is one more than the last. `steps` holds how many rows each step had; a step waits for `gate`."""

    name = version = "counting"
    context_length = 5_000
    vocabulary = VOCABULARY

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.read: list[int] = []
        self.closed = 0
        self.gate = threading.Semaphore(1_000_000)
        self.breaks_at: int | None = None

    def open(self, prompts: Sequence[Sequence[int]]) -> _Counting:
        decoding = _Counting(self)
        decoding.add(prompts)
        return decoding

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1


class _Row:
    def __init__(self, prompt: Sequence[int]) -> None:
        self.last = prompt[-1]

    def logits(self) -> NDArray[np.float32]:
        logits = np.zeros(VOCABULARY, np.float32)
        logits[10 + (self.last - 9) % 280] = 9.0
        return logits

    def append(self, token: int) -> None:
        self.last = token

    def close(self) -> None: ...


class _Counting(Separate):
    def __init__(self, runtime: CountingRuntime) -> None:
        super().__init__(self._opened)
        self._runtime = runtime

    def _opened(self, prompt: Sequence[int]) -> _Row:
        self._runtime.read.append(len(prompt))
        return _Row(prompt)

    def append(self, tokens: Sequence[int]) -> None:
        self._runtime.gate.acquire()
        self._runtime.steps.append(len(tokens))
        if self._runtime.breaks_at == len(self._runtime.steps):
            raise RuntimeError("no memory")
        super().append(tokens)


def _job(decoder: Decoder, first: int = 10, count: int = 5, *, tenant: str | None = None, streams: bool = False,
         deadline: float | None = None, draft: Callable[[], Draft] | None = None,
         ) -> Job:  # fmt: skip
    tokenizer = EdgeTokenizer(tiny_folder())
    made = draft or partial(Draft, [first], Wishes(max_tokens=count), tokenizer, room=4_000)
    inbox: Inbox[Piece] = Inbox(decoder.wake)
    return Job(made, inbox, tenant=tenant, streams=streams, deadline=deadline, limit=1.0)


async def _end(job: Job) -> tuple[list[int], Ended]:
    tokens: list[int] = []
    while True:
        for piece in await job.inbox.all():
            if isinstance(piece.said, Step):
                tokens.append(piece.said.token)
            else:
                return tokens, piece.said


async def test_answers_are_written_together_and_the_thread_ends() -> None:
    runtime = CountingRuntime()
    decoder = Decoder(lambda: runtime, rows=8)
    jobs = [_job(decoder, first) for first in (10, 50, 90)]
    for job in jobs:
        decoder.submit(job)
    ended = await asyncio.gather(*map(_end, jobs))
    assert [tokens for tokens, _ in ended] == [list(range(first + 1, first + 6)) for first in (10, 50, 90)]
    assert all(end.error is None and (end.prompt, end.written) == (1, 5) for _, end in ended)
    assert decoder.tokens == 15
    decoder.close()
    assert runtime.closed == 1
    assert [thread for thread in threading.enumerate() if thread.name == "agentflow-edge"] == []


async def test_no_more_rows_than_allowed_and_everybody_is_answered() -> None:
    runtime = CountingRuntime()
    decoder = Decoder(lambda: runtime, rows=4)
    jobs = [_job(decoder, 10 + n, 3 + n % 5) for n in range(50)]
    for job in jobs:
        decoder.submit(job)
    ended = await asyncio.gather(*map(_end, jobs))
    assert all(len(tokens) == 3 + n % 5 for n, (tokens, _) in enumerate(ended))
    assert max(runtime.steps) == 4
    decoder.close()


async def test_who_leaves_costs_at_most_one_token_more() -> None:
    runtime = CountingRuntime()
    runtime.gate = threading.Semaphore(3)
    decoder = Decoder(lambda: runtime)
    leaving, staying = _job(decoder, 10, 4_000, streams=True), _job(decoder, 50, 20)
    decoder.submit(leaving)
    await leaving.inbox.all()
    leaving.left = True
    before = decoder.tokens
    decoder.submit(staying)
    runtime.gate.release(1_000)
    tokens, _ = await _end(staying)
    assert tokens == list(range(51, 71))
    assert decoder.tokens <= before + 3 + 1 + 20  # what the gate let through before, one more, and the other's
    decoder.close()


async def test_who_left_before_his_turn_is_never_read() -> None:
    runtime = CountingRuntime()
    decoder = Decoder(lambda: runtime, rows=1)
    first, gone = _job(decoder, 10, 5), _job(decoder, 50, 5)
    gone.left = True
    decoder.submit(first)
    decoder.submit(gone)
    await _end(first)
    decoder.close()
    assert runtime.read == [1]


async def test_tenants_take_turns() -> None:
    """The one who asks for much does not keep the other waiting."""
    decoder = Decoder(CountingRuntime, rows=1)
    done: list[str] = []

    async def ended(job: Job) -> None:
        await _end(job)
        done.append(str(job.tenant))

    many = [_job(decoder, 10, 2, tenant="ann") for _ in range(8)]
    few = [_job(decoder, 10, 2, tenant="bob") for _ in range(2)]
    loaded = threading.Event()
    waiting = asyncio.gather(*map(ended, [*many, *few]))
    decoder._load = lambda: (loaded.wait(), CountingRuntime())[1]
    for job in [*many, *few]:
        decoder.submit(job)
    loaded.set()
    await waiting
    assert "bob" in done[:3]
    assert done[:6].count("bob") == 2
    decoder.close()


async def test_one_bad_request_fails_alone() -> None:
    decoder = Decoder(CountingRuntime)

    def refused() -> Draft:
        raise BadRequestError("the schema is none")

    class Broken(Draft):
        def take(self, logits: NDArray[np.float32]) -> Step:
            if len(self.written) == 2:
                raise RuntimeError("the grammar cannot go on")
            return super().take(logits)

    tokenizer = EdgeTokenizer(tiny_folder())
    broken = partial(Broken, [10], Wishes(max_tokens=9), tokenizer, room=99)
    jobs = [_job(decoder, 10), _job(decoder, draft=refused), _job(decoder, draft=broken), _job(decoder, 50)]
    for job in jobs:
        decoder.submit(job)
    ended = await asyncio.gather(*map(_end, jobs))
    assert [type(end.error) for _, end in ended] == [type(None), BadRequestError, ServerError, type(None)]
    assert ended[0][0] == [11, 12, 13, 14, 15]
    assert ended[3][0] == [51, 52, 53, 54, 55]
    decoder.close()


async def test_a_model_that_fails_fails_its_rows_and_the_next_begins_afresh() -> None:
    runtime = CountingRuntime()
    runtime.breaks_at = 3
    decoder = Decoder(lambda: runtime)
    jobs = [_job(decoder, 10, 50), _job(decoder, 50, 50)]
    for job in jobs:
        decoder.submit(job)
    ended = await asyncio.gather(*map(_end, jobs))
    assert any(isinstance(end.error, ServerError) and "no memory" in str(end.error) for _, end in ended)
    later = _job(decoder, 90)
    decoder.submit(later)
    assert (await _end(later))[0] == [91, 92, 93, 94, 95]
    decoder.close()


async def test_a_model_that_cannot_be_opened_says_so_each_time() -> None:
    def load() -> CountingRuntime:
        raise ArtifactError("a", "model.onnx is damaged")

    decoder = Decoder(load)
    for _ in range(2):
        job = _job(decoder)
        decoder.submit(job)
        assert isinstance((await _end(job))[1].error, ArtifactError)
    decoder.close()


async def test_time_that_is_over_ends_an_answer_and_one_that_waits() -> None:
    class Ticking:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 0.25
            return self.now

    decoder = Decoder(CountingRuntime, rows=1, clock=Ticking())  # type: ignore[arg-type]
    jobs = [_job(decoder, 10, 4_000, deadline=20.0), _job(decoder, 50, 3, deadline=2.0), _job(decoder, 90, 3)]
    for job in jobs:
        decoder.submit(job)
    ended = await asyncio.gather(*map(_end, jobs))
    assert [type(end.error) for _, end in ended] == [ModelTimeoutError, ModelTimeoutError, type(None)]
    assert ended[1][1].written == 0
    decoder.close()


async def test_a_reader_who_is_behind_holds_the_model_up_for_nobody() -> None:
    """His row rests until he has read, and goes on where it was."""
    runtime = CountingRuntime()
    decoder = Decoder(lambda: runtime)
    slow, quick = _job(decoder, 10, 400, streams=True), _job(decoder, 50, 600)
    decoder.submit(slow)
    decoder.submit(quick)
    await _end(quick)
    assert slow.inbox.waiting == 128
    tokens, end = await _end(slow)
    assert tokens == [10 + (n % 280) for n in range(1, 401)]
    assert end.error is None
    assert len(runtime.read) > 2  # read again, with what it had written
    decoder.close()


async def test_closing_while_busy_ends_every_answer() -> None:
    runtime = CountingRuntime()
    runtime.gate = threading.Semaphore(5)
    decoder = Decoder(lambda: runtime, rows=2)
    jobs = [_job(decoder, 10 + n, 4_000) for n in range(5)]
    for job in jobs:
        decoder.submit(job)
    closing = asyncio.create_task(asyncio.to_thread(decoder.close))
    while not decoder._closed:
        await asyncio.sleep(0)
    runtime.gate.release(1_000_000)
    ended = await asyncio.gather(*map(_end, jobs))
    await closing
    assert all(isinstance(end.error, ModelError) and "closed" in str(end.error) for _, end in ended)
    assert runtime.closed <= 1
    with pytest.raises(ModelError, match="closed"):
        decoder.submit(_job(decoder))
    decoder.close()


def test_the_queue_serves_whoever_had_least() -> None:
    queue: FairQueue[str] = FairQueue()
    for n in range(3):
        queue.push(f"a{n}", tenant="a", cost=10)
    queue.push("b0", tenant="b", cost=25)
    queue.push("b1", tenant="b", cost=1)
    assert [queue.pop() for _ in range(5)] == ["a0", "b0", "a1", "a2", "b1"]
    with pytest.raises(IndexError):
        queue.pop()


def test_the_queue_lets_nobody_save_up() -> None:
    queue: FairQueue[str] = FairQueue()
    for n in range(4):
        queue.push(f"a{n}", tenant="a", cost=10)
    assert [queue.pop(), queue.pop()] == ["a0", "a1"]
    queue.push("b0", tenant="b", cost=10)
    queue.push("b1", tenant="b", cost=10)
    assert [queue.pop() for _ in range(4)] == ["b0", "a2", "b1", "a3"]


def test_the_queue_gives_up_who_is_gone() -> None:
    queue: FairQueue[int] = FairQueue()
    for n in range(6):
        queue.push(n, tenant=str(n % 2), cost=1)
    assert sorted(queue.remove(lambda n: n % 3 == 0)) == [0, 3]
    assert len(queue) == 4
    assert sorted(queue) == [1, 2, 4, 5]
