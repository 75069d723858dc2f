"""What a budget costs a call, how much it reserves too much, and that it is never exceeded.

    python benchmarks/budget.py [--tiny] [--output FOLDER]

The model answers at once, so that all there is to measure is the budget. What calls cost is drawn: prompts and answers
of lognormal lengths, four bytes a token. Valkey is measured where there is a server program.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentflow.core.accounts import NANO, Accounts
from agentflow.errors import BudgetExceededError, ServerError
from agentflow.integrations.valkey import ValkeyStore
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.config.prices import Price, Rates
from agentflow.llm.messages import Message, Request, Response, StreamChunk, Usage
from agentflow.mcp.optimization.budget import Allowance, Budget, BudgetedProvider, MemoryAccounts, SqliteAccounts
from agentflow.mcp.optimization.budget.money import charged
from results import Report, median, note, number, options

PRICE = Price.flat(Rates.stated(2.5, 10.0, cached=1.25))  # dollars a million, as a large model has them
MAX_TOKENS = 1_024


@dataclass(frozen=True, slots=True)
class Plan:
    calls: int = 1_000
    rounds: int = 3
    workload: int = 10_000
    racers: int = 256
    processes: int = 4
    each: int = 600


TINY = Plan(calls=50, rounds=1, workload=200, racers=20, processes=2, each=40)


class Model:
    """Answers at once, and costs what the list says, call by call; None fails in a way that may have been billed."""

    name = "model"

    def __init__(self, usages: Iterator[Usage | None]) -> None:
        self._usages = usages
        self.costs: list[int] = []

    async def execute(self, request: Request) -> Response:
        usage = next(self._usages)
        await asyncio.sleep(0)
        if usage is None:
            raise ServerError("down", status=500)
        cost = PRICE.cost(usage)
        assert cost is not None
        self.costs.append(charged(cost))
        return Response("", "m", self.name, usage=usage, cost=cost)

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        raise NotImplementedError
        yield StreamChunk()

    async def aclose(self) -> None: ...


def same() -> Iterator[Usage]:
    while True:
        yield Usage(200, 300)


def request(size: int) -> Request:
    return Request("m", (Message("user", "x" * size),), max_tokens=MAX_TOKENS)


def budget_on(accounts: Accounts, limit: float = 1e6) -> Budget:
    return Budget(per_day=limit, per_run=limit, per_tenant=Allowance(per_day=limit), store=accounts)


# ---- what it costs -----------------------------------------------------------------------------------------------


async def overhead(accounts: Accounts | None, plan: Plan, at_once: int) -> tuple[float, float, list[float]]:
    """Microseconds a call, of the clock and of this process's CPU, and the latencies of single calls."""
    inner = Model(same())
    model = inner if accounts is None else BudgetedProvider(inner, budget_on(accounts), price=PRICE)
    asked, latencies = request(800), []

    async def some(count: int) -> None:
        for _ in range(count):
            begun = time.perf_counter()
            await model.execute(asked)
            latencies.append((time.perf_counter() - begun) * 1e6)

    with asking_as(Caller(tenant="acme", flow="f", run_id="r")):
        await some(20)
        latencies.clear()
        begun, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*[some(plan.calls // at_once) for _ in range(at_once)])
        seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    if accounts is not None:
        await accounts.aclose()
    calls = plan.calls // at_once * at_once
    return seconds / calls * 1e6, cpu / calls * 1e6, latencies


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


Open = Callable[[], Awaitable[Accounts | None]]


def measure_overhead(made: Report, stores: dict[str, Callable[[], Accounts | None]], plan: Plan) -> None:
    rows = []
    times: dict[tuple[str, int], list[float]] = {}
    for at_once in (1, 64):
        for name, make in stores.items():
            walls, cpus, singles = [], [], []
            for _ in range(plan.rounds):
                wall, cpu, latencies = asyncio.run(overhead(make(), plan, min(at_once, plan.calls)))
                walls.append(wall)
                cpus.append(cpu)
                singles += latencies
            times[name, at_once] = cpus
            made.raw[f"{name}-{at_once}"] = {"wall": walls, "cpu": cpus}
            p99 = number(percentile(singles, 0.99)) if at_once == 1 else "–"
            rows.append([name, str(at_once), number(median(walls)), number(median(cpus)), p99])
    made.table(
        "A call within a budget of three accounts",
        ["accounts in", "calls at once", "µs a call", "of CPU", "p99 of one, µs"],
        rows,
        "A day's, a run's and a tenant's account; the model answers at once. The first lines are the model alone.",
    )
    added = median(times["memory", 1]) - median(times["no budget", 1])
    made.promise("a budget in memory adds to a call", limit=150, measured=added, unit="µs of CPU")


# ---- how much is reserved too much -------------------------------------------------------------------------------


def workload(plan: Plan) -> list[tuple[int, Usage | None]]:
    """The length of the prompt in bytes, and what the call uses: None where nobody knows (one in 200)."""
    chance = random.Random(7)
    calls: list[tuple[int, Usage | None]] = []
    for _ in range(plan.workload):
        prompt = max(1, int(chance.lognormvariate(5.5, 1.2)))
        answer = min(MAX_TOKENS, max(1, int(chance.lognormvariate(5.0, 0.9))))
        calls.append((prompt * 4, None if chance.random() < 0.005 else Usage(prompt + 8, answer)))
    return calls


async def settle_errors(plan: Plan) -> tuple[list[tuple[float, float]], int, int]:
    """What each call reserved and cost; what the account says it has spent, and what the calls have cost together."""
    calls = workload(plan)
    inner = Model(iter([usage for _, usage in calls]))
    budget = budget_on(MemoryAccounts())
    model = BudgetedProvider(inner, budget, price=PRICE)
    pairs = []
    with asking_as(Caller(tenant="acme", run_id="r")):
        for size, usage in calls:
            asked = request(size)
            try:
                await model.execute(asked)
            except ServerError:
                continue
            pairs.append((model._costs.most(asked) / NANO, inner.costs[-1] / NANO))
            assert usage is not None
    held = sum(each.amount for each in await budget.held())
    account = next(each for each in await budget.status() if each.account == "budget/day")
    assert round(account.reserved * NANO) == held
    return pairs, round(account.spent * NANO), sum(inner.costs)


def measure_errors(made: Report, plan: Plan) -> None:
    pairs, spent, costs = asyncio.run(settle_errors(plan))
    errors = [reserved - cost for reserved, cost in pairs]
    ratios = [reserved / cost for reserved, cost in pairs]
    rows = [
        [what, *(number(percentile(values, share) * factor) for share in (0.5, 0.9, 0.99, 1.0))]
        for what, values, factor in (
            ("cost, $/1,000 calls", [cost for _, cost in pairs], 1_000),
            ("reserved, $/1,000 calls", [reserved for reserved, _ in pairs], 1_000),
            ("settle error (reserved − cost), $/1,000 calls", errors, 1_000),
            ("reserved ÷ cost", ratios, 1),
        )
    ]
    made.table(
        f"What {len(pairs):,} calls reserved, and what they cost",
        ["of a call", "p50", "p90", "p99", "most"],
        rows,
        f"max_tokens is {MAX_TOKENS:,}; most answers are shorter, and a prompt has fewer tokens than bytes.",
    )
    made.promise("a cost above its bound", limit=0, measured=sum(error < 0 for error in errors), unit="calls")
    made.promise(
        "the account less the sum of all costs", limit=0, measured=abs(spent - costs), unit="× 1e-9 US dollars"
    )
    made.raw["errors"] = {"p99": percentile(errors, 0.99), "spent": spent, "costs": costs}


# ---- never exceeded ----------------------------------------------------------------------------------------------


async def race(accounts: Accounts, plan: Plan, calls: int) -> tuple[int, int, float]:
    """Everybody at once, for a tenth of what they want: granted, refused, and the most that was ever taken of it."""
    usages = iter([Usage(200, 10 * number % MAX_TOKENS) for number in range(calls)])
    limit = calls * 0.02 / 10
    budget = Budget(per_day=limit, store=accounts, account="race")
    model = BudgetedProvider(Model(usages), budget, price=PRICE)
    granted = refused = 0
    most = 0.0

    async def one() -> None:
        nonlocal granted, refused, most
        for _ in range(calls // plan.racers):
            try:
                await model.execute(request(800))
                granted += 1
            except BudgetExceededError as error:
                refused += 1
                most = max(most, (error.spent + error.reserved) / limit)

    await asyncio.gather(*[one() for _ in range(plan.racers)])
    [account] = await budget.status()
    await accounts.aclose()
    return granted, refused, max(most, (account.spent + account.reserved) / limit)


def child(place: str, count: int, limit: float) -> None:
    """A process of the race, started as `budget.py child STORE COUNT LIMIT`: prints what it has spent and seen."""
    usages = iter([Usage(100, number % 900) for number in range(count)])

    async def main() -> dict[str, object]:
        url, _, key = place.partition("#")
        store = ValkeyStore(url, timeout=5.0) if key else None
        accounts: Accounts = SqliteAccounts(place, patience=60.0) if store is None else store.accounts(key)
        budget = Budget(per_day=limit, store=accounts, account="race")
        inner = Model(usages)
        model = BudgetedProvider(inner, budget, price=PRICE)
        most = 0.0

        async def some(calls: int) -> None:
            nonlocal most
            for _ in range(calls):
                try:
                    await model.execute(request(400))
                except BudgetExceededError as error:
                    most = max(most, (error.spent + error.reserved) / limit)

        await asyncio.gather(*[some(count // 8) for _ in range(8)])
        await budget.aclose()
        if store is not None:
            await store.aclose()
        return {"spent": sum(inner.costs), "calls": len(inner.costs), "most": most}

    print(json.dumps(asyncio.run(main())))


async def spent_in(place: str, limit: float) -> float:
    url, _, key = place.partition("#")
    store = ValkeyStore(url, timeout=5.0) if key else None
    accounts: Accounts = SqliteAccounts(place) if store is None else store.accounts(key)
    [account] = await Budget(per_day=limit, store=accounts, account="race").status()
    await accounts.aclose()
    if store is not None:
        await store.aclose()
    return account.spent


def race_of_processes(place: str, plan: Plan) -> tuple[int, float, int, float]:
    limit = plan.processes * plan.each * 0.002
    command = [sys.executable, __file__, "child", place, str(plan.each), repr(limit)]
    begun = time.perf_counter()
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(plan.processes)]
    ended = [json.loads(process.communicate()[0]) for process in started]
    seconds = time.perf_counter() - begun
    spent = sum(each["spent"] for each in ended)
    kept = round(asyncio.run(spent_in(place, limit)) * NANO)
    return sum(each["calls"] for each in ended), max(each["most"] for each in ended), abs(kept - spent), seconds


def measure_races(made: Report, folder: Path, url: str | None, plan: Plan) -> None:
    rows, worst, lost = [], 0.0, 0
    for name, accounts in (("memory", MemoryAccounts()), ("SQLite", SqliteAccounts(folder / "race.db"))):
        granted, refused, most = asyncio.run(race(accounts, plan, plan.racers * 10))
        worst = max(worst, most)
        rows.append([f"{name}, {plan.racers} tasks", f"{granted:,}", f"{refused:,}", f"{most:.6f}", "–"])
    places = {"SQLite": str(folder / "processes.db"), **({} if url is None else {"Valkey": f"{url}#race"})}
    for name, place in places.items():
        granted, most, gap, _ = race_of_processes(place, plan)
        worst, lost = max(worst, most), max(lost, gap)
        refused = plan.processes * (plan.each // 8 * 8) - granted
        rows.append([f"{name}, {plan.processes} processes", f"{granted:,}", f"{refused:,}", f"{most:.6f}", str(gap)])
    made.table(
        "Everybody at once, for more than there is",
        ["accounts in", "granted", "refused", "most that was taken ÷ limit", "kept − costs, 1e-9 $"],
        rows,
    )
    made.promise("the most that was ever spent and reserved", limit=1, measured=worst, unit="× the limit")
    made.promise("what processes spent less what is kept", limit=0, measured=lost, unit="× 1e-9 US dollars")


@contextmanager
def valkey(folder: Path) -> Iterator[str | None]:
    """A server of its own, with nothing on disk; None where there is no program."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = f"--port {port} --bind 127.0.0.1 --appendonly no --dir {folder}".split()
    process = subprocess.Popen([program, *words, "--save", ""], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        return
    arguments = options(__doc__).parse_args()
    plan = TINY if arguments.tiny else Plan()
    made = Report("budget", "Budgets", "What a budget costs a call, and how exact it is.")
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, valkey(Path(name)) as url:
        folder = Path(name)
        stores: dict[str, Callable[[], Accounts | None]] = {
            "no budget": lambda: None,
            "memory": MemoryAccounts,
            "SQLite": lambda: SqliteAccounts(folder / "overhead.db"),
        }
        if url is not None:
            stores["Valkey"] = lambda: ValkeyStore(url, timeout=5.0).accounts("overhead")
        measure_overhead(made, stores, plan)
        measure_errors(made, plan)
        measure_races(made, folder, url, plan)
    made.finish(arguments.output)
    note(f"budget: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
