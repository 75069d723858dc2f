"""What several processes share through a real server: limits held, outages survived, nothing waited for in cleaning up.

The bounds, for a limit of `rate` a second and buckets of `capacity`, over any time T:

    store up                              granted ≤ capacity + rate · T
    killed and started again, empty       granted ≤ capacity + rate · (T + 1.25 s)           for each restart
    cut off, and back with its memory     granted ≤ 2 · capacity + rate · (T + 1.25 s)       for each outage

The second is the first but for the moment in which some processes have noticed that it is back and others have not: a
process that found it down looks again after a second. The third: what others used meanwhile it hears just as late.
Slots: ≤ the limit while it is up; while it is down, what is held beyond that was held when it went down.

Times are the machine's monotonic clock, which processes share. A reservation was decided between `asked` and `granted`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, Tell
from tests.support.programs import surroundings
from tests.support.valkey_server import Server, running

from agentflow.core.robustness.circuit_breaker import BreakerState, CircuitBreaker
from agentflow.core.robustness.decision import Decision
from agentflow.errors import CircuitOpenError, LimiterError
from agentflow.integrations.valkey import ValkeyStore
from agentflow.integrations.valkey.scripts import ADJUST, FINISH, HOLD, OPEN, SPEND, TAKE

pytestmark = pytest.mark.service

PATIENT = 2.0  # a time-out for tests that are not about it: a busy machine is no outage
YOUNG = 5.0  # seconds after which a server that has just been started is trusted to know all


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that nobody disturbs."""
    with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Server]:
    """One of the test's own, to be frozen and killed."""
    with running(tmp_path) as server:
        yield server


@asynccontextmanager
async def store_on(server: Server, heard: list[Decision] | None = None, **options: Any) -> AsyncIterator[ValkeyStore]:
    options = {"timeout": PATIENT, **options}
    store = ValkeyStore(server.url, listener=None if heard is None else heard.append, **options)
    try:
        yield store
    finally:
        await store.aclose()


