"""Sixty questions to a server that has a bad day: it limits, fails, stalls, and goes down for a while.

    python examples/survive.py                 sixty questions, ten at a time
    python examples/survive.py --questions 200 --at-once 40

The server is a small one on this machine; the client is the real one, with nothing configured but its address and a
second model that stands in. Afterwards: who answered, in how many attempts, and where the time went.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path

from agentflow import AgentFlow, AgentFlowError, ModelRegistry, Response, Timing

MODELS = """
defaults: {{timeout: {{first_byte: 1, total: 30}}, retry: {{max_attempts: 5, base_delay: 0.1, max_delay: 2}}}}
providers:
  moody: {{kind: openai, base_url: "http://127.0.0.1:{port}/v1", api_key_env: null, rate_limit: {{concurrency: 20}}}}
models:
  clever: {{provider: moody, fallback: [steady]}}
  steady: {{provider: moody}}
"""


class BadDay:
    """A server in OpenAI's format. `clever` is limited to `rate` answers a second and has moods; `steady` has none."""

    def __init__(self, rate: float = 40.0, seed: int = 4) -> None:
        self.rate = rate
        self.chance = random.Random(seed)
        self.free_at = 0.0
        self.seen: Counter[str] = Counter()
        self.visits: set[asyncio.Task[None]] = set()

    def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.create_task(self.serve(reader, writer))
        self.visits.add(visit)
        visit.add_done_callback(self.visits.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                asked = json.loads(await reader.readexactly(length))
                await self.answer(asked["model"], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, model: str, writer: asyncio.StreamWriter) -> None:
        number = sum(self.seen.values())
        mood = "well" if model == "steady" else self.mood(number)
        self.seen[f"{model}: {mood}"] += 1
        if mood == "stalled":
            await asyncio.sleep(1.5)
        elif mood == "reset":
            writer.transport.abort()
            return
        status, head, body = {
            "limited": (429, "retry-after-ms: 300\r\n", {"error": {"message": "slow down"}}),
            "overloaded": (529, "", {"error": {"message": "overloaded"}}),
            "down": (500, "", {"error": {"message": "down"}}),
        }.get(mood, (200, "", said(model)))
        text = json.dumps(body).encode()
        writer.write(f"HTTP/1.1 {status} x\r\n{head}content-type: application/json\r\n".encode())
        writer.write(f"content-length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()

    def mood(self, number: int) -> str:
        now = asyncio.get_running_loop().time()
        self.free_at = max(self.free_at, now - 0.2)
        if self.free_at > now:
            return "limited"
        self.free_at += 1 / self.rate
        if 25 <= number < 45:
            return "down"
        draw = self.chance.random()
        return "overloaded" if draw < 0.05 else "reset" if draw < 0.1 else "stalled" if draw < 0.13 else "well"


def said(model: str) -> dict[str, object]:
    message = {"role": "assistant", "content": "All is well."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return {"id": "1", "model": model, "choices": [choice], "usage": usage}


async def ask_all(
    ask: Callable[[int], Awaitable[Response]], count: int, at_once: int
) -> list[Response | AgentFlowError]:
    """The answers, or the errors in their place."""
    places = asyncio.Semaphore(at_once)

    async def one(number: int) -> Response | AgentFlowError:
        async with places:
            try:
                return await ask(number)
            except AgentFlowError as error:
                return error

    return await asyncio.gather(*(one(number) for number in range(count)))


def report(results: list[Response | AgentFlowError], server: BadDay) -> None:
    answers = [result for result in results if isinstance(result, Response)]
    timings = [answer.timing for answer in answers if answer.timing is not None]
    print(f"{len(answers)} of {len(results)} questions were answered: "
          f"{dict(Counter(answer.model for answer in answers))}")  # fmt: skip
    print(f"in {sum(timing.attempts for timing in timings)} attempts, in the end; the server saw")
    for mood, times in sorted(server.seen.items()):
        print(f"  {times:4} × {mood}")
    print("where the time went, all questions together:")
    for field in fields(Timing):
        spent = sum(getattr(timing, field.name) or 0.0 for timing in timings)
        if field.name not in ("attempts", "total") and spent:
            print(f"  {field.name:12}{spent:7.2f} s")
    for error in {str(result).split(";")[0] for result in results if isinstance(result, AgentFlowError)}:
        print(f"not answered: {error}")


def configured(port: int) -> ModelRegistry:
    """What a models.yml of yours would say, and nothing from this machine."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "models.yml")
        file.write_text(MODELS.format(port=port), encoding="utf-8")
        return ModelRegistry.load(file, environ={}, cwd=Path(folder))


async def main(count: int, at_once: int) -> None:
    day = BadDay()
    server = await asyncio.start_server(day.connect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    registry = configured(port)
    model = AgentFlow.model("clever", registry=registry)
    print(registry.pipeline(registry.describe("clever")).describe(), end="\n\n")
    try:
        results = await ask_all(lambda number: model.prompt(f"How are you, {number}?").execute_full(), count, at_once)
    finally:
        await registry.aclose()
        server.close()
        await asyncio.gather(*day.visits)
    report(results, day)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=10)
    options = parser.parse_args()
    asyncio.run(main(options.questions, options.at_once))
