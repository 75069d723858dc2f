"""What a hit of the response cache costs: in memory, from SQLite, through the client; next to LiteLLM's in one run.

    python benchmarks/cache_overhead.py        LiteLLM from .venvs/litellm (scripts/install-services), if it is there

CPU time of the process that asks (`time.process_time`), medians of rounds in which the candidates take turns. The
answers are short; the questions have one turn of 40 words, three or ten. No model is asked while anything is measured.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import EmbeddingRequest, Message, Request, Response
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.performance.caching import ResponseCache, SqliteStore
from processes import ask, heard, started
from results import ROOT, Report, median, note, number, options

HERE = Path(__file__).resolve().parent
LITELLM = ROOT / ".venvs" / "litellm" / "bin" / "python"
ANSWER = "A short answer, as short answers are."
SHORT, MIDDLE, LONG = 1, 3, 10  # turns
SIZES = {SHORT: "one turn", MIDDLE: "three turns", LONG: "ten turns"}
YML = "models: {m: {provider: lab, temperature: 0, cache: {ttl: 3600}}}"


def request(turns: int) -> Request:
    roles = ("user", "assistant")
    return Request("gpt-4o", tuple([Message(roles[turn % 2], "word " * 40) for turn in range(turns)]), temperature=0.0)


def model() -> ScriptedProvider:
    return ScriptedProvider(lambda _: Response(ANSWER, "gpt-4o", "lab", finish_reason="stop", cost=0.001), name="lab")


async def timed(calls: int, work: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of CPU a call."""
    began = time.process_time()
    for _ in range(calls):
        await work()
    return (time.process_time() - began) / calls * 1e6


# ---- ours ----------------------------------------------------------------------------------------------------


class Ours:
    """The caches, filled, and what is timed of them, by name."""

    def __init__(self, folder: Path) -> None:
        self.memory = ResponseCache(model(), ttl=3600)
        self.file = ResponseCache(model(), ttl=3600, memory_bytes=0, store=SqliteStore(folder / "cache.db"))
        registry = ModelRegistry.load(environ={}, cwd=folder, home=folder)
        registry.register_provider("lab", lambda _: model())
        self.client = LLMClientBuilder(lambda: registry, Call(model="m")).prompt("word " * 40)

    async def fill(self) -> None:
        for cache in (self.memory, self.file):
            for turns in SIZES:
                await cache.execute(request(turns))
            await cache.embed(EmbeddingRequest("e", ("word",)))
        await self.client.execute_full()
        await asyncio.sleep(0.2)  # all is in the file

    def works(self) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
        one = request(SHORT)
        for place, cache in (("memory", self.memory), ("SQLite", self.file)):
            for turns, size in SIZES.items():
                yield f"{place}, {size}", partial(hit, cache, request(turns))
            yield f"{place}, as a stream", partial(streamed, cache, one)
        yield "memory, a vector", lambda: self.memory.embed(EmbeddingRequest("e", ("word",)))
        yield "memory, through the client", self._through

    async def _through(self) -> None:
        assert (await self.client.execute_full()).cache_hit == "exact"


async def hit(cache: ResponseCache, asked: Request) -> None:
    assert (await cache.execute(asked)).cache_hit == "exact"


async def streamed(cache: ResponseCache, asked: Request) -> None:
    async for _ in cache.execute_streaming(asked):
        pass


async def stampede(count: int) -> tuple[float, int]:
    """So many identical questions at once: microseconds of CPU each, and how often the model was asked."""
    asked, calls = request(SHORT), 0

    async def slow(_: Request) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.05)
        return ANSWER

    cache = ResponseCache(ScriptedProvider(slow), ttl=3600)
    began = time.process_time()
    await asyncio.gather(*[cache.execute(asked) for _ in range(count)])
    return (time.process_time() - began) / count * 1e6, calls


async def measure(rounds: int, calls: int, many: int, folder: Path) -> dict[str, list[float]]:
    (folder / "models.yml").write_text(YML)
    ours = Ours(folder)
    await ours.fill()
    results: dict[str, list[float]] = {}
    for turn in range(-1, rounds):
        for name, work in ours.works():
            took = await timed(calls, work)
            if turn >= 0:
                results.setdefault(name, []).append(took)
        took, asked = await stampede(many)
        if turn >= 0:
            results.setdefault("a thousand at once", []).append(took)
            results.setdefault("asked", []).append(asked)
    await ours.file.aclose()
    return results


# ---- LiteLLM's -----------------------------------------------------------------------------------------------


def litellm(rounds: int, calls: int, folder: Path) -> dict[str, Any]:
    """Its hits, by kind and turns; empty where it is not there, an error where it says one."""
    if not LITELLM.exists():
        note("cache_overhead: LiteLLM is not in .venvs/litellm: run scripts/install-services")
        return {}
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        child = stack.enter_context(started(str(LITELLM), str(HERE / "cache_litellm.py")))
        heard(child)
        for turn in range(rounds):
            for kind in ("memory", "disk"):
                for turns in (SHORT, MIDDLE):
                    place = str(folder / f"litellm-{turn}-{turns}")
                    said = ask(child, calls=calls, turns=turns, kind=kind, folder=place)
                    for what in ("call", "cache"):
                        if said.get(what) is not None:
                            found.setdefault(f"{kind}/{turns}/{what}", []).append(said[what])
                    if "error" in said:
                        found.setdefault("errors", {})[kind] = said["error"]
    return found


# ---- the report ----------------------------------------------------------------------------------------------


def report(ours: dict[str, list[float]], theirs: dict[str, Any]) -> Report:
    made = Report(
        "cache_overhead",
        "Response cache",
        "What a hit costs the process that asks. LiteLLM's rows are a hit through `litellm.acompletion` and of its "
        "cache alone (`Cache.async_get_cache`), on the same questions; its disk cache is the package `diskcache`.",
    )
    rows = [[f"AgentFlow: {name}", number(median(values))] for name, values in ours.items() if name != "asked"]
    names = {"call": "through `acompletion`", "cache": "its cache alone"}
    for key, values in theirs.items():
        if key != "errors":
            kind, turns, what = key.split("/")
            rows.append([f"LiteLLM: {kind}, {SIZES[int(turns)]}, {names[what]}", number(median(values))])
    for kind, error in theirs.get("errors", {}).items():
        rows.append([f"LiteLLM: {kind}: {error}", "–"])
    made.table("A hit", ["what", "µs of CPU"], rows)

    def beside(kind: str, what: str) -> str:
        found = theirs.get(f"{kind}/{MIDDLE}/{what}")
        return f"three turns: LiteLLM's cache alone {number(median(found))}" if found else ""

    made.promise(
        "a hit in memory, ten turns", limit=50, measured=median(ours["memory, ten turns"]), unit="µs",
        beside=beside("memory", "cache"),
    )  # fmt: skip
    made.promise(
        "a hit from SQLite, ten turns", limit=300, measured=median(ours["SQLite, ten turns"]), unit="µs",
        beside=beside("disk", "cache"),
    )  # fmt: skip
    made.promise(
        "calls that 1,000 identical questions at once make", limit=1, measured=max(ours["asked"]), unit="calls"
    )
    made.raw = {"ours": ours, "litellm": theirs}
    return made


def main() -> None:
    arguments = options(__doc__).parse_args()
    rounds, calls, many = (1, 20, 50) if arguments.tiny else (7, 2000, 1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = asyncio.run(measure(rounds, calls, many, folder))
        theirs = {} if arguments.tiny else litellm(3, 300, folder)
    report(ours, theirs).finish(arguments.output)


if __name__ == "__main__":
    main()