async def until(condition: Any, seconds: float = 10.0) -> float:
    """Wait for something that another program does; how long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds, "it did not happen"
        await asyncio.sleep(0.005)
    return time.monotonic() - begun


def aged(server: Server) -> None:
    """Wait until the server is old enough to give slots away."""
    while time.monotonic() < server.started_at + YOUNG:
        time.sleep(0.05)


def said_of_the_store(heard: Sequence[Decision]) -> list[Decision]:
    return [decision for decision in heard if decision.kind.startswith("store")]


def leases(server: Server) -> int:
    return sum(server.command("ZCARD", key) for key in names(server, "*:leases"))


def names(server: Server, pattern: str) -> list[str]:
    return [key.decode() for key in server.command("KEYS", pattern)]


# ---- decisions


async def test_a_decision_is_one_call_of_one_script(server: Server) -> None:
    """Ten reservations: ten EVALSHA. Their settlements are fewer round trips, but each is one call, too."""
    async with store_on(server) as store:
        limiter = store.limiter("one call", requests_per_minute=600_000, tokens_per_minute=6_000_000)
        (await limiter.reserve()).settle()
        await until(lambda: leases(server) == 0)
        server.command("CONFIG", "RESETSTAT")
        held = [await limiter.reserve(tokens=5) for _ in range(10)]
        asked = server.calls()
        for reservation in held:
            reservation.settle(tokens=3)
        await until(lambda: leases(server) == 0)
    assert (asked["evalsha"], asked.get("eval", 0)) == (10, 0)
    assert server.calls()["evalsha"] <= 20 + 2  # the renewal of leases may have come by


async def test_a_server_that_forgot_the_scripts_is_given_them_again(server: Server) -> None:
    """NOSCRIPT is an everyday answer: for what is asked, and for what is queued."""
    heard: list[Decision] = []
    async with store_on(server, heard) as store:
        limiter = store.limiter("flushed", requests_per_minute=600_000)
        for _ in range(3):
            server.command("SCRIPT", "FLUSH")
            reservation = await limiter.reserve()
            server.command("SCRIPT", "FLUSH")
            reservation.settle()
            await until(lambda: leases(server) == 0)
    assert said_of_the_store(heard) == []


async def test_the_limit_is_kept_and_used(server: Server) -> None:
    """One process: from an empty bucket on, exactly the rate comes through."""
    async with store_on(server) as store:
        limiter = store.limiter("rate", requests_per_minute=6_000, burst=0.0005)  # three at once, 100 a second
        begun = time.monotonic()
        for _ in range(53):
            (await limiter.reserve()).settle()
        took = time.monotonic() - begun
    assert took >= 0.5 - 0.01
    assert took < 3


async def test_settling_reaches_every_process(server: Server) -> None:
    """What one gives back another can take; what one used beyond its estimate is a debt for all."""
    async with store_on(server) as one, store_on(server) as other:
        limits = {"tokens_per_minute": 60.0, "burst": 10.0}
        first, second = one.limiter("settled", **limits), other.limiter("settled", **limits)
        held = await first.reserve(tokens=1)
        held.settle(tokens=2_000)
        await until(lambda: leases(server) == 0)
        with pytest.raises(LimiterError) as failure:
            await second.reserve(tokens=1, timeout=5)
        assert failure.value.retry_after is not None
        assert failure.value.retry_after > 1_000


async def test_a_drain_and_what_is_left_reach_every_process(server: Server) -> None:
    async with store_on(server) as one, store_on(server) as other:
        first = one.limiter("drained", requests_per_minute=600_000)
        second = other.limiter("drained", requests_per_minute=600_000)
        first.drain(60)
        await one.aclose()
        with pytest.raises(LimiterError) as failure:
            await second.reserve(timeout=5)
        assert failure.value.retry_after == pytest.approx(60, abs=1)


async def test_slots_are_shared_and_come_back(server: Server) -> None:
    aged(server)
    async with store_on(server) as one, store_on(server) as other:
        first, second = one.limiter("slots", concurrency=1), other.limiter("slots", concurrency=1)
        held = await first.reserve()
        with pytest.raises(LimiterError):
            await second.reserve(timeout=0.01)
        waiting = asyncio.create_task(_reserve(second))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        held.release()
        assert (await waiting).waited >= 0.1


async def _reserve(limiter: Any, **need: Any) -> Any:
    reservation = await limiter.reserve(**need)
    reservation.release()
    return reservation


async def test_the_first_of_each_process_goes_in_the_order_of_asking(server: Server) -> None:
    """A large call is not overtaken for ever by small ones of another process."""
    async with store_on(server) as one, store_on(server) as other:
        limits = {"tokens_per_minute": 6_000.0, "burst": 0.01}  # sixty at once, a hundred a second
        large, small = one.limiter("order", **limits), other.limiter("order", **limits)
        stop = False

        async def press() -> None:
            while not stop:
                await _reserve(small, tokens=5)

        pressing = asyncio.create_task(press())
        await asyncio.sleep(0.3)
        reservation = await asyncio.wait_for(_reserve(large, tokens=60), 10)
        stop = True
        await pressing
        assert reservation.waited < 3


async def test_a_reservation_outlives_its_lease_while_its_process_lives(server: Server) -> None:
    """It is renewed; settling it after many leases still counts."""
    aged(server)
    async with store_on(server, lease=1.0) as store:
        limiter = store.limiter("renewed", concurrency=1)
        held = await limiter.reserve()
        with pytest.raises(LimiterError):
            await limiter.reserve(timeout=2.5)
        held.release()
        await _reserve(limiter, timeout=1.0)


async def test_two_loops_in_two_threads_share_one_limiter(server: Server) -> None:
    aged(server)
    store = ValkeyStore(server.url, timeout=PATIENT)
    limiter = store.limiter("threads", concurrency=2)
    inside, peak, served, lock = 0, 0, 0, threading.Lock()

    async def one() -> None:
        nonlocal inside, peak, served
        async with limiter.reserve():
            with lock:
                inside, peak = inside + 1, max(peak, inside + 1)
            await asyncio.sleep(0.005)
            with lock:
                inside, served = inside - 1, served + 1

    async def some() -> None:
        await asyncio.gather(*(one() for _ in range(20)))
        await store.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(some(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert (served, peak, limiter.in_use) == (40, 2, 0)


# ---- processes


def processes(
    server: Server, count: int, seconds: float, folder: Path, *, not_before: float = 0.0, **job: Any
) -> Iterator[list[subprocess.Popen[str]] | list[list[Any]]]:
    """Processes that press against one limit for so long: yields them once all are at work, then what each printed."""
    store = {"replicas": count, "timeout": PATIENT}
    job = {"url": server.url, "key": "pressed", "tasks": 4, "hold": 0.002, "store": store, **job}
    environ = surroundings(PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    command = [sys.executable, "-m", "tests.support.valkey_process", json.dumps(job)]
    outputs = [folder / f"process-{number}" for number in range(count)]
    with ExitStack() as stack:
        started = [stack.enter_context(_process(command, environ, output)) for output in outputs]
        end = time.monotonic() + 60
        while time.monotonic() < not_before or not all(output.read_text() for output in outputs):  # "ready"
            assert time.monotonic() < end
            time.sleep(0.02)
        for process in started:
            assert process.stdin is not None
            process.stdin.write(f"{time.monotonic() + seconds}\n")
            process.stdin.flush()
        yield started
        assert {process.wait(seconds + 30) for process in started} <= {0, -9}
        yield [[json.loads(line) for line in output.read_text().splitlines()[1:]] for output in outputs]


@contextmanager
def _process(command: Sequence[str], environ: dict[str, str], output: Path) -> Iterator[subprocess.Popen[str]]:
    """Ended, however the test ends."""
    with output.open("w") as file:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, env=environ, cwd=ROOT, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


def most_above(grants: Sequence[Any], rate: float, capacity: float) -> float:
    """By how much the grants of any stretch of time exceed `capacity + rate · T`; below 0 where none does."""
    worst = -capacity
    for first in grants:
        inside = sorted(each["granted"] for each in grants if each["asked"] >= first["asked"])
        for count, end in enumerate(inside, start=1):
            worst = max(worst, count - capacity - rate * (end - first["asked"]))
    return worst


def most_at_once(grants: Sequence[Any]) -> int:
    edges = sorted([(each["granted"], 1) for each in grants] + [(each["ended"], -1) for each in grants])
    inside = peak = 0
    for _, step in edges:
        inside += step
        peak = max(peak, inside)
    return peak


async def test_four_processes_never_exceed_the_limit(server: Server, tmp_path: Path, tell: Tell) -> None:
    """Sixteen tasks press for three seconds: never above the limit in any stretch of time, and most of it used."""
    rate, capacity = 120.0, 30.0
    limits = {"requests_per_minute": rate * 60, "burst": capacity / (rate * 60)}
    pressing = processes(server, 4, 3.0, tmp_path, limits=limits)
    next(pressing)
    said = next(pressing)
    grants = [line for lines in said for line in lines if "granted" in line]
    assert [line for lines in said for line in lines if "decision" in line] == []
    assert all(line["shared"] for line in grants)
    worst = most_above(grants, rate, capacity)
    tell([f"shared limit, 4 processes, {len(grants)} grants: at most {worst:+.1f} beside capacity + rate · T"])
    assert worst <= 0
    assert most_above(grants, rate / 2, capacity / 2) > 0  # the measure can tell
    pressed = max(each["granted"] for each in grants) - min(each["asked"] for each in grants)
    assert len(grants) > 0.6 * rate * pressed
    by_process = [sum("granted" in line for line in lines) for lines in said]
    assert min(by_process) > 0.3 * max(by_process)  # none is left out


async def test_four_processes_never_hold_more_slots_than_there_are(server: Server, tmp_path: Path) -> None:
    aged(server)
    pressing = processes(server, 4, 3.0, tmp_path, hold=0.02, limits={"concurrency": 3}, key="slots of four")
    next(pressing)
    grants = [line for lines in next(pressing) for line in lines]
    assert most_at_once(grants) <= 3
    assert len(grants) > 20


async def test_a_crashed_process_s_slot_comes_back_when_its_lease_is_over(server: Server, tmp_path: Path) -> None:
    """Not before, as it may still be at work; and not long after."""
    aged(server)
    job = {"crash": True, "tasks": 1, "limits": {"concurrency": 1}, "key": "crashed", "store": {"lease": 1.0}}
    pressing = processes(server, 1, 30.0, tmp_path, **job)
    [process] = next(pressing)
    await until(lambda: "granted" in (tmp_path / "process-0").read_text(), 20)
    async with store_on(server) as store:
        limiter = store.limiter("crashed", concurrency=1)
        with pytest.raises(LimiterError):
            await limiter.reserve(timeout=1.5)  # it is renewed while its process lives
        process.kill()
        killed = time.monotonic()
        await _reserve(limiter, timeout=10)
        took = time.monotonic() - killed
    next(pressing)
    assert 0.5 < took < 2.5  # a third of a lease may have passed since it was renewed


@pytest.mark.parametrize("forgets", [True, False], ids=["killed", "cut off"])
async def test_the_limit_holds_within_its_bound_across_an_outage(
    mortal: Server, tmp_path: Path, forgets: bool, tell: Tell
) -> None:
    """Gone under load for a second and a half, and back: every process notices and says so, goes on with a quarter of
    the limit, and comes back; together they stay within the bound."""
    rate, capacity = 120.0, 180.0  # so much that to be given it twice would be too much
    limits = {"requests_per_minute": rate * 60, "burst": capacity / (rate * 60)}
    full = mortal.started_at + 4.0  # its bucket is full by then: the worst moment to begin
    store = {"replicas": 4, "timeout": 0.25}
    pressing = processes(mortal, 4, 5.0, tmp_path, not_before=full, limits=limits, store=store)
    next(pressing)
    await until(lambda: all("granted" in (tmp_path / f"process-{number}").read_text() for number in range(4)), 20)
    await asyncio.sleep(0.7)
    gone, back = (mortal.kill, mortal.start) if forgets else (mortal.freeze, mortal.thaw)
    gone()
    gone_at = time.monotonic()
    await asyncio.sleep(1.5)
    back_at = time.monotonic()
    back()
    said = await asyncio.to_thread(next, pressing)
    grants = [line for lines in said for line in lines if "granted" in line]
    for lines in said:
        told = [line["decision"] for line in lines if "decision" in line]
        assert told[:2] == ["store_down", "store_up"]
    meanwhile = [each for each in grants if gone_at + 0.3 < each["asked"] and each["granted"] < back_at]
    assert meanwhile
    assert not any(each["shared"] for each in meanwhile)
    assert min(each["granted"] for each in grants if each["shared"] and each["granted"] > back_at) < back_at + 2.5
    worst = most_above(grants, rate, capacity)
    name = "killed" if forgets else "cut off"
    tell([f"shared limit of {rate:g}/s, store {name}, {len(grants)} grants: {worst:+.1f} beside capacity + rate · T"])
    assert worst <= 1.25 * rate + (0 if forgets else capacity)


async def test_a_server_that_has_just_started_has_no_full_buckets(mortal: Server) -> None:
    """What it does not know it may have forgotten: a bucket holds what has flowed in since its start, and no more."""
    async with store_on(mortal) as store:
        limiter = store.limiter("young", requests_per_minute=6_000, burst=0.1, on_limit="raise")
        granted = 0
        while (age := time.monotonic() - mortal.started_at) < 1.5:
            with suppress(LimiterError):
                (await limiter.reserve()).settle()
                granted += 1
            await asyncio.sleep(0.001)
        assert granted <= 100 * age


async def test_slots_that_are_held_are_told_to_a_server_that_forgot_them(mortal: Server) -> None:
    """It gives none away until it has heard of them, and then only what is free."""
    async with store_on(mortal) as one, store_on(mortal) as other:
        first, second = one.limiter("told", concurrency=1), other.limiter("told", concurrency=1)
        held = await first.reserve()
        mortal.kill()
        await asyncio.sleep(0.1)
        mortal.start()
        begun = time.monotonic()
        with pytest.raises(LimiterError):
            await second.reserve(timeout=4.5)
        held.release()
        await _reserve(second, timeout=2)
        assert time.monotonic() - begun < 6.5


# ---- without the server


async def test_a_frozen_server_costs_the_time_limit_once(mortal: Server) -> None:
    """The first decision waits 50 ms for it, those after it do not; it says that it is down, and when it is back."""
    heard: list[Decision] = []
    async with store_on(mortal, heard, timeout=0.05) as store:
        limiter = store.limiter("frozen", requests_per_minute=6_000_000)
        (await limiter.reserve()).settle()
        await until(lambda: leases(mortal) == 0)
        mortal.freeze()
        try:
            begun = time.monotonic()
            first = await limiter.reserve()
            waited = time.monotonic() - begun
            begun = time.monotonic()
            for _ in range(50):
                (await limiter.reserve()).settle()
            rest = time.monotonic() - begun
        finally:
            mortal.thaw()
        assert 0.045 < waited < 0.4
        assert rest < 0.5
        assert not store.up
        first.settle()
        await until(lambda: store.up)
        await until(lambda: leases(mortal) == 0)
        assert (await limiter.reserve()).share is None
    down, up = said_of_the_store(heard)
    assert (down.kind, down.data) == ("store_down", {"reason": "TimeoutError", "retry": 1.0})
    assert up.kind == "store_up"
    assert up.data["seconds"] == pytest.approx(1, abs=0.9)


async def test_a_store_that_was_never_there_is_no_obstacle() -> None:
    heard: list[Decision] = []
    store = ValkeyStore("redis://127.0.0.1:9/0", listener=heard.append)
    limiter = store.limiter("nobody", requests_per_minute=6_000_000, concurrency=4)
    budget = store.budget("nobody", amount=10, per_seconds=60)
    begun = time.monotonic()
    for _ in range(20):
        async with limiter.reserve():
            pass
    assert await budget.try_spend(9) is not None
    assert await budget.try_spend(9) is None
    assert await store.breaker_gate("nobody").open_until() == 0
    assert time.monotonic() - begun < 2
    await store.aclose()
    assert said_of_the_store(heard)[0].kind == "store_down"


async def test_a_password_is_in_no_decision(server: Server) -> None:
    """A server that refuses it is as good as none, and it is told without a word of the server's."""
    heard: list[Decision] = []
    url = server.url.replace("redis://", "redis://nobody:hunter2@")
    store = ValkeyStore(url, listener=heard.append, timeout=PATIENT)
    await _reserve(store.limiter("refused", requests_per_minute=6_000_000))
    await store.aclose()
    assert said_of_the_store(heard)[0].data["reason"] == "AuthenticationError"
    assert "hunter2" not in f"{heard}{store!r}"


