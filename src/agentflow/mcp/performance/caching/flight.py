"""One question under way, however many ask it: the first has it asked, all get what comes of it.

    board(name, work) ──▶ Flight ──work runs in a task of its own──▶ pieces, landing
       seat, seat, seat ──whole(), chunks()──┘

The task belongs to none of those who wait, so that it goes on when the first of them is cancelled. When the last one
leaves before the answer is there, it is cancelled, too, and whoever leaves waits until the connection is given back.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from msgspec import Struct
from msgspec.structs import replace

from agentflow.llm.messages import Response, StreamChunk
from agentflow.llm.streaming.join import chunks_of
from agentflow.mcp.performance.caching.kept import Piece
from agentflow.mcp.performance.caching.shelf import Found

__all__ = ["Flight", "Flights", "Landed", "Seat", "free"]

_log: Final = logging.getLogger("agentflow.cache")
_AHEAD: Final = 4_096  # chunks that a stream may be ahead of whoever reads it fastest


class Landed(Struct, frozen=True):
    """What came of it. `worth` is what the answer has cost whoever asked the model for it, None where nobody knows.
    Where nobody had to, `tier` says where it was found, `found` what, and `reason` and `facts` why that."""

    answer: Response
    worth: float | None
    tier: str | None = None
    found: Found | None = None
    reason: str = "joined"
    facts: Mapping[str, object] = {}


class Flight:
    """Made by `Flights`. `unattended` goes on without anybody who waits."""

    __slots__ = (
        "_base",
        "_bells",
        "_flights",
        "_loop",
        "_room",
        "_seats",
        "landing",
        "name",
        "payer",
        "pieces",
        "streamed",
        "task",
        "unattended",
    )

    def __init__(self, flights: dict[str, Flight], name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._flights = flights
        self._seats: dict[Seat, None] = {}
        self._bells: list[asyncio.Future[None]] = []
        self._room: asyncio.Future[None] | None = None  # what a stream waits for that is far ahead
        self._base = 0  # number of the first piece that is still here
        self.name = name
        self.payer: Seat | None = None  # who the cost is told to: whoever has waited the longest when it is known
        self.landing: asyncio.Future[Landed] = self._loop.create_future()
        self.landing.add_done_callback(_seen)
        self.pieces: list[Piece] = []
        self.streamed = False
        self.unattended = False
        self.task: asyncio.Task[None] | None = None

    # ---- for the work ----------------------------------------------------------------------------------------

    async def add(self, piece: Piece) -> None:
        """A piece has come. Waits where it is far ahead of all who read."""
        self.streamed = True
        self.pieces.append(piece)
        self.ring()
        while (readers := [seat.read for seat in self._seats if seat.reads]) and (
            self._base + len(self.pieces) - max(readers) > _AHEAD
        ):
            self._room = self._loop.create_future()
            await self._room

    def forget(self) -> None:
        """It is too long to be kept: from here on, what all have read is dropped, and nobody else can join."""
        self._leave_the_list()
        slowest = min([seat.read for seat in self._seats], default=self._base + len(self.pieces))
        del self.pieces[: slowest - self._base]
        self._base = slowest

    def land(self, landed: Landed) -> None:
        """The answer is there."""
        if not self.landing.done():
            self.landing.set_result(landed)
        self.ring()

    async def run(self, work: Callable[[Flight], Awaitable[None]]) -> None:
        try:
            await work(self)
        except asyncio.CancelledError:
            self.landing.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised to all who wait
            if self.landing.done():
                _log.exception("an answer that was given could not be kept")
            else:
                self.landing.set_exception(error)
        finally:
            self._leave_the_list()
            self.ring()

    # ---- for those who wait ----------------------------------------------------------------------------------

    def seat(self) -> Seat:
        seat = Seat(self)
        self._seats[seat] = None
        if self.payer is None and not self.landing.done():
            self.payer = seat
        return seat

    async def leave(self, seat: Seat) -> None:
        if self._seats.pop(seat, self) is self:
            return
        if self.payer is seat and not self.landing.done():
            self.payer = next(iter(self._seats), None)
        self.caught_up()
        if self._seats or self.unattended or self.landing.done() or self.task is None:
            return
        self._leave_the_list()
        self.task.cancel()
        await asyncio.wait((self.task,))

    def piece(self, number: int) -> Piece | None:
        at = number - self._base
        return self.pieces[at] if at < len(self.pieces) else None

    def ring(self) -> None:
        """Something has happened."""
        bells, self._bells = self._bells, []
        for bell in bells:
            if not bell.done():
                bell.set_result(None)

    def caught_up(self) -> None:
        """One who reads has read all there is, or has left: a stream that waits for that goes on. Nobody else is woken:
        two who read would wake each other for ever."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def news(self) -> None:
        """Until something has happened."""
        bell = self._loop.create_future()
        self._bells.append(bell)
        await bell

    def _leave_the_list(self) -> None:
        if self._flights.get(self.name) is self:
            del self._flights[self.name]


