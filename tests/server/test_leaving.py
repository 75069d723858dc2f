"""Whoever goes away stops the model: a client in the middle of an answer, a reader that does not read, the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.support.served import registry_of, running

from agentflow.errors import ConfigurationError
from agentflow.llm.messages import Request, Response, StreamChunk
from agentflow.server import serve

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


class Endless:
    """A model that never comes to an end: `written` counts its pieces, `stopped` tells that it was made to stop."""

    name = "toy"

    def __init__(self, piece: str = "on and ") -> None:
        self.piece = piece
        self.written = 0
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()

    async def execute(self, request: Request) -> Response:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()
        raise AssertionError

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        self.begun.set()
        try:
            while True:
                self.written += 1
                yield StreamChunk(self.piece)
                await asyncio.sleep(0)
        finally:
            self.stopped.set()

    async def aclose(self) -> None: ...


async def test_a_stream_that_is_left_stops_the_model(tmp_path: Path) -> None:
    """Nobody pays for, or waits behind, an answer that is no longer wanted."""
    toy = Endless()
    async with running(registry_of(tmp_path, toy=toy), "toy/m", max_concurrency=1) as server, server.client() as client:
        stream = await client.chat.completions.create(model="toy/m", messages=HI, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await asyncio.wait_for(toy.stopped.wait(), 60)
        again = await client.completions.create(model="toy/m", prompt="Hi", stream=True)  # its place is free again
        await again.close()


async def test_a_call_that_is_left_stops_the_model(tmp_path: Path) -> None:
    """Also where nothing of the answer had come."""
    toy = Endless()
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server, server.client() as client:
        call = asyncio.create_task(client.chat.completions.create(model="toy/m", messages=HI))
        await toy.begun.wait()
        call.cancel()
        await asyncio.wait_for(toy.stopped.wait(), 60)


async def test_whoever_waits_for_a_place_may_leave_the_line(tmp_path: Path) -> None:
    """Its turn goes to the next."""
    toy = Endless()
    async with running(registry_of(tmp_path, toy=toy), "toy/m", max_concurrency=1) as server, server.client() as client:
        first = asyncio.create_task(client.chat.completions.create(model="toy/m", messages=HI))
        await toy.begun.wait()
        second = asyncio.create_task(client.chat.completions.create(model="toy/m", messages=HI))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
        await asyncio.wait_for(toy.stopped.wait(), 60)
        toy.begun.clear()
        third = asyncio.create_task(client.chat.completions.create(model="toy/m", messages=HI))
        await asyncio.wait_for(toy.begun.wait(), 60)
        third.cancel()


async def test_a_slow_reader_slows_the_model_down(tmp_path: Path) -> None:
    """Pieces wait where they are made, and not in the server's memory."""
    toy = Endless("x" * 65536)
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server:
        port = int(server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        body = json.dumps({"model": "toy/m", "stream": True, "messages": HI}).encode()
        lines = (
            "POST /v1/chat/completions HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        seen, still = 0, 0
        while still < 500:
            still = still + 1 if toy.written == seen else 0
            seen = toy.written
            assert seen < 1000, "64 MB were written for a reader that reads nothing"
            await asyncio.sleep(0)
        writer.close()
        await asyncio.wait_for(toy.stopped.wait(), 60)


# ---- the server goes -----------------------------------------------------------------------------------------


class Course:
    """`serve` in a task of its own."""

    def __init__(self, folder: Path, toy: Endless, grace: float) -> None:
        self.stop = asyncio.Event()
        self._address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        registry = registry_of(folder, toy=toy)
        self.task = asyncio.create_task(
            serve(
                models=["toy/m"],
                registry=registry,
                port=0,
                grace=grace,
                stop=self.stop,
                ready=self._address.set_result,
            )
        )

    async def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key="none", base_url=await self._address, max_retries=0)


class Patient(Endless):
    """Answers once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def execute(self, request: Request) -> Response:
        self.begun.set()
        await self.let.wait()
        return Response("at last", "m", "toy")


async def test_what_is_under_way_is_finished_before_the_server_goes(tmp_path: Path) -> None:
    """Nobody new is let in meanwhile."""
    toy = Patient()
    course = Course(tmp_path, toy, grace=60)
    async with await course.client() as client, await course.client() as late:
        call = asyncio.create_task(client.chat.completions.create(model="toy/m", messages=HI))
        await toy.begun.wait()
        course.stop.set()
        await asyncio.sleep(0)
        while True:
            try:
                await late.models.list()
            except openai.APIError:
                break
        toy.let.set()
        assert (await call).choices[0].message.content == "at last"
        await course.task


async def test_what_does_not_end_in_time_is_cancelled(tmp_path: Path) -> None:
    """The server goes within its grace, whatever the models do."""
    toy = Endless()
    course = Course(tmp_path, toy, grace=0.05)
    async with await course.client() as client:
        call = asyncio.create_task(client.chat.completions.create(model="toy/m", messages=HI))
        await toy.begun.wait()
        course.stop.set()
        await course.task
        assert toy.stopped.is_set()
        with pytest.raises(openai.APIConnectionError):
            await call


async def test_a_closing_server_sends_new_requests_away(tmp_path: Path) -> None:
    """With 503 and a hint of when to come back, also for whoever asks how it is."""
    async with running(registry_of(tmp_path, toy=Endless()), "toy/m") as server, aiohttp.ClientSession() as session:
        await server.runner.shutdown()
        for path in ("/v1/models", "/health"):
            async with session.get(server.url + path) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_an_address_that_is_taken_is_said(tmp_path: Path) -> None:
    """In one sentence, as a mistake in the configuration."""
    registry = registry_of(tmp_path, toy=Endless())
    async with running(registry_of(tmp_path, toy=Endless()), "toy/m") as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port} cannot be listened on"):
            await serve(models=["toy/m"], registry=registry, port=port)