async def test_what_is_settled_in_a_cancelled_task_arrives_although_nobody_waits_for_it(mortal: Server) -> None:
    """The server does not answer when the task is cancelled: the task ends at once, and the server hears it later."""
    async with store_on(mortal, timeout=PATIENT) as store:
        limiter = store.limiter("cancelled", requests_per_minute=6_000_000)
        inside = asyncio.Event()

        async def call() -> None:
            async with limiter.reserve():
                inside.set()
                await asyncio.sleep(3600)

        task = asyncio.create_task(call())
        await inside.wait()
        mortal.freeze()
        try:
            begun = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            took = time.monotonic() - begun
        finally:
            mortal.thaw()
        assert task.cancelled()
        assert took < 0.2
        assert limiter.in_use == 0
        await until(lambda: leases(mortal) == 0)


async def test_cancelled_at_any_moment_no_slot_stays_taken(server: Server) -> None:
    """A hundred calls, cancelled after ever longer times: in the queue, while asking, while calling."""
    aged(server)
    async with store_on(server) as store:
        limiter = store.limiter("at any moment", requests_per_minute=60_000, concurrency=2)
        for number in range(100):
            tasks = [asyncio.create_task(_hold(limiter, 0.003)) for _ in range(4)]
            await asyncio.sleep(number * 0.0001)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.wait(tasks)
            assert sum(task.cancelled() for task in tasks) <= 2
        await until(lambda: leases(server) == 0)
        assert (limiter.in_use, limiter.waiting) == (0, 0)
        queues = [server.command("ZCARD", key) for key in names(server, "*:queue")]
        assert sum(queues) == 0


