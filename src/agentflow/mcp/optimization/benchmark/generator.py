"""Sends what is planned when it is planned, whatever becomes of it: the open loop, in one process.

    plan ──at its moment──▶ a task a request ──▶ Record
    heartbeat ─────────────▶ how late the event loop itself is

It ends by itself: what is under way `drain` seconds after the plan's end is cut off and recorded as unfinished. No more
than `max_in_flight` are under way at once; who finds no room waits, and its latency counts that, too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agentflow.clock import Clock
from agentflow.llm.estimate import estimated_tokens, text_tokens
from agentflow.mcp.optimization.benchmark.asking import Answer, Ask, timed
from agentflow.mcp.optimization.benchmark.dataset import Case
from agentflow.mcp.optimization.benchmark.record import UNFINISHED, Record

__all__ = ["Generated", "Generator", "Limits", "Planned", "Standing"]

_BEAT: Final = 0.05
"""Seconds between two looks at the event loop's own lateness."""
_PATIENCE: Final = 5.0
"""Seconds that requests which are cut off may take to give their connections back."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A request and its moment, in seconds from the start."""

    index: int
    at: float
    case: Case


@dataclass(frozen=True, slots=True)
class Limits:
    """`duration` is the whole plan's, in seconds; `keep_text` keeps answers for whoever wants to check them."""

    duration: float
    drain: float = 30.0
    max_in_flight: int = 1000
    keep_text: bool = False


@dataclass(slots=True)
class Standing:
    """How things are, for whoever watches. `recent` are the latest latencies: from intended moment to the end."""

    sent: int = 0
    answered: int = 0
    in_flight: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    lag: float = 0.0
    recent: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Generated:
    """What one process measured. `beats` are the lags of its event loop, in seconds.

    `stopped` is when somebody ended it early, in seconds from the start; None where nobody did. What was under way or
    still to come then is not among the records: nobody waited for it.
    """

    records: list[Record]
    beats: list[float]
    stopped: float | None = None


class Generator:
    """One run of one plan. `run` may be called once; `stop` ends it early, from the same event loop."""

    def __init__(self, ask: Ask, plan: Sequence[Planned], limits: Limits, *, clock: Clock, worker: int = 0) -> None:
        self.standing = Standing()
        self._ask = ask
        self._plan = plan
        self._limits = limits
        self._clock = clock
        self._worker = worker
        self._start = 0.0
        self._room = asyncio.Semaphore(limits.max_in_flight)
        self._full_until = 0.0
        self._records: dict[int, Record] = {}
        self._beats: list[float] = []
        self._stop = asyncio.Event()
        self._stopped: float | None = None

    def stop(self) -> None:
        """Send no more, cut off what is under way."""
        if not self._stop.is_set():
            self._stopped = self._now()
            self._stop.set()

    async def run(self, start: float) -> Generated:
        """`start` is the clock's monotonic moment from which the plan counts."""
        self._start = start
        tasks: set[asyncio.Task[None]] = set()
        beating: asyncio.Task[Any] = asyncio.create_task(self._beat())
        stopping: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
        sending = asyncio.create_task(self._send(tasks))
        try:
            await self._until_done(sending, tasks, stopping)
        finally:
            await _cut_off([sending, beating, stopping, *tasks])
        if self._stopped is None:
            records = [self._records.get(each.index) or self._unfinished(each) for each in self._plan]
            return Generated(records, self._beats)
        ended = [record for _, record in sorted(self._records.items()) if record.error != UNFINISHED]
        return Generated(ended, self._beats, self._stopped)

    async def _until_done(
        self, sending: asyncio.Task[None], tasks: set[asyncio.Task[None]], stopping: asyncio.Future[Any]
    ) -> None:
        await self._wait(sending, stopping)
        if sending.done() and not sending.cancelled():
            sending.result()  # what is wrong with the generator itself is raised
        if tasks:
            gathered = asyncio.ensure_future(asyncio.gather(*tasks, return_exceptions=True))
            await self._wait(gathered, stopping)
            gathered.cancel()

    async def _wait(self, what: asyncio.Future[Any], stopping: asyncio.Future[Any]) -> None:
        left = self._limits.duration + self._limits.drain - self._now()
        await asyncio.wait({what, stopping}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)

    async def _send(self, tasks: set[asyncio.Task[None]]) -> None:
        for planned in self._plan:
            # Also where it is late already: else the requests before it would be created, but not begin.
            await self._clock.sleep(max(0.0, planned.at - self._now()))
            await self._find_room()
            held = max(0.0, self._full_until - planned.at)
            task = asyncio.create_task(self._one(planned, held))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _find_room(self) -> None:
        """All that fall due while one waits are held back with it."""
        full = self._room.locked()
        await self._room.acquire()
        if full:
            self._full_until = self._now()

    async def _one(self, planned: Planned, held: float) -> None:
        sent, answer, error = self._now(), Answer(), None
        standing = self.standing
        standing.sent += 1
        standing.in_flight += 1
        standing.lag = max(standing.lag, sent - planned.at - held)
        try:
            await timed(self._ask(planned.case), answer, self._now)
        except asyncio.CancelledError:
            error = UNFINISHED
            raise
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is the answer that a user would have got
            error = type(failure).__name__
        finally:
            self._room.release()
            standing.in_flight -= 1
            self._records[planned.index] = record = self._record(planned, sent, held, answer, error)
            self._note(record)

    def _note(self, record: Record) -> None:
        standing = self.standing
        if record.error is not None:
            standing.errors[record.error] += 1
            return
        standing.answered += 1
        if record.e2e is not None:
            standing.recent.append(record.e2e)
            del standing.recent[:-200]

    def _record(self, planned: Planned, sent: float, held: float, answer: Answer, error: str | None) -> Record:
        response = answer.response
        common = (planned.index, planned.at, sent, answer.first, answer.last)
        if response is None:
            ended = None if error == UNFINISHED else self._now()
            return Record(*common, ended, held, answer.gaps, error=error, worker=self._worker)
        usage = response.usage
        counted = usage is not None and bool(usage.output_tokens or not response.text)
        return Record(
            *common,
            answer.ended,
            held,
            answer.gaps,
            usage.input_tokens if usage is not None else sum(map(estimated_tokens, planned.case.messages)),
            usage.output_tokens if usage is not None and counted else text_tokens(response.text + response.reasoning),
            not counted,
            response.cost,
            None,
            response.finish_reason,
            response.cache_hit,
            response.text if self._limits.keep_text else "",
            self._worker,
        )

    def _unfinished(self, planned: Planned) -> Record:
        return Record(planned.index, planned.at, error=UNFINISHED, worker=self._worker)

    async def _beat(self) -> None:
        """A loop that is late to wake is late to send, and late to see a piece of an answer."""
        due = max(self._now(), 0.0)
        while True:
            due += _BEAT
            await self._clock.sleep(max(0.0, due - self._now()))
            self._beats.append(max(0.0, self._now() - due))
            self.standing.lag = max(self.standing.lag, self._beats[-1])
            due = max(due, self._now())

    def _now(self) -> float:
        return self._clock.monotonic() - self._start


async def _cut_off(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_PATIENCE)
