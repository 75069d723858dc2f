"""What micro-batching gains and costs: against a server whose service time is known, by a clock that jumps.

    python benchmarks/batching.py [--tiny] [--output FOLDER]

The server takes 20 ms a batch and 1 ms for each request in it, one batch at a time (a local model on one device), and
without batching each request is a batch. Requests arrive at random (Poisson), whether or not others are answered; the
clock is virtual, so the times are exact and belong to no machine. The last table is real time: what the batcher itself
costs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from agentflow.clock import VirtualClock
from agentflow.errors import BadRequestError
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.messages import Message, Request, Response, StreamChunk
from agentflow.mcp.performance.batching import RequestBatcher
from results import Report, median, note, number, options

BASE, EACH = 0.020, 0.001  # seconds
MAX_SIZE = 32


@dataclass(frozen=True, slots=True)
class Plan:
    requests: int = 4_000
    rates: tuple[int, ...] = (5, 20, 40, 100, 400, 600)
    calls: int = 5_000
    rounds: int = 5


TINY = Plan(requests=60, rates=(20, 400), calls=100, rounds=1)


class Server:
    """`bad` prompts spoil their batch."""

    name = "server"

    def __init__(self, clock: VirtualClock, base: float = BASE, each: float = EACH) -> None:
        self._clock = clock
        self._base = base
        self._each = each
        self._device = asyncio.Lock()
        self.sizes: list[int] = []

    async def execute(self, request: Request) -> Response:
        [answer] = await self.execute_many([request])
        return answer

    async def execute_many(self, requests: Sequence[Request]) -> Sequence[Response]:
        async with self._device:
            self.sizes.append(len(requests))
            await self._clock.sleep(self._base + self._each * len(requests))
        if any(request.prompt == "bad" for request in requests):
            raise BadRequestError("no", status=400)
        return [Response(request.prompt, request.model, self.name) for request in requests]

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        raise NotImplementedError
        yield StreamChunk()

    async def aclose(self) -> None: ...


def request(text: str) -> Request:
    return Request("m", (Message("user", text),))


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


# ---- at a rate ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from the intended arrival to the answer, requests a second until the last answer, batch sizes."""

    latencies: list[float]
    throughput: float
    sizes: list[int]


def at_rate(plan: Plan, rate: float, *, batched: bool) -> Run:
    clock = VirtualClock()
    chance = random.Random(rate)
    latencies: list[float] = []

    async def main() -> list[int]:
        server = Server(clock)
        model = RequestBatcher(server, max_size=MAX_SIZE, in_flight=1, clock=clock) if batched else server

        async def one() -> None:
            begun = clock.monotonic()
            await model.execute(request("hi"))
            latencies.append(clock.monotonic() - begun)

        asked = []
        for _ in range(plan.requests):
            await clock.sleep(chance.expovariate(rate))
            asked.append(asyncio.ensure_future(one()))
        await asyncio.gather(*asked)
        return server.sizes

    sizes = clock.run(main())
    return Run(latencies, plan.requests / clock.monotonic(), sizes)


def measure_rates(made: Report, plan: Plan) -> None:
    rows, calm = [], 0.0
    throughputs: dict[tuple[int, bool], float] = {}
    for rate in plan.rates:
        for batched in (False, True):
            run = at_rate(plan, rate, batched=batched)
            throughputs[rate, batched] = run.throughput
            if batched and rate == plan.rates[0]:
                calm = percentile(run.latencies, 0.5) * 1e3
            times = [number(percentile(run.latencies, share) * 1e3) for share in (0.5, 0.99)]
            size = sum(run.sizes) / len(run.sizes)
            rows.append([str(rate), "yes" if batched else "no", number(run.throughput), *times, f"{size:.1f}"])
    made.table(
        "At so many requests a second",
        ["asked a second", "batched", "answered a second", "p50, ms", "p99, ms", "requests a batch"],
        rows,
        f"A batch of n takes {BASE * 1e3:g} + n·{EACH * 1e3:g} ms, so without batches the server can answer "
        f"{1 / (BASE + EACH):.0f} a second, and with batches of {MAX_SIZE} {MAX_SIZE / (BASE + MAX_SIZE * EACH):.0f}.",
    )
    last = plan.rates[-1]
    gain = throughputs[last, True] / throughputs[last, False]
    ideal = MAX_SIZE * (BASE + EACH) / (BASE + MAX_SIZE * EACH)
    made.promise("more answers at the highest rate", limit=0.85 * ideal, measured=gain, unit="×", at_least=True)
    made.promise("the median latency at the lowest rate", limit=1.2 * (BASE + EACH) * 1e3, measured=calm, unit="ms")