async def _hold(limiter: Any, seconds: float) -> None:
    async with limiter.reserve(timeout=30):
        await asyncio.sleep(seconds)


async def test_closing_sends_what_is_queued(server: Server) -> None:
    store = ValkeyStore(server.url, timeout=PATIENT)
    limiter = store.limiter("closing", requests_per_minute=6_000_000)
    held = [await limiter.reserve() for _ in range(500)]
    for reservation in held:
        reservation.settle()
    await store.aclose()
    assert leases(server) == 0
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    (await limiter.reserve()).settle()  # it can be used again
    await store.aclose()


async def test_the_end_of_an_event_loop_sends_what_is_queued(server: Server) -> None:
    """`asyncio.run` cancels what is under way: nobody closed the store, and no slot stays taken, no socket open."""
    store = ValkeyStore(server.url, timeout=PATIENT)
    limiter = store.limiter("the end", requests_per_minute=6_000_000)

    async def main() -> None:
        calls = [asyncio.create_task(_hold(limiter, 3600)) for _ in range(5)]
        await until(lambda: limiter.in_use == 5)
        assert not any(call.done() for call in calls)

    await asyncio.to_thread(asyncio.run, main())
    assert leases(server) == 0
    assert limiter.in_use == 0
    (await limiter.reserve()).settle()
    await store.aclose()


