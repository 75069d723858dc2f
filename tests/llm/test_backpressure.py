"""A reader that stops stops the socket, and a stream of a gigabyte takes no more memory than its first pieces."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agentflow.errors import ProtocolError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry

MIB = 1024 * 1024
GIGABYTE = 1_000_000_000
TEXT = "x" * (256 * 1024)
CHUNK = {"choices": [{"index": 0, "delta": {"content": TEXT}, "finish_reason": None}]}
EVENT = b"data: " + json.dumps(CHUNK).encode() + b"\n\n"
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


class Hose:
    """A server that sends as fast as it may: `size` bytes of events. `sent` is what its socket has taken so far."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            while self.sent < self.size:
                writer.write(EVENT)
                await writer.drain()
                self.sent += len(EVENT)
            writer.write(LAST)
            await writer.drain()
        writer.close()


@pytest.fixture
def asking(tmp_path: Path) -> Callable[[Hose], object]:
    @asynccontextmanager
    async def ask(hose: Hose) -> AsyncIterator[LLMClientBuilder]:
        server = await asyncio.start_server(hose.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        (tmp_path / "models.yml").write_text(f'providers: {{lab: {{kind: openai, base_url: "{url}"}}}}')
        registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
        try:
            yield AgentFlow.model("lab/m", registry=registry).prompt("Go on")
        finally:
            await registry.aclose()
            server.close()
            await server.wait_closed()

    return ask


def resident() -> int:
    """Bytes of memory this process holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    pytest.skip("this system does not say how much memory a process holds")


async def still(value: Callable[[], int]) -> int:
    """The value once it no longer changes, however often the loop turns."""
    before, same = -1, 0
    while same < 200:
        await asyncio.sleep(0)
        same = same + 1 if value() == before else 0
        before = value()
    return before


async def test_a_reader_that_stops_stops_the_server(asking: Callable[..., object]) -> None:
    """What is under way then is a few buffers, a hundredth of what the server would send."""
    hose = Hose(GIGABYTE)
    async with asking(hose) as model, model.execute_streaming() as stream:  # type: ignore[attr-defined]
        await anext(stream)
        assert await still(lambda: hose.sent) < 10 * MIB
        for _ in range(20):
            await anext(stream)
        moved = await still(lambda: hose.sent)
        assert 20 * len(TEXT) < moved < 20 * len(EVENT) + 10 * MIB


async def test_memory_stays_flat_over_a_gigabyte(asking: Callable[..., object]) -> None:
    """Every piece arrives; what can be collected is kept up to a bound, and past it nothing is."""
    hose = Hose(GIGABYTE)
    peak = read = 0
    async with asking(hose) as model, model.execute_streaming() as stream:  # type: ignore[attr-defined]
        read += len((await anext(stream)).content)
        gc.collect()
        before = resident()
        async for chunk in stream:
            read += len(chunk.content)
            if read % (64 * MIB) < len(TEXT):
                peak = max(peak, resident() - before)
        with pytest.raises(ProtocolError, match="too long to be collected"):
            await stream.collect()
    assert read == hose.sent // len(EVENT) * len(TEXT)
    assert peak < 100 * MIB
