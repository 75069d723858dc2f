"""The transport under pressure: thousands of calls, cancelled anywhere or all at once, and a process that forks."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow.llm.providers.base import ProviderSettings, Timeouts
from agentflow.llm.providers.http import AiohttpTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES = [HEAD, b"4\r\none \r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"]


class LeanServer(asyncio.Protocol):
    """Answers each request with `one two`: at once, or in pieces with turns of the event loop between them."""

    connections = 0
    open = 0

    def __init__(self) -> None:
        self.received = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        type(self).connections += 1
        type(self).open += 1

    def connection_lost(self, reason: Exception | None) -> None:
        self.transport = None
        type(self).open -= 1

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"\r\n\r\n{}"):
            in_pieces = b"/pieces" in self.received
            self.received.clear()
            self.send(PIECES if in_pieces else [b"".join(PIECES)])

    def send(self, pieces: list[bytes]) -> None:
        if self.transport is not None:
            self.transport.write(pieces[0])
            if pieces[1:]:
                asyncio.get_running_loop().call_later(0.0005, self.send, pieces[1:])


@pytest.fixture
async def server() -> AsyncIterator[type[LeanServer]]:
    """A server class of the test's own, which counts; `url` is its address."""
    counting = type("Counting", (LeanServer,), {})
    listening = await asyncio.get_running_loop().create_server(counting, "127.0.0.1", 0, backlog=4096)
    counting.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    yield counting
    listening.close()
    while counting.open:
        await asyncio.sleep(0)


def transport(url: str, *, timeouts: Timeouts | None = None, **options: Any) -> AiohttpTransport:
    settings = ProviderSettings("lab", "openai", timeouts=timeouts or Timeouts(connect=60), options=options)
    return AiohttpTransport(settings, base_url=url, headers={"authorization": "Bearer k"}, environ={})


async def ask(client: AiohttpTransport, path: str = "/chat") -> bytes:
    return (await client.post(path, b"{}", model="m", total=60)).body


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ---- cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 100])
async def test_after_10_000_cancelled_calls_the_next_20_succeed(server: Any, connections: int) -> None:
    """Cancelled while they wait for a place, connect, send, wait, read, and when they are about to end."""
    client = transport(server.url, max_connections=connections)
    chance = random.Random(11)
    survivors = 0

    async def cancelled_somewhere() -> None:
        nonlocal survivors
        task = asyncio.create_task(ask(client, "/pieces"))
        if chance.random() < 0.5:
            await turns(chance.randrange(40))
        else:
            await asyncio.sleep(chance.random() * 0.02)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        survivors += result == b"one two"
        assert result == b"one two" or isinstance(result, asyncio.CancelledError)

    for _ in range(100):
        await asyncio.gather(*(cancelled_somewhere() for _ in range(100)))
    assert survivors < 9_000, "most calls were cancelled"
    async with asyncio.timeout(10):
        assert await asyncio.gather(*(ask(client) for _ in range(20))) == [b"one two"] * 20
    await client.aclose()


async def test_streams_cancelled_at_any_read_free_their_place(server: Any) -> None:
    client = transport(server.url, timeouts=Timeouts(connect=5), max_connections=1)

    async def read_all() -> None:
        stream = await client.stream("/pieces", b"{}", model="m", total=5)
        try:
            while await stream.read():
                pass
            await stream.finish()
        finally:
            stream.close()

    for count in range(60):
        task = asyncio.create_task(read_all())
        await turns(count)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await ask(client) == b"one two"
    await client.aclose()


@pytest.mark.parametrize("between", range(4))
async def test_a_place_that_comes_to_a_cancelled_call_is_passed_on(server: Any, between: int) -> None:
    """aiohttp's own limit loses it when the call is cancelled in the moment it is woken: the next one then waits until
    somebody else is done, here for ever."""
    client = transport(server.url, timeouts=Timeouts(connect=5), max_connections=1)
    first = await client.stream("/pieces", b"{}", model="m", total=5)
    second, third = asyncio.create_task(ask(client)), asyncio.create_task(ask(client))
    await turns(10)
    while await first.read():
        pass
    first.close()
    await turns(between)
    second.cancel()
    async with asyncio.timeout(1):
        assert await third == b"one two"
    await asyncio.gather(second, return_exceptions=True)
    await client.aclose()


async def test_a_call_cancelled_twice_is_gone(server: Any) -> None:
    client = transport(server.url, timeouts=Timeouts(connect=5), max_connections=1)
    for count in range(30):
        task = asyncio.create_task(ask(client, "/pieces"))
        await turns(count)
        task.cancel()
        await turns(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await ask(client) == b"one two"
    await client.aclose()


# ---- many at once --------------------------------------------------------------------------------------------


async def test_a_pool_of_one_serves_500_calls_in_the_order_they_came(server: Any) -> None:
    client = transport(server.url, max_connections=1)
    done: list[int] = []

    async def numbered(number: int) -> None:
        await ask(client)
        done.append(number)

    await asyncio.gather(*(numbered(number) for number in range(500)))
    assert done == list(range(500))
    assert server.connections == 1
    await client.aclose()


async def test_10_000_calls_at_once_all_succeed(server: Any) -> None:
    client = transport(server.url)
    answers = await asyncio.gather(*(ask(client) for _ in range(10_000)))
    assert answers == [b"one two"] * 10_000
    assert server.connections <= 1000
    await client.aclose()
    gc.collect()


# ---- forks ---------------------------------------------------------------------------------------------------

FORKING = """
import asyncio, gc, os, sys
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.http import AiohttpTransport

client = AiohttpTransport(ProviderSettings("lab", "openai"), base_url=sys.argv[1], headers={})

async def ask():
    return (await client.post("/chat", b"{}", model="m", total=5)).body

async def child():
    assert await ask() == b"one two"
    if sys.argv[2] == "closes":
        await client.aclose()

loop = asyncio.new_event_loop()
assert loop.run_until_complete(ask()) == b"one two"
if (pid := os.fork()) == 0:
    code = 1
    try:
        asyncio.run(child())
        del client
        gc.collect()
        code = 0
    finally:
        os._exit(code)
_, status = os.waitpid(pid, 0)
assert status == 0, status
for _ in range(3):
    assert loop.run_until_complete(ask()) == b"one two"
loop.run_until_complete(client.aclose())
loop.close()
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
@pytest.mark.parametrize("child", ["closes", "forgets"])
async def test_a_forked_process_connects_anew_and_leaves_its_parents_connection_alone(server: Any, child: str) -> None:
    """The two share the sockets and the selector: what the child closes there, the parent no longer hears."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", FORKING, server.url, child, stderr=subprocess.PIPE
    )
    _, complaints = await process.communicate()
    assert (process.returncode, complaints) == (0, b"")
    assert server.connections == 2
