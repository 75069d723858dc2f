"""What everything together adds to a call: cache, budget, router and all guards, at a thousand requests a second.

    python benchmarks/stack_overhead.py [--tiny] [--output FOLDER]      about a minute and a half

One process on one core. Requests come by a plan that waits for nobody, and each is timed from the moment at which it
was to be sent. The model answers after 20 ms, from memory; so the 99th percentile of a bare call, which is what the
event loop and the machine take, is measured in turns with that of a call through the whole stack, of which every third
is a question that was asked before.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Message, Request, Response, Usage
from agentflow.llm.providers.scripted import ScriptedProvider
from results import Report, median, note, number, options

RATE = 1_000.0  # requests a second
SECONDS, ROUNDS = 5.0, 7
SERVICE = 0.02  # seconds
LIMIT = 1.0  # milliseconds
MODELS_YML = """
defaults: {budget: {per_day: 1000.0}}
providers: {toy: {kind: toy}}
models:
  small: {provider: toy, price: {input: 0.1, output: 0.4}, max_output: 500}
  large: {provider: toy, price: {input: 2, output: 8}, max_output: 500}
  auto:
    cache: {ttl: 3600, temperature: any}
    router: {candidates: [small, large], quality: {small: 0.7, large: 0.9}, lambda: 0.001}
"""


async def answer(request: Request) -> Response:
    await asyncio.sleep(SERVICE)
    return Response("Hello.", request.model, "toy", usage=Usage(12, 3), finish_reason="stop")


def question(number: int) -> str:
    """Every third is asked again."""
    return f"Question {number if number % 3 else number // 30}: what makes the tide come in and go out twice a day?"


async def load(ask: Callable[[int], Awaitable[object]], seconds: float) -> list[float]:
    """Latencies in milliseconds from the moment that was planned, of all requests of so many seconds."""
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.05
    latencies: list[float] = []

    async def one(number: int, due: float) -> None:
        await ask(number)
        latencies.append((loop.time() - due) * 1e3)

    tasks = []
    for place in range(int(seconds * RATE)):
        due = begin + place / RATE
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(one(place, due)))
    await asyncio.gather(*tasks)
    return latencies


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure(seconds: float, rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    provider = ScriptedProvider(answer, name="toy")
    (folder / "models.yml").write_text(MODELS_YML)
    registry = ModelRegistry.load(environ={}, cwd=folder, home=folder)
    registry.register_provider("toy", lambda settings: provider)
    offset = 0

    async def bare(number: int) -> object:
        return await provider.execute(Request("m", (Message("user", question(offset + number)),)))

    async def stack(number: int) -> object:
        builder = LLMClientBuilder(lambda: registry, Call(model="auto"))
        return await builder.prompt(question(offset + number)).execute_full()

    found: dict[str, dict[str, list[float]]] = {name: {"p50": [], "p99": [], "cpu": []} for name in ("bare", "stack")}
    for turn in range(rounds + 1):
        for name, ask in (("bare", bare), ("stack", stack)):
            provider.requests.clear()
            used = time.process_time()
            latencies = await load(ask, seconds)
            used = time.process_time() - used
            if turn:  # the first is to warm up
                found[name]["p50"].append(percentile(latencies, 0.5))
                found[name]["p99"].append(percentile(latencies, 0.99))
                found[name]["cpu"].append(used / len(latencies) * 1e6)
        offset += int(seconds * RATE)
        note(f"stack_overhead: round {turn} of {rounds}")
    await registry.aclose()
    return found


def report(found: dict[str, dict[str, list[float]]]) -> Report:
    made = Report(
        "stack_overhead",
        "The whole stack",
        "Cache, budget, router, and the guards of the model that is asked, at 1,000 requests a second on one core.",
    )
    rows = [
        [title, *(number(median(found[name][what])) for what in ("p50", "p99", "cpu"))]
        for name, title in (("bare", "the model alone"), ("stack", "through the whole stack"))
    ]
    made.table("A call", ["", "p50, ms", "p99, ms", "CPU, µs"], rows, "A third of the questions was asked before.")
    added = [ours - theirs for ours, theirs in zip(found["stack"]["p99"], found["bare"]["p99"], strict=True)]
    made.promise("whole stack: added to the 99th percentile", limit=LIMIT, measured=median(added), unit="ms")
    made.raw |= dict(found)
    return made


def main() -> None:
    arguments = options(__doc__).parse_args()
    with suppress(AttributeError, OSError):  # one core, where the system can be told
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    seconds, rounds = (0.2, 1) if arguments.tiny else (SECONDS, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(seconds, rounds, Path(folder)))
    report(found).finish(arguments.output)


if __name__ == "__main__":
    main()
