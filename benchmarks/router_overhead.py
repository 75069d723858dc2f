"""What a router's choice costs: the decision alone, what a call through it adds, and LiteLLM's Router in the same run.

    python benchmarks/router_overhead.py              makes .venvs/llm-litellm with pip, then measures
    python benchmarks/router_overhead.py --alone      without it

Models answer at once and from memory, so that nothing but the routing is measured. LiteLLM's Router knows neither
filters by ability nor a policy: beside each decision stands what it decides by.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from agentflow.llm.config.prices import Price, Rates
from agentflow.llm.messages import Message, Request, Response, StreamChunk, Usage
from agentflow.mcp.optimization.router import Accept, Candidate, Cascade, Exploration, ModelRouter, Rule
from llm_overhead import environment, version
from results import Report, median, note, number, options

HERE = Path(__file__).resolve().parent
PROMPT = "Why is the sky blue? " * 10
LONG = "The quick brown fox jumps over the lazy dog, and then some. " * 1000
REGEX = "the same with the three rules, one of them a regular expression"
BLOCKS = 9
CALLS = 4_000
TINY_CALLS = 20


class Instant:
    """A model that answers at once."""

    name = "instant"
    schemas = True

    def __init__(self) -> None:
        self._answer = Response("ok", "m", "instant", Usage(60, 1), finish_reason="stop", cost=1e-6)

    async def execute(self, request: Request) -> Response:
        return self._answer

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        yield StreamChunk("ok", finish_reason="stop", usage=self._answer.usage, cost=1e-6)

    async def aclose(self) -> None: ...


def models(count: int) -> dict[str, Candidate]:
    return {
        f"m{place}": Candidate(
            Instant(),
            price=Price.flat(Rates.stated(0.1 * (place + 1), 0.4 * (place + 1))),
            capabilities=["tools", "schema", "image"],
            context=128_000,
            regions=("eu",),
            quality=0.5 + 0.05 * place,
        )
        for place in range(count)
    }


def routers() -> Mapping[str, tuple[ModelRouter, str]]:
    """What is measured, by name, and the prompt it is asked."""
    rng = random.Random(0)
    rules = [Rule("m1", tenant="acme"), Rule("m1", text=r"(?i)\b(contract|lawsuit)\b"), Rule("m0", shorter=5)]
    return {
        "filters and the cheapest, 2 models": (ModelRouter(models(2)), PROMPT),
        "filters and the cheapest, 8 models": (ModelRouter(models(8)), PROMPT),
        "stated qualities and λ, 2 models": (ModelRouter(models(2), value=0.001), PROMPT),
        "three rules, residency, λ, 8 models": (
            ModelRouter(models(8), value=0.001, rules=rules, residency=["eu"]), PROMPT,
        ),
        "residency, λ, 8 models, a prompt of 60,000 characters": (
            ModelRouter(models(8), value=0.001, residency=["eu"]), LONG,
        ),
        REGEX: (ModelRouter(models(8), value=0.001, rules=rules, residency=["eu"]), LONG),
        "exploration, 3 models": (ModelRouter(models(3), value=0.001, exploration=Exploration(), rng=rng), PROMPT),
        "exploration, 8 models": (ModelRouter(models(8), value=0.001, exploration=Exploration(), rng=rng), PROMPT),
    }  # fmt: skip


def learned() -> ModelRouter | None:
    """One with a learned policy, where the extra `learn` is installed."""
    try:
        from agentflow.mcp.optimization.router.learning.table import OutcomeTable
        from agentflow.mcp.optimization.router.learning.training import train
    except ModuleNotFoundError:
        return None
    rng = random.Random(1)
    hard = [rng.random() < 0.5 for _ in range(300)]
    texts = [f"{'Prove the theorem' if each else 'Say hello'}, number {place}" for place, each in enumerate(hard)]
    quality = {
        "m0": [float(rng.random() < (0.1 if each else 0.95)) for each in hard],
        "m1": [float(rng.random() < 0.95) for _ in hard],
    }
    table = OutcomeTable.of(texts, quality, cost={"m0": [0.0001] * 300, "m1": [0.01] * 300})
    return ModelRouter(models(2), policy=train(table), value=0.1)


def request(prompt: str) -> Request:
    return Request("auto", (Message("system", "Be brief."), Message("user", prompt)), max_tokens=500)


async def cpu(work: Callable[[], Awaitable[object]], calls: int) -> list[float]:
    """µs of CPU a call, in several blocks, after a few that warm up."""
    for _ in range(min(calls, 50)):
        await work()
    found = []
    size = calls // BLOCKS + 1
    for _ in range(BLOCKS):
        begun = time.process_time()
        for _ in range(size):
            await work()
        found.append((time.process_time() - begun) / size * 1e6)
    return found


async def decisions(calls: int, *, learn: bool) -> dict[str, list[float]]:
    found, known = {}, dict(routers())
    by_policy = learned() if learn else None
    if by_policy is not None:
        known["a learned policy, 2 models"] = by_policy, PROMPT
        known["a learned policy, 2 models, 60,000 characters"] = by_policy, LONG
    for name, (router, prompt) in known.items():
        asked = request(prompt)

        async def decide(router: ModelRouter = router, asked: Request = asked) -> object:
            return router.explain(asked)

        found[name] = await cpu(decide, calls)
        note(f"router_overhead: {name}: {median(found[name]):.0f} µs")
    return found


async def calls_through(calls: int) -> dict[str, list[float]]:
    """Whole calls: the model alone, through a router, through a cascade whose first stage will do; and streams."""
    alone, asked = Instant(), request(PROMPT)
    router = ModelRouter(models(2), value=0.001)
    cascade = ModelRouter(models(2), cascade=Cascade(accept=Accept(check=lambda request, response: True)))

    async def drained(source: AsyncIterator[StreamChunk]) -> None:
        async for _ in source:
            pass

    work: Mapping[str, Callable[[], Awaitable[object]]] = {
        "the model alone": lambda: alone.execute(asked),
        "through the router": lambda: router.execute(asked),
        "through a cascade of two": lambda: cascade.execute(asked),
        "a stream of the model alone": lambda: drained(alone.execute_streaming(asked)),
        "a stream through the router": lambda: drained(router.execute_streaming(asked)),
    }
    return {name: await cpu(each, calls) for name, each in work.items()}


def litellm(calls: int) -> tuple[str, dict[str, float]]:
    python = environment("litellm")
    done = subprocess.run(
        [str(python), str(HERE / "router_litellm.py"), str(calls)], capture_output=True, text=True, check=True
    )
    return version(python, "litellm"), json.loads(done.stdout.splitlines()[-1])


def report(
    decided: Mapping[str, list[float]],
    called: Mapping[str, list[float]],
    other: tuple[str, dict[str, float]] | None,
) -> Report:
    made = Report("router_overhead", "Routing", "What it costs to choose a model, µs of CPU of the caller's process.")
    rows = [[f"AgentFlow: {name}", number(median(times))] for name, times in decided.items()]
    whole = [[f"AgentFlow: {name}", number(median(times))] for name, times in called.items()]
    added = median(called["through the router"]) - median(called["the model alone"])
    theirs = None
    if other is not None:
        release, measured = other
        for name, value in measured.items():
            strategy, _, rest = name.partition("/")
            count, _, what = rest.partition("/")
            if what == "decide":
                rows.append([f"LiteLLM {release}: {strategy}, {count} models", number(value)])
            elif what == "whole":
                whole.append([f"LiteLLM {release}: through its Router, {strategy}, {count} models", number(value)])
            else:
                whole.append([f"LiteLLM {release}: `acompletion` alone, answer made up", number(value)])
        theirs = measured["simple-shuffle/2/whole"] - measured["bare"]
    made.table("One decision", ["decided by", "µs"], rows)
    made.table("One call", ["", "µs"], whole, "The answers come from memory: the difference is what routing adds.")
    beside = "" if theirs is None else f"LiteLLM's Router adds {number(theirs)} µs"
    slowest = max(median(times) for name, times in decided.items() if name != REGEX)
    made.promise(
        "router: the slowest decision, regular expressions over long prompts aside",
        limit=1_000,
        measured=slowest,
        unit="µs",
        beside=f"with one over 60,000 characters: {number(median(decided[REGEX]))}",
    )
    made.promise("router: added to a call", limit=1_000, measured=added, unit="µs", beside=beside)
    made.raw |= {"decided": dict(decided), "called": dict(called), "litellm": None if other is None else other[1]}
    return made


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--alone", action="store_true", help="without LiteLLM, which needs an environment of its own")
    arguments = parser.parse_args()
    calls = TINY_CALLS if arguments.tiny else CALLS
    decided = asyncio.run(decisions(calls, learn=not arguments.tiny))
    called = asyncio.run(calls_through(calls))
    other = None if arguments.alone else litellm(calls // 4)
    report(decided, called, other).finish(arguments.output)


if __name__ == "__main__":
    main()
