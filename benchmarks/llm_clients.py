"""One client in a process of its own: makes model calls when told to, and says what they cost.

    python benchmarks/llm_clients.py agentflow PORT

Commands and results are lines of JSON on standard input and output (`llm_overhead.py` speaks them):

    {"do": "call", "calls": 200, "at_once": 1}      → CPU and wall time of so many calls
    {"do": "stream", "calls": 20, "pieces": 50}     → the same for streams, and when each first piece came

Only the libraries of the client's own environment are imported, and only when the client is made.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

ANSWER = "The tide is the rise and fall of the sea that the moon and the sun cause together"
PROMPT = "Explain the tides in one sentence."
KEY = "benchmark-key"


class Client(Protocol):
    """A whole answer's text, and the texts of a streamed one. Made once; `close` at the end."""

    async def call(self, prompt: str) -> str: ...
    def stream(self, prompt: str) -> AsyncIterator[str]: ...
    async def close(self) -> None: ...


class OurClient:
    """The full way: registry, builder, client, provider, with models.yml as a user writes it."""

    def __init__(self, base_url: str) -> None:
        from agentflow import AgentFlow, ModelRegistry

        models = f"""
providers:
  lab: {{kind: openai, base_url: "{base_url}", api_key_env: BENCHMARK_KEY}}
models:
  bench: {{provider: lab, model_id: gpt-4o, temperature: 0.7}}
"""
        os.environ["BENCHMARK_KEY"] = KEY
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write(models)
            file.flush()
            self._registry = ModelRegistry.load(file.name)
        self._model = AgentFlow.model

    async def call(self, prompt: str) -> str:
        return await self._model("bench", registry=self._registry).prompt(prompt).execute()

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        async with self._model("bench", registry=self._registry).prompt(prompt).execute_streaming() as chunks:
            async for chunk in chunks:
                if chunk.content:
                    yield chunk.content

    async def close(self) -> None:
        await self._registry.aclose()


class BareAiohttp:
    """A session, `json`, and a dozen lines that cut a stream into events: what one writes without a library."""

    def __init__(self, base_url: str) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
            connector=aiohttp.TCPConnector(limit=1_000),
        )
        self._url = f"{base_url}/chat/completions"

    async def call(self, prompt: str) -> str:
        async with self._session.post(self._url, data=_body(prompt)) as response:
            assert response.status == 200
            return json.loads(await response.read())["choices"][0]["message"]["content"]

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        async with self._session.post(self._url, data=_body(prompt, stream=True)) as response:
            assert response.status == 200
            rest = b""
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event.startswith(b"data: {"):
                        for choice in json.loads(event[6:])["choices"]:
                            if content := choice["delta"].get("content"):
                                yield content

    async def close(self) -> None:
        await self._session.close()


def _body(prompt: str, *, stream: bool = False) -> bytes:
    body: dict[str, object] = {"model": "gpt-4o", "messages": _messages(prompt), "temperature": 0.7}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


class OpenAISDK:
    def __init__(self, base_url: str) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(base_url=base_url, api_key=KEY)

    async def call(self, prompt: str) -> str:
        made: Any = await self._client.chat.completions.create(
            model="gpt-4o", messages=_messages(prompt), temperature=0.7
        )
        return made.choices[0].message.content

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        chunks: Any = await self._client.chat.completions.create(
            model="gpt-4o",
            messages=_messages(prompt),
            temperature=0.7,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for content in _contents(chunks):
            yield content

    async def close(self) -> None:
        await self._client.close()


class LiteLLM:
    def __init__(self, base_url: str) -> None:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches its price list when imported
        import litellm

        litellm.telemetry = False
        self._complete: Any = litellm.acompletion
        self._options = {"model": "openai/gpt-4o", "api_base": base_url, "api_key": KEY, "temperature": 0.7}

    async def call(self, prompt: str) -> str:
        made = await self._complete(messages=_messages(prompt), **self._options)
        return made.choices[0].message.content

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        asked = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = await self._complete(messages=_messages(prompt), **asked, **self._options)
        async for content in _contents(chunks):
            yield content

    async def close(self) -> None:
        return None


async def _contents(chunks: Any) -> AsyncIterator[str]:
    async for chunk in chunks:
        if chunk.choices and (content := chunk.choices[0].delta.content):
            yield content


CLIENTS: dict[str, Callable[[str], Client]] = {
    "agentflow": OurClient,
    "aiohttp": BareAiohttp,
    "openai": OpenAISDK,
    "litellm": LiteLLM,
}


# ---- measuring ---------------------------------------------------------------------------------------------------


async def calls(client: Client, *, count: int, at_once: int) -> dict[str, object]:
    async def some(number: int) -> None:
        for _ in range(number):
            assert await client.call(PROMPT) == ANSWER

    await _together(some, at_once, at_once)  # opens connections that were closed for idling
    return await timed(lambda: _together(some, count, at_once), count)


async def _together(some: Callable[[int], Awaitable[None]], count: int, at_once: int) -> None:
    if at_once == 1:
        await some(count)
    else:
        await asyncio.gather(*(some(count // at_once) for _ in range(at_once)))


async def streams(client: Client, *, count: int, pieces: int) -> dict[str, object]:
    first: list[float] = []

    async def all_of_them() -> None:
        for _ in range(count):
            started = time.perf_counter()
            seen = 0
            async for _content in client.stream(f"{PROMPT} pieces={pieces}"):
                if not seen:
                    first.append(time.perf_counter() - started)
                seen += 1
            assert seen == pieces, f"{seen} pieces came, not {pieces}"

    return {**await timed(all_of_them, count), "first": first}


async def timed(work: Callable[[], Awaitable[None]], count: int) -> dict[str, object]:
    """CPU and wall seconds a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    return {"cpu": (time.process_time() - cpu) / count, "wall": (time.perf_counter() - wall) / count}


def resident() -> float | None:
    """Resident memory of this process in MB; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def serve(name: str, base_url: str) -> None:
    started = time.process_time()
    client = CLIENTS[name](base_url)
    imported = time.process_time() - started
    assert await client.call(PROMPT) == ANSWER
    _say({"import_cpu": imported, "resident": resident()})
    crowd = CLIENTS[name](base_url)  # one of its own: a hundred idle connections in the pool slow some clients down
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        if command["do"] == "call":
            at_once = command["at_once"]
            _say(await calls(client if at_once == 1 else crowd, count=command["calls"], at_once=at_once))
        else:
            _say(await streams(client, count=command["calls"], pieces=command["pieces"]))
    await client.close()
    await crowd.close()


def _say(result: dict[str, object]) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], f"http://127.0.0.1:{sys.argv[2]}/v1"))