# ---- fairness, and a bad request ---------------------------------------------------------------------------------


def jain(values: Sequence[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


def served(plan: Plan, greed: int) -> dict[str, int]:
    """Three tenants, of whom one asks `greed` times as much: what each had got when the first was served in full."""
    clock = VirtualClock()
    counts: Counter[str] = Counter()
    wanted = {"greedy": 40 * greed, "ann": 40, "bob": 40}

    async def main() -> None:
        model = RequestBatcher(Server(clock), max_size=8, in_flight=1, clock=clock)
        over = asyncio.Event()

        async def one(tenant: str) -> None:
            with asking_as(Caller(tenant=tenant)):
                await model.execute(request("hi"))
            if not over.is_set():
                counts[tenant] += 1
            if counts[tenant] >= 40:
                over.set()

        asked = [asyncio.ensure_future(one(tenant)) for tenant, count in wanted.items() for _ in range(count)]
        await over.wait()
        for each in asked:
            each.cancel()
        await asyncio.wait(asked)

    clock.run(main())
    return dict(counts)


def calls_for(size: int, bad: int) -> int:
    """How many calls it takes until a batch of that size is answered, of which so many are bad."""
    clock = VirtualClock()
    spoiled = set(random.Random(size).sample(range(size), bad))

    async def main() -> int:
        server = Server(clock)
        model = RequestBatcher(server, max_size=size, clock=clock)
        asked = [model.execute(request("bad" if number in spoiled else "hi")) for number in range(size)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {at for at, answer in enumerate(answers) if isinstance(answer, Exception)} == spoiled
        return len(server.sizes)

    return clock.run(main())


def measure_edges(made: Report, plan: Plan) -> None:
    rows, worst = [], 1.0
    for greed in (1, 10, 100):
        counts = served(plan, greed)
        index = jain(list(counts.values()))
        worst = min(worst, index)
        rows.append([f"{greed} ×", *(str(counts[name]) for name in ("greedy", "ann", "bob")), f"{index:.4f}"])
    made.table(
        "Three tenants, of whom one asks for more than the others",
        ["the greedy one asks", "greedy got", "ann got", "bob got", "Jain's index"],
        rows,
        "When the first had 40 answers. First come, first served would have given the greedy one all of them.",
    )
    made.promise("Jain's index of three tenants", limit=0.98, measured=worst, unit="", at_least=True)
    searches = [[str(size), *(str(calls_for(size, bad)) for bad in (0, 1, 2, 4))] for size in (8, 32, 128)]
    made.table(
        "Calls until a batch is answered, of which some are bad",
        ["requests in the batch", "none bad", "1", "2", "4"],
        searches,
        "With one bad request among n: at most 1 + 2·log2 n.",
    )


# ---- what it costs -----------------------------------------------------------------------------------------------


async def cpu_of(plan: Plan, at_once: int, *, batched: bool) -> float:
    """Microseconds of CPU a call, by a server that answers at once."""
    server = Server(VirtualClock(), 0.0, 0.0)
    server._clock = _Now()  # type: ignore[assignment]
    model = RequestBatcher(server, max_size=MAX_SIZE) if batched else server
    asked = request("hi")

    async def some(count: int) -> None:
        for _ in range(count):
            await model.execute(asked)

    used = time.process_time()
    await asyncio.gather(*[some(plan.calls // at_once) for _ in range(at_once)])
    return (time.process_time() - used) / (plan.calls // at_once * at_once) * 1e6


class _Now:
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def measure_cost(made: Report, plan: Plan) -> None:
    rows, added = [], 0.0
    for at_once in (1, 64):
        bare, ours = (
            [asyncio.run(cpu_of(plan, min(at_once, plan.calls), batched=batched)) for _ in range(plan.rounds)]
            for batched in (False, True)
        )
        added = max(added, median(ours) - median(bare))
        rows.append([str(at_once), number(median(bare)), number(median(ours))])
        made.raw[f"cpu-{at_once}"] = {"bare": bare, "batched": ours}
    made.table("What it costs", ["calls at once", "without, µs of CPU a call", "batched, µs of CPU a call"], rows)
    made.promise("batching adds to a call", limit=150, measured=added, unit="µs of CPU")


def main() -> None:
    arguments = options(__doc__).parse_args()
    plan = TINY if arguments.tiny else Plan()
    made = Report("batching", "Micro-batching", "What is gained where a server takes many requests at once.")
    begun = time.perf_counter()
    measure_rates(made, plan)
    measure_edges(made, plan)
    measure_cost(made, plan)
    made.finish(arguments.output)
    note(f"batching: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
