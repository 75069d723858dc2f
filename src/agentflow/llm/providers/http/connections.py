"""Connections that lie idle until the next request, and whether that may use them.

It loads aiohttp, and so is loaded when the first request is made.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING
from weakref import WeakSet

import aiohttp

from agentflow.core.robustness.attempt import note_connecting

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ["Connections"]


class Connections(aiohttp.TCPConnector):
    """aiohttp's own, except that a connection on which something came that nobody asked for is not used again.

    A server that answers twice would otherwise give the second answer to the next question. aiohttp looks for that as
    an answer ends (`should_close`), but not for what comes behind it, nor for what comes while a connection lies idle.
    """

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(limit=0, ssl=True if tls is None else tls)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        """A new connection, whose opening is time of ours and not of whoever is asked."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            return await super()._create_connection(req, traces, timeout)
        finally:
            note_connecting(loop.time() - since)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None:
                return connection
            if not protocol.should_close or protocol not in self._used:  # what a new one has to say is its answer
                self._used.add(protocol)
                return connection
            connection.close()
