"""The body of one answer as it comes, watched by one timer, decompressed where it must be, and bounded."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agentflow.llm.providers.http.call import Call, network_errors
from agentflow.llm.providers.http.unzip import Unzip

if TYPE_CHECKING:
    import aiohttp


__all__ = ["BodyStream"]

_GRACE = 0.5  # seconds a finished stream may take to send its terminator
_GRACE_PIECES = 16
_BLOCKED = 0.05  # seconds that a timer is late only where something held up the loop


class BodyStream:
    """A `ByteStream` over an aiohttp response, with one timer for all its reads.

    It holds one of its session's places until it is closed, and gives at most `most` bytes.

    Silence before the first byte of the body is thinking, which `first_byte` limits; `idle` counts after it. The timer
    is not touched by a read: when it goes off it looks whether a read has waited too long, and if not, sets itself to
    when that could be. So a time limit costs a piece of the stream nothing, and a slow reader is never late. Where the
    loop was blocked, or the time was up before the read began, it looks one turn later: what has come by then counts.
    """

    __slots__ = (
        "_begun",
        "_content",
        "_expired",
        "_left",
        "_loop",
        "_most",
        "_places",
        "_response",
        "_timer",
        "_unzip",
        "_waiting_since",
        "call",
        "headers",
        "status",
    )

    def __init__(self, response: aiohttp.ClientResponse, call: Call, places: asyncio.Semaphore, most: int) -> None:
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self.call = call
        self._response = response
        self._content = response.content
        self._places: asyncio.Semaphore | None = places
        self._most = self._left = most
        encoding = response.headers.get("content-encoding", "identity")
        self._unzip = None if encoding in ("identity", "") else Unzip(encoding)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None
        self._begun = False
        self._expired: str | None = None

    def here(self) -> bytes | None:
        """The whole body, where it has come already and nothing is to be undone; else None, and it is to be read."""
        content = self._content
        if not content.is_eof() or content.exception() is not None or self._unzip is not None:
            return None
        data = content.read_nowait()
        self._left -= len(data)
        return self._checked(data)

    async def read(self) -> bytes:
        data = await self._read() if self._unzip is None else await self._read_unzipped(self._unzip)
        self._left -= len(data)
        return self._checked(data)

    def _checked(self, data: bytes) -> bytes:
        if self._left < 0:
            raise self.call.nonsense(
                f"{self.call.where} answers with more than {self._most:,} bytes, which no model does", self.status
            )
        return data

    async def _read(self) -> bytes:
        """The next bytes as they are on the wire."""
        self._waiting_since = self._loop.time()
        if self._timer is None and not self._content.is_eof():
            self._watch()
        try:
            data = await self._content.readany()
        except network_errors() as error:
            failure = self.call.timeout(self._expired) if self._expired else self.call.broken(error)
        else:
            self._waiting_since = None
            if not self._begun:
                self._begin()
            return data
        raise failure

    async def _read_unzipped(self, unzip: Unzip) -> bytes:
        """The next bytes that decompressing gives. What arrives may give none yet, which is not the end."""
        try:
            while True:
                if not unzip.has_more:
                    packed = await self._read()
                    if not packed:
                        unzip.end()
                        return b""
                    unzip.feed(packed)
                if piece := unzip.next():
                    return piece
        except zlib.error as error:
            failure = self.call.nonsense(
                f"{self.call.where} answers compressed, which was not asked for, and not readably ({error})",
                self.status,
            )
        raise failure

    async def finish(self) -> None:
        if self._content.is_eof():
            return
        try:
            async with asyncio.timeout(_GRACE):
                for _ in range(_GRACE_PIECES):
                    if not await self._content.readany():
                        return
        except network_errors():
            return  # the answer is whole; close() drops a connection that cannot serve again

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.close()
        if self._places is not None:
            self._places.release()
            self._places = None

    def __del__(self) -> None:
        # Whoever forgets to close a stream must not block the calls of others. This may run in any thread.
        if getattr(self, "_places", None) is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)

    def _begin(self) -> None:
        """The first byte is here: another limit counts from now on."""
        self._begun = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        """End the answer if a read is late; otherwise look again when one could be."""
        now = self._loop.time()
        when, phase = self.call.due(now if self._waiting_since is None else self._waiting_since, self._begun)
        if when is None:
            self._timer = None
        elif when > now:
            self._timer = self._loop.call_at(when, self._watch)
        elif self._timer is None or now - self._timer.when() > _BLOCKED:
            self._timer = self._loop.call_at(now, self._watch)
        else:
            self._timer = None
            self._expired = phase
            self._response.close()  # a waiting read, or the next one, fails by this