# ---- what else is shared


async def test_a_budget_is_spent_once_by_all(server: Server) -> None:
    """Estimates are taken at once, corrections reach the others, and the window's end gives a new one."""
    async with store_on(server) as one, store_on(server) as other:
        first = one.budget("dollars", amount=1.0, per_seconds=86_400)
        second = other.budget("dollars", amount=1.0, per_seconds=86_400)
        spends = await asyncio.gather(*(budget.try_spend(0.3) for budget in (first, second) for _ in range(4)))
        granted = [spend for spend in spends if spend is not None]
        assert len(granted) == 3
        granted[0].settle(0.05)
        granted[0].settle(0.9)
        await until(lambda: _spent(server) == pytest.approx(0.65))
        assert await second.try_spend(0.35) is not None
        assert await first.try_spend(0.01) is None
        assert first.spent == pytest.approx(1.0)


def _spent(server: Server) -> float:
    [key] = names(server, "*:86400")
    fields = server.command("HGETALL", key)
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return sum(float(value) for name, value in pairs if name.startswith(b"s:"))


async def test_a_budget_has_a_new_window_by_the_server_s_clock(server: Server) -> None:
    async with store_on(server) as store:
        budget = store.budget("short", amount=1.0, per_seconds=1)
        spent = await budget.try_spend(0.9)
        while await budget.try_spend(0.9) is None:
            await asyncio.sleep(0.02)
        assert spent is not None
        spent.cancel()  # of a window that is over
        await asyncio.sleep(0.02)


