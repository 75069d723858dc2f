"""Runs as they are seen from elsewhere: their records as they are saved, their pieces as they are published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from agentflow.core.durability.records import Record
from agentflow.integrations.dbos.pieces import STREAM
from agentflow.integrations.dbos.runs import Runs
from agentflow.integrations.dbos.server import Server

__all__ = ["pieces_of", "records_of"]


async def records_of(server: Server, runs: Runs, run_id: str, polling: float) -> AsyncIterator[Record]:
    """Looked for every `polling` seconds."""
    known: dict[str, Record] = {}
    while True:
        # How it stands is read first: what was saved before it ended is not missed.
        goes_on = await server.run(runs.is_under_way, run_id)
        for record in (await server.run(runs.kept, run_id)).records:
            if known.get(record.id) != record:
                known[record.id] = record
                yield record
        if not goes_on:
            return
        await asyncio.sleep(polling)


async def pieces_of(server: Server, run_id: str, polling: float) -> AsyncIterator[str]:
    """DBOS reads on the engine's loop, and the caller on its own."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[list[str] | BaseException | None] = asyncio.Queue()

    def hand_over(what: list[str] | BaseException | None) -> None:
        loop.call_soon_threadsafe(arrived.put_nowait, what)

    async def read() -> None:
        from dbos import DBOS

        try:
            async for pieces in DBOS.read_stream_async(run_id, STREAM, polling_interval_sec=polling):
                hand_over(pieces)
            hand_over(None)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            hand_over(server.explained(error, run_id))

    reading = asyncio.run_coroutine_threadsafe(read(), server.loop)
    try:
        while (pieces := await arrived.get()) is not None:
            if isinstance(pieces, BaseException):
                raise pieces
            for piece in pieces:
                yield piece
    finally:
        reading.cancel()
