"""All the answers that one model is writing, in one thread: rows join and leave between two tokens.

    waiting   ▪ ▪ ▪                          fair among tenants
              ↓ prompt read
    rows      [ann 17] [bob 3] [cid 41]      one step of the model = one token for each
              ↓ ended, left, late: out before the next step
    resting   [dan 90]                       its reader is behind; the row is read again when there is room

A step is taken only for rows that somebody still waits for, so a caller who leaves costs one token at most. Between
two steps some hundred tokens of prompts are read, or one prompt that is longer. The thread ends when there is nothing
to do, and the model stays loaded; `close` frees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from agentflow.clock import Clock, SystemClock
from agentflow.errors import AgentFlowError, ModelError, ModelTimeoutError, ServerError, describe
from agentflow.mcp.performance.edge.draft import Step
from agentflow.mcp.performance.edge.fair_queue import FairQueue
from agentflow.mcp.performance.edge.job import Job
from agentflow.mcp.performance.edge.runtime import Decoding, Runtime

__all__ = ["Decoder"]

_AHEAD: Final = 128  # pieces that a stream's reader may be behind
_READ: Final = 256  # tokens of prompts after which a step is taken
_CLOCK: Final = SystemClock()


class Decoder:
    """`load` opens the runtime, when the first answer is asked for; `rows` are decoded together at most.

    `tokens` counts what was decoded since the beginning. Safe to use from any thread.
    """

    def __init__(self, load: Callable[[], Runtime], *, rows: int = 16, clock: Clock = _CLOCK) -> None:
        self._load = load
        self._most = rows
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: FairQueue[Job] = FairQueue()
        self._resting: list[Job] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._runtime: Runtime | None = None
        self._decoding: Decoding | None = None
        self._rows: list[Job] = []
        self.tokens = 0

    # ---- from any thread

    def submit(self, job: Job) -> None:
        """Raises ModelError once it is closed."""
        with self._lock:
            if self._closed:
                raise _closed()
            self._waiting.push(job, tenant=job.tenant, cost=job.cost)
            self._start()

    def wake(self) -> None:
        """Look again: a caller has left, or a reader has read."""
        with self._lock:
            if self._resting or len(self._waiting):
                self._start()

    def close(self) -> None:
        """End every answer with a ModelError and free the model. Waits for the step that is under way."""
        with self._lock:
            self._closed = True
            self._start()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="agentflow-edge")
            self._thread.start()

    # ---- in the thread

    def _work(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """One step for all rows; whether there may be more to do."""
        if self._closed:
            self._shut()
            return self._rest()
        try:
            self._admit()
            if not self._rows:
                return self._rest()
            self._step()
        except Exception as error:  # noqa: BLE001  # whatever the runtime raises, callers must hear of it
            self._fail(error)
        return True

    def _rest(self) -> bool:
        """End the thread where nothing is left to do; whether there is."""
        with self._lock:
            busy = not self._closed and (len(self._waiting) > 0 or any(map(self._may_go_on, self._resting)))
            if not busy:
                self._thread = None
            return busy

    def _admit(self) -> None:
        """Bring rows in, as many as there is room for, but read no more between two steps than keeps others waiting
        for about as long as a step of theirs takes."""
        self._sweep()
        read = 0
        while len(self._rows) < self._most and read < _READ and (job := self._next()) is not None:
            read += self._read(job)

    def _sweep(self) -> None:
        """Let go of those who wait or rest and have left, and tell those who waited too long."""
        now = self._clock.monotonic()
        with self._lock:
            out = self._waiting.remove(lambda job: job.left or _late(job, now))
            out += [job for job in self._resting if job.left or _late(job, now)]
            self._resting = [job for job in self._resting if job not in out]
        for job in out:
            if not job.left:
                job.end(_too_late(job))

    def _next(self) -> Job | None:
        """Who is to be answered now: whoever rested and may go on, else who waits."""
        with self._lock:
            ready = next(filter(self._may_go_on, self._resting), None)
            if ready is not None:
                self._resting.remove(ready)
            elif len(self._waiting):
                ready = self._waiting.pop()
        return ready

    def _may_go_on(self, job: Job) -> bool:
        return job.left or job.inbox.waiting * 2 <= _AHEAD

    def _read(self, job: Job) -> int:
        """Make a row of it; how many tokens that took. What is wrong with a request is told its caller alone."""
        if job.left:
            return 0
        try:
            runtime = self._loaded()
            if job.draft is None:
                job.draft = job.prepare()
            begun = self._clock.monotonic()
            if self._decoding is None:
                self._decoding = runtime.open([])
            self._decoding.add([job.draft.tokens])
            job.seconds += self._clock.monotonic() - begun
        except Exception as error:  # noqa: BLE001
            job.end(_told(error))
            return 0
        self._rows.append(job)
        return len(job.draft.tokens)

    def _loaded(self) -> Runtime:
        if self._runtime is None:
            self._runtime = self._load()
        return self._runtime

    def _step(self) -> None:
        """A token for every row; those that ended, were left or are late go out before the model is asked again."""
        assert self._decoding is not None
        begun = self._clock.monotonic()
        logits = self._decoding.logits()
        tokens, stay = [], []
        for row, job in enumerate(self._rows):
            if self._gone(job, begun):
                continue
            self.tokens += 1
            step = self._taken(job, logits[row])
            if step is not None and step.finish is None and not self._rests(job):
                tokens.append(step.token)
                stay.append(row)
        rows = [self._rows[row] for row in stay]
        if len(stay) < len(self._rows):
            self._rows = rows
            self._decoding.keep(stay)
        if tokens:
            self._decoding.append(tokens)
        share = (self._clock.monotonic() - begun) / max(1, len(rows))
        for job in rows:
            job.seconds += share

    def _gone(self, job: Job, now: float) -> bool:
        if job.left:
            return True
        if not _late(job, now):
            return False
        job.end(_too_late(job))
        return True

    def _taken(self, job: Job, logits: object) -> Step | None:
        """The next token of a row; None where its request failed."""
        assert job.draft is not None
        try:
            step = job.draft.take(logits)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001
            job.end(_told(error))
            return None
        job.tell(step)
        if step.finish is not None:
            job.end()
        return step

    def _rests(self, job: Job) -> bool:
        """Whether its reader is too far behind; then it rests, and its prompt and answer are read again later."""
        if job.inbox.waiting < _AHEAD:
            return False
        with self._lock:
            self._resting.append(job)
        return True

    def _fail(self, error: Exception) -> None:
        """The runtime failed: every row with it. The next answer begins with a fresh one of the same model."""
        rows, self._rows = self._rows, []
        decoding, self._decoding = self._decoding, None
        for job in rows:
            if not job.left:
                job.end(_told(error))
        if decoding is not None:
            decoding.close()

    def _shut(self) -> None:
        with self._lock:
            jobs = [*self._rows, *self._resting, *self._waiting]
            self._waiting, self._resting = FairQueue(), []
        self._rows = []
        for job in jobs:
            if not job.left:
                job.end(_closed())
        if self._decoding is not None:
            self._decoding.close()
        if self._runtime is not None:
            self._runtime.close()
        self._decoding = self._runtime = None


def _late(job: Job, now: float) -> bool:
    return job.deadline is not None and now >= job.deadline


def _too_late(job: Job) -> Exception:
    return ModelTimeoutError("total", job.limit)


def _told(error: Exception) -> Exception:
    """As a provider may say it."""
    return error if isinstance(error, AgentFlowError) else ServerError(f"the model failed: {describe(error)}")


def _closed() -> ModelError:
    return ModelError("the model was closed; register it again, or make another EdgeDeployment")