async def test_a_budget_survives_a_server_that_forgot_it(mortal: Server) -> None:
    """What was spent before, and without it, is told again: the amount holds for the whole window."""
    async with store_on(mortal, replicas=2) as one, store_on(mortal, replicas=2) as other:
        first = one.budget("told again", amount=1.0, per_seconds=86_400)
        second = other.budget("told again", amount=1.0, per_seconds=86_400)
        assert await first.try_spend(0.3) is not None
        assert await second.try_spend(0.3) is not None
        mortal.kill()
        assert await first.try_spend(0.3) is None  # its half is 0.5
        assert await first.try_spend(0.2) is not None
        mortal.start()
        await until(lambda: one.up)
        assert await second.try_spend(0.1) is not None
        await until(lambda: other.up)
        assert await second.try_spend(0.2) is None  # 0.5 here, 0.3 or 0.4 there
        assert await first.try_spend(0.2) is None


async def test_a_breaker_that_opens_in_one_process_is_open_in_the_others(server: Server) -> None:
    async with store_on(server) as one, store_on(server) as other:
        first = one.share_breaker("b", lambda hears: CircuitBreaker(min_calls=1, open_for=60, listener=hears))
        second = other.share_breaker("b", lambda hears: CircuitBreaker(listener=hears))
        second.acquire().success()
        first.acquire().failure(ConnectionError())
        assert first.breaker.state is BreakerState.OPEN

        def refused() -> bool:
            with suppress(CircuitOpenError):
                second.check()
                return False
            return True

        assert await until(refused) < 2.5
        assert await one.breaker_gate("b").open_until() == pytest.approx(60, abs=13)  # ± 20 % of jitter


# ---- a cluster


async def test_everything_works_on_a_cluster(tmp_path: Path) -> None:
    """All keys of one decision hash to one slot, as the server itself says, and the cluster's client is used."""
    heard: list[Decision] = []
    with running(tmp_path, cluster=True) as server:
        async with store_on(server, heard, cluster=True) as store:
            limiter = store.limiter("cluster", requests_per_minute=6_000_000)
            keys = store.keys("limit", "cluster", "levels", "leases", "queue", "needs")
            assert len({server.command("CLUSTER", "KEYSLOT", key) for key in keys}) == 1
            held = [await limiter.reserve() for _ in range(3)]
            assert all(reservation.share is None for reservation in held)
            server.command("SCRIPT", "FLUSH")
            for reservation in held:
                reservation.settle()
            await until(lambda: leases(server) == 0)
            assert await store.budget("cluster", amount=1, per_seconds=60).try_spend(0.5) is not None
            store.breaker_gate("cluster").publish(30)
            await until(lambda: len(names(server, "*:until")) == 1)
    assert said_of_the_store(heard) == []


def test_every_script_only_touches_the_keys_it_is_given() -> None:
    """A cluster refuses others: each `redis.call` names KEYS, or is about the server itself."""
    for script in (TAKE, FINISH, HOLD, ADJUST, SPEND, OPEN):
        for line in script.text.splitlines():
            for call in line.split("redis.call(")[1:] + line.split("redis.pcall(")[1:]:
                assert "KEYS[" in call or call.startswith(("'TIME'", "'INFO'")), line