class Seat:
    """One who waits. `async with seat:` gives it up at the end."""

    __slots__ = ("flight", "read", "reads")

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.read = 0
        self.reads = False

    async def __aenter__(self) -> Seat:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.flight.leave(self)

    async def whole(self) -> tuple[Landed, bool]:
        """The answer, and whether the cost is told to this one. Raises what the work has raised."""
        self.read = 1 << 62  # pieces are of no interest
        landed = await asyncio.shield(self.flight.landing)
        return landed, self.flight.payer is self and landed.tier is None

    async def chunks(self, replay: Callable[[Landed], AsyncIterator[StreamChunk]]) -> AsyncGenerator[StreamChunk, None]:
        """The answer in pieces, those that have come already at once. `replay` streams what was found somewhere."""
        flight, self.reads = self.flight, True
        while True:
            piece = flight.piece(self.read)
            if piece is not None:
                self.read += 1
                yield piece.chunk if flight.payer is self else _free(piece.chunk)
            elif flight.landing.done():
                landed = flight.landing.result()
                if not flight.streamed:
                    pays = landed.tier is None and flight.payer is self
                    async for chunk in _again(landed, pays, replay):
                        yield chunk
                return
            else:
                flight.caught_up()
                await flight.news()


async def _again(
    landed: Landed, pays: bool, replay: Callable[[Landed], AsyncIterator[StreamChunk]]
) -> AsyncGenerator[StreamChunk, None]:
    """What did not come in pieces, in pieces."""
    if landed.found is not None:
        async for chunk in replay(landed):
            yield chunk
    else:
        for chunk in chunks_of(landed.answer if pays else free(landed)):
            yield chunk


class Flights:
    """The questions under way, by name; every event loop has its own."""

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Flight]] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    def board(self, name: str, work: Callable[[Flight], Awaitable[None]]) -> tuple[Flight, bool]:
        """The flight of that name, and whether it begins now. Take a seat before anything is awaited."""
        loop = asyncio.get_running_loop()
        flights = self._loops.get(loop)
        if flights is None:
            flights = self._loops[loop] = {}
        flight = flights.get(name)
        if flight is not None:
            return flight, False
        flight = flights[name] = Flight(flights, name)
        flight.task = loop.create_task(flight.run(work))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight, True

    def under_way(self, name: str) -> bool:
        return name in self._loops.get(asyncio.get_running_loop(), {})

    async def end(self) -> None:
        """Wait for what is still being kept on this event loop; what nobody waits for is cancelled."""
        loop = asyncio.get_running_loop()
        for flight in list(self._loops.get(loop, {}).values()):
            if not flight.landing.done() and flight.payer is None and flight.task is not None:
                flight.task.cancel()
        tasks = [task for task in list(self._tasks) if task.get_loop() is loop]
        if tasks:
            await asyncio.wait(tasks)


def free(landed: Landed) -> Response:
    """The answer for one who does not pay. Nobody can change what another gets."""
    answer = replace(landed.answer, cost=0.0, cache_hit=landed.tier or "exact")
    is_plain = isinstance(answer.content, str) and not (answer.opaque or answer.alternatives)
    return answer if is_plain else copy.deepcopy(answer)


def _free(chunk: StreamChunk) -> StreamChunk:
    """The same for a piece."""
    if chunk.cost is None and chunk.usage is None:
        return chunk
    return replace(chunk, cost=0.0, cache_hit="exact")


def _seen(landing: asyncio.Future[Landed]) -> None:
    """An error that nobody waits for any more is no surprise."""
    with suppress(asyncio.CancelledError):
        landing.exception()
