"""What several processes share, without a server: the order of waiting, cancellation, and a process's own share.

The store is a double that answers after a millisecond of virtual time; test_valkey.py has the real one.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import tomllib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sweep import sweep
from tests.support.valkey_double import RemoteDouble

from agentflow.clock import VirtualClock
from agentflow.core.robustness.buckets import ServerLimits
from agentflow.core.robustness.circuit_breaker import BreakerState, CircuitBreaker
from agentflow.core.robustness.decision import Decision
from agentflow.core.robustness.limiting import Breaker, Limiter
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.errors import CircuitOpenError, ConfigurationError, LimiterError, MissingExtraError
from agentflow.integrations.valkey import SharedBreaker, ValkeyRateLimiter, ValkeyStore, from_settings
from agentflow.integrations.valkey.breaker import BreakerGate
from agentflow.integrations.valkey.budget import SharedBudget
from agentflow.integrations.valkey.health import Health
from agentflow.integrations.valkey.outbox import Outbox
from agentflow.integrations.valkey.remote import Message
from agentflow.integrations.valkey.scripts import ADJUST, FINISH, HOLD, OPEN
from agentflow.integrations.valkey.share import Share

Test = Callable[[ValkeyRateLimiter, RemoteDouble], Coroutine[Any, Any, None]]


def limited(test: Test, *, replicas: int = 1, **options: Any) -> list[Decision]:
    """Run a test in virtual time with a limiter on a double; see that it lets go of all, and return what it told."""
    clock, heard = VirtualClock(), list[Decision]()

    async def main() -> None:
        remote = RemoteDouble(clock, replicas=replicas)
        limiter = ValkeyRateLimiter(remote, "k", listener=heard.append, **options)
        await test(limiter, remote)
        assert_free(limiter, remote)

    clock.run(main())
    return heard


def assert_free(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
    if remote.up:
        remote.flush()
        assert (remote.leases, remote.queue, remote.sent) == ({}, [], [])
    assert (limiter.in_use, limiter.waiting, remote.held) == (0, 0, set())


async def use(limiter: ValkeyRateLimiter, *, hold: float = 0.0, **need: Any) -> float:
    """One call; returns when it was let through."""
    async with limiter.reserve(**need):
        passed = asyncio.get_running_loop().time()
        if hold:
            await asyncio.sleep(hold)
        return passed


# ---- taking and waiting


def test_a_grant_without_waiting_is_one_question() -> None:
    """Ten calls that all fit ask ten times, and none is said to have waited."""

    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        for _ in range(10):
            async with limiter.reserve() as reservation:
                assert reservation.waited == 0
        assert remote.asked == 10

    assert limited(test, requests_per_minute=60) == []


def test_the_calls_of_a_process_go_in_the_order_of_coming() -> None:
    """Nobody overtakes, although small ones could: one asks at a time, the rest wait behind it."""

    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        served: list[int] = []

        async def one(number: int, tokens: int) -> None:
            await use(limiter, tokens=tokens)
            served.append(number)

        await use(limiter, tokens=50)
        await asyncio.gather(*(one(number, 60 if number == 0 else 1) for number in range(8)))
        assert served == list(range(8))

    heard = limited(test, tokens_per_minute=60)
    assert {decision.kind for decision in heard} == {"limiter_wait"}
    assert all(decision.data["shared"] for decision in heard)


def test_a_wait_is_as_long_as_the_store_says() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        await use(limiter, tokens=60)
        assert await use(limiter, tokens=10) == pytest.approx(10, abs=0.05)

    [decision] = limited(test, tokens_per_minute=60)
    assert decision.data["seconds"] == pytest.approx(10, abs=0.05)


def test_a_wait_that_would_be_too_long_is_refused_at_once() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        await use(limiter, tokens=60)
        with pytest.raises(LimiterError, match="only 3 s are left") as failure:
            await limiter.reserve(tokens=10, timeout=3)
        assert failure.value.retry_after == pytest.approx(10, abs=0.05)
        assert asyncio.get_running_loop().time() < 0.1

    assert [decision.data["reason"] for decision in limited(test, tokens_per_minute=60)] == ["timeout"]


def test_who_waits_behind_others_of_its_process_hears_when_its_time_is_over() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        await use(limiter, tokens=60)
        first = asyncio.create_task(use(limiter, tokens=20))
        await asyncio.sleep(0)
        with pytest.raises(LimiterError, match="still not its turn"):
            await limiter.reserve(tokens=1, timeout=2)
        assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.05)
        await first

    limited(test, tokens_per_minute=60)


def test_told_not_to_wait_it_raises() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        await use(limiter, tokens=60)
        with pytest.raises(LimiterError, match="must not") as failure:
            await limiter.reserve(tokens=1)
        assert failure.value.retryable

    limited(test, tokens_per_minute=60, on_limit="raise")


def test_what_is_more_than_a_full_bucket_is_refused_without_asking() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        with pytest.raises(
            LimiterError, match="61 tokens at once are more than tokens_per_minute × burst = 60"
        ) as failure:
            await limiter.reserve(tokens=61)
        assert not failure.value.retryable
        assert remote.asked == 0

    limited(test, tokens_per_minute=60)


def test_a_slot_that_comes_free_here_goes_on_at_once() -> None:
    """The next of this process asks as soon as the store has heard, not when its nap is over."""

    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        times = await asyncio.gather(*(use(limiter, hold=0.01) for _ in range(4)))
        assert times == sorted(times)
        assert times[-1] < 0.05

    limited(test, concurrency=1)


def test_settling_corrects_the_estimate_once() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        reservation = await limiter.reserve(input_tokens=20, output_tokens=20)
        reservation.settle(input_tokens=30, output_tokens=5)
        reservation.settle(input_tokens=0, output_tokens=0)
        reservation.cancel()
        assert remote.leases  # nothing was waited for
        remote.flush()
        assert remote.levels["tokens"] == pytest.approx(600 - 35, abs=0.5)
        assert remote.levels["input_tokens"] == pytest.approx(600 - 30, abs=0.5)

    limited(test, tokens_per_minute=600, input_tokens_per_minute=600)


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (lambda reservation: reservation.cancel(), 600),
        (lambda reservation: reservation.release(), 560),
        (lambda reservation: reservation.settle(), 560),
        (lambda reservation: reservation.settle(tokens=70), 530),
        (lambda reservation: reservation.settle(tokens=0), 600),
        (lambda reservation: reservation.settle(output_tokens=120), 460),
    ],
)
def test_each_end_gives_back_what_it_says(end: Callable[[Any], None], left: float) -> None:
    """Cancelled: all; released, or settled without a word: nothing; else what it differs by, which may be a debt."""

    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        end(await limiter.reserve(input_tokens=20, output_tokens=20))
        remote.flush()
        assert remote.levels["tokens"] == pytest.approx(left, abs=0.5)

    limited(test, tokens_per_minute=600)


def test_a_drain_stops_this_process_at_once_and_tells_the_others() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        await use(limiter)
        limiter.drain(30)
        passed = await asyncio.gather(use(limiter), use(limiter))
        assert passed[0] == pytest.approx(30, abs=0.1)
        assert passed[1] == pytest.approx(31, abs=0.1)  # one is there when the wait is over, the next by the rate

    heard = limited(test, requests_per_minute=60)
    assert heard[0] == Decision("limiter_drained", "k", {"seconds": 30.0})


def test_what_the_provider_says_is_left_lowers_the_level_for_all() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        limiter.observe(ServerLimits(requests_remaining=1, tokens_remaining=5, tokens_reset=10))
        remote.flush()
        await use(limiter)
        assert await use(limiter) == pytest.approx(1, abs=0.1)

    limited(test, requests_per_minute=60)


def test_it_is_a_limiter_as_the_pipeline_wants_one() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        seam: Limiter = limiter
        assert seam.try_reserve() is None
        assert not seam.counts_tokens
        assert "60 requests/min" in repr(limiter)
        calls = limiter(use)
        assert calls.__name__ == "use"

    limited(test, requests_per_minute=60)


@pytest.mark.parametrize(
    "options", [{"requests_per_minute": 0}, {"concurrency": 0}, {"burst": 0}, {"on_limit": "perhaps"}]
)
def test_limits_that_cannot_be_are_refused_as_core_refuses_them(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ValkeyRateLimiter(RemoteDouble(VirtualClock()), "k", **options)


# ---- cancellation


def test_cancelled_at_any_wait_nothing_stays_taken() -> None:
    """Cancelled while it waits its turn, while it asks, while it naps and while it calls: no slot, no place in the
    queue, no waiter and no timer stays; what was not used is given back; the others are served."""
    limiter: ValkeyRateLimiter
    remote: RemoteDouble
    served: list[int] = []

    async def operation(clock: VirtualClock) -> None:
        nonlocal limiter, remote
        remote = RemoteDouble(clock)
        limiter = ValkeyRateLimiter(remote, "k", tokens_per_minute=60, concurrency=1)
        served.clear()

        async def other(number: int, tokens: int) -> None:
            await use(limiter, hold=1.0, tokens=tokens)
            served.append(number)

        others = [asyncio.create_task(other(0, 40))]
        try:
            await asyncio.sleep(0)
            async with limiter.reserve(tokens=40) as reservation:
                others.append(asyncio.create_task(other(1, 10)))
                await asyncio.sleep(0.5)
                reservation.settle(tokens=20)
        finally:
            others.append(asyncio.create_task(other(2, 10)))
            waiting = asyncio.gather(*others)
            while not waiting.done():
                try:
                    await asyncio.shield(waiting)
                except asyncio.CancelledError:
                    continue

    def check() -> None:
        assert_free(limiter, remote)
        assert served == sorted(served)
        assert len(served) >= 2
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        assert [timer for timer in timers if not timer.cancelled() and timer._callback.__qualname__ == "_finish"] == []

    assert sweep(operation, check) >= 5


def test_a_grant_that_nobody_waits_for_any_more_is_given_back() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        leaving = asyncio.create_task(use(limiter, tokens=40))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        remote.flush()
        assert remote.levels["tokens"] == pytest.approx(60)

    limited(test, tokens_per_minute=60)


# ---- without the store


def test_without_the_store_a_process_goes_by_its_own_part() -> None:
    """A quarter of the limit, and nothing at first: what the store held may have been taken by others."""

    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        remote.up = False
        times = [await use(limiter) for _ in range(3)]
        assert times == pytest.approx([4, 8, 12], abs=0.05)

    heard = limited(test, replicas=4, requests_per_minute=60)
    assert [decision.data["shared"] for decision in heard] == [False] * 3


def test_a_call_larger_than_the_own_part_takes_all_of_it_and_the_rest_as_a_debt() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        remote.up = False
        assert await use(limiter, tokens=50) == pytest.approx(60, abs=1)  # 15 a minute: all of a full share
        assert await use(limiter, tokens=5) == pytest.approx(60 + 140 + 20, abs=1)

    limited(test, replicas=4, tokens_per_minute=60)


def test_without_the_store_calls_that_it_granted_still_take_their_slots() -> None:
    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        held = [await limiter.reserve() for _ in range(3)]
        remote.up = False
        waiting = asyncio.create_task(use(limiter))
        await asyncio.sleep(1)
        assert not waiting.done()
        held[0].release()
        await asyncio.sleep(0.1)
        assert not waiting.done()  # the share is two
        held[1].release()
        assert await waiting == pytest.approx(1.1, abs=0.01)
        held[2].release()
        remote.come_back()

    limited(test, replicas=2, concurrency=4)


def test_the_store_hears_what_was_used_without_it() -> None:
    """When it is back, what a process took by itself is taken off, as far as it is there; and who waits asks again."""

    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        await use(limiter, tokens=20)
        remote.up = False
        await asyncio.sleep(1)
        with pytest.raises(LimiterError):
            await limiter.reserve(tokens=1, timeout=0)
        await asyncio.sleep(40)
        async with limiter.reserve(tokens=15) as reservation:
            reservation.settle(tokens=12)
        waiting = asyncio.create_task(use(limiter, tokens=15))
        await asyncio.sleep(0.01)
        remote.come_back()
        assert await waiting < 41.1
        remote.flush()
        assert remote.levels["tokens"] == pytest.approx(60 - 12 - 15, abs=1)

    limited(test, replicas=2, tokens_per_minute=60)


@given(
    needs=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    pauses=st.lists(st.floats(0, 5), min_size=20, max_size=20),
    replicas=st.integers(1, 5),
)
def test_all_shares_together_never_give_more_than_the_rate(
    needs: list[int], pauses: list[float], replicas: int
) -> None:
    """From the moment the store is gone: at most the rate times the time, and one call's excess for each process."""
    shares = [Share((None, 60, None, None), 1.0, None, replicas, 0.0) for _ in range(replicas)]
    taken = [0] * replicas
    now = 0.0
    for number, (tokens, pause) in enumerate(zip(needs, pauses, strict=False)):
        now += pause
        which = number % replicas
        if shares[which].take((1, tokens, tokens, 0), 0, now) == 0:
            taken[which] += tokens
        assert sum(taken) <= now + sum(max(0, max(needs) - 60 / replicas) for each in taken if each) + 0.001


# ---- a budget


def test_a_budget_without_the_store_is_a_part_of_the_window() -> None:
    clock, heard = VirtualClock(start=0.0), list[Decision]()

    async def main() -> None:
        remote = RemoteDouble(clock, replicas=4)
        remote.up = False
        budget = SharedBudget(remote, "b", amount=8.0, per_seconds=60, listener=heard.append)
        first = await budget.try_spend(1.5)
        assert first is not None
        assert await budget.try_spend(1.0) is None
        first.settle(0.5)
        first.settle(0.0)
        assert await budget.try_spend(1.0) is not None
        assert remote.sent  # the store is told when it is back
        await asyncio.sleep(60)
        assert await budget.try_spend(2.0) is not None
        first.cancel()

    clock.run(main())
    [refused] = heard
    assert refused == Decision("budget_refused", "b", {"amount": 1.0, "spent": 1.5, "seconds": 60.0, "shared": False})


@pytest.mark.timeout(10)
def test_an_end_in_the_midst_of_a_decision_is_carried_out_after_it() -> None:
    """As when the garbage collector closes an abandoned coroutine while its thread holds the guard's lock."""

    async def test(limiter: ValkeyRateLimiter, remote: RemoteDouble) -> None:
        reservation = await limiter.reserve(tokens=10)
        with limiter._turn:
            reservation.release()
            assert limiter.in_use == 1
        assert limiter.in_use == 0
        budget = SharedBudget(remote, "b", amount=8.0, per_seconds=60)
        spend = await budget.try_spend(8.0)
        assert spend is not None
        with budget._turn:
            spend.cancel()
        remote.flush()
        assert await budget.try_spend(8.0) is not None

    limited(test, tokens_per_minute=600)


@pytest.mark.parametrize(("amount", "per_seconds"), [(0, 60), (float("nan"), 60), (1, 0), (1, float("inf"))])
def test_a_budget_that_cannot_be_is_refused(amount: float, per_seconds: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        SharedBudget(RemoteDouble(VirtualClock()), "b", amount=amount, per_seconds=per_seconds)


# ---- a breaker


class _OpenElsewhere(RemoteDouble):
    seconds = 0.0

    async def ask(self, script: Any, keys: Any, arguments: Any, *, undo: Any) -> Any:
        assert script is OPEN
        self.asked += 1
        await asyncio.sleep(0.001)
        return round(self.seconds * 1000)


def test_a_breaker_opens_when_another_process_s_has_opened() -> None:
    """It hears within a second, in the background, and asks no more often than that."""
    clock = VirtualClock()

    async def main() -> None:
        remote = _OpenElsewhere(clock)
        shared = SharedBreaker(
            BreakerGate(remote, "k"), lambda listener: CircuitBreaker(clock=clock, listener=listener)
        )
        for _ in range(5):
            shared.acquire().success()
        await asyncio.sleep(0.01)
        remote.seconds = 10
        await asyncio.sleep(1.1)
        shared.check()  # asks, and does not wait
        await asyncio.sleep(0.01)
        with pytest.raises(CircuitOpenError) as failure, shared.guard():
            pass
        assert failure.value.retry_after == pytest.approx(10, abs=0.1)
        assert remote.asked == 2
        assert remote.sent == []  # what it heard from others it does not tell them again
        await asyncio.sleep(10)
        remote.seconds = 0
        assert shared.breaker.state is BreakerState.HALF_OPEN

    clock.run(main())


def test_a_breaker_that_opens_by_itself_tells_the_others() -> None:
    clock, heard = VirtualClock(), list[Decision]()

    async def main() -> None:
        remote = _OpenElsewhere(clock)
        gate = BreakerGate(remote, "k")
        shared = SharedBreaker(
            gate,
            lambda listener: CircuitBreaker(min_calls=1, open_for=15, jitter=0, clock=clock, listener=listener),
            heard.append,
        )

        @shared
        async def call() -> None:
            raise ConnectionError("no")

        with pytest.raises(ConnectionError):
            await call()
        [message] = remote.sent
        await asyncio.sleep(5)
        assert message.script is OPEN
        assert message.arguments() == (10_000,)  # what is left of it when it is sent
        assert gate.seconds == pytest.approx(10)
        await shared.refresh()

    clock.run(main())
    assert [decision.kind for decision in heard] == ["breaker_state"]


def test_a_pipeline_takes_what_is_shared_as_it_takes_its_own() -> None:
    """Limiter and breaker fit where core's fit; cancelled inside, the call leaves nothing behind."""
    clock = VirtualClock()

    async def main() -> None:
        remote = RemoteDouble(clock)
        limiter = ValkeyRateLimiter(remote, "k", tokens_per_minute=60, concurrency=1)
        seams: tuple[Limiter, Breaker] = (
            limiter,
            SharedBreaker(
                BreakerGate(_OpenElsewhere(clock), "k"),
                lambda listener: CircuitBreaker(name="b", clock=clock, listener=listener),
            ),
        )
        pipeline = Pipeline("p", limiter=seams[0], breaker=seams[1], timeout=60, clock=clock)

        async def call() -> str:
            await asyncio.sleep(1)
            return "answer"

        assert await pipeline.run(call, input_tokens=40) == "answer"
        assert await pipeline.run(call, input_tokens=40) == "answer"
        assert asyncio.get_running_loop().time() == pytest.approx(21, abs=0.2)
        leaving = asyncio.create_task(pipeline.run(call))
        await asyncio.sleep(0.5)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert_free(limiter, remote)
        assert "shared" in pipeline.describe()

    clock.run(main())


# ---- parts


def test_health_lets_one_probe_every_second() -> None:
    health = Health(1.0)
    assert health.up
    assert not health.probe_due(0)
    assert health.failed(10)
    assert not health.failed(10.2)
    assert not health.up
    assert not health.probe_due(11.1)
    assert health.probe_due(11.2)
    assert not health.probe_due(11.3)
    assert health.answered(12) == 2
    assert health.answered(12) is None
    assert health.up


def test_the_outbox_keeps_the_newest_and_counts_the_others() -> None:
    outbox = Outbox(30.0, most=3)
    messages = [Message(FINISH, ("a",), lambda: ()) for _ in range(5)]
    for message in messages:
        outbox.add(message)
    assert outbox.lost == 2
    batch = outbox.take()
    assert batch == messages[2:]
    outbox.put_back(batch)
    outbox.add(messages[0])
    assert outbox.take() == messages[3:] + messages[:1]


def test_leases_are_renewed_while_they_are_held() -> None:
    """Every third of a lease, slots every second; and at once where the store may have forgotten them."""
    outbox = Outbox(30.0, most=10)
    assert outbox.pause(0, up=True, retry=0.25) is None
    assert outbox.hold("set", "a", 0, often=False)
    assert not outbox.hold("set", "b", 1, often=False)
    assert outbox.pause(1, up=True, retry=0.25) == 9
    assert outbox.pause(1, up=False, retry=0.25) == 0.25
    assert outbox.renewals(9) == []
    [message] = outbox.renewals(10)
    outbox.let_go("a")
    assert (message.script, message.keys, message.arguments()) == (HOLD, ("set",), (30.0, "b"))
    assert outbox.hold("slots", "c", 10, often=True)
    assert outbox.pause(10, up=True, retry=0.25) == 1
    assert [message.arguments() for message in outbox.renewals(11)] == [(30.0, "c")]
    outbox.renew_now()
    assert [message.arguments() for message in outbox.renewals(11.5)] == [(30.0, "c"), (30.0, "b")]
    outbox.let_go("b")
    outbox.let_go("c")
    assert outbox.pause(15, up=True, retry=0.25) is None


def test_messages_from_many_threads_all_arrive() -> None:
    outbox = Outbox(30.0, most=100_000)

    def add() -> None:
        for _ in range(1_000):
            outbox.add(Message(ADJUST, ("a",), lambda: ()))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = 0
    while taken < 4_000:
        taken += len(outbox.take())
    for thread in threads:
        thread.join()
    assert (len(outbox), outbox.lost) == (0, 0)


# ---- what a user sees

SECRET = "hunter2-and-more"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://me:{SECRET}@127.0.0.1:6390/3", "redis://127.0.0.1:6390/3"),
        (f"valkeys://:{SECRET}@limits.internal", "valkeys://limits.internal"),
        (f"redis://127.0.0.1?password={SECRET}", "redis://127.0.0.1"),
        (f"unix://:{SECRET}@/run/valkey.sock?db=1", "unix:///run/valkey.sock"),
        (f"redis://:{SECRET}@[::1]:6390", "redis://[::1]:6390"),
    ],
)
def test_a_store_shows_no_password(url: str, shown: str) -> None:
    assert repr(ValkeyStore(url, replicas=3)) == f"ValkeyStore({shown!r}, replicas=3)"


@pytest.mark.parametrize(
    "url", [f"http://{SECRET}@host", SECRET, f"redis://:{SECRET}@host:port/0", f"redis://host/?socket_timeout={SECRET}"]
)
def test_an_unusable_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="url") as failure:
        ValkeyStore(url)
    assert SECRET not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__ or failure.value.__context__ is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replicas": 0}, "replicas must be at least 1, not 0"),
        ({"timeout": 0}, "timeout must be a positive number"),
        ({"lease": 0.5}, "lease must be at least 1 second"),
        ({"prefix": "{a}"}, "prefix must not contain braces"),
    ],
)
def test_arguments_that_cannot_be_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ValkeyStore("redis://127.0.0.1", **options)


def test_without_the_redis_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis", "redis.asyncio", "redis.asyncio.connection"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError, match=r"sharing limits needs an extra: pip install 'agentflow-engine\[valkey\]'"
    ):
        ValkeyStore("redis://127.0.0.1")


def test_a_store_is_made_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMITS_URL", f"redis://:{SECRET}@127.0.0.1:6390")
    store = from_settings({"url_env": "LIMITS_URL", "replicas": 4, "prefix": "shop", "timeout": 1, "lease": 60.0})
    assert repr(store) == "ValkeyStore('redis://127.0.0.1:6390', replicas=4)"
    assert store.keys("limit", "a", "levels")[0].startswith("shop:limit:{")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "one of url and url_env is needed"),
        ({"url_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
        ({"url": 5}, "url must be str, not int"),
        ({"url": "redis://a", "replica": 3}, "no setting is named 'replica', only url, url_env, prefix"),
        ({"url": "redis://a", "replicas": "3"}, "replicas must be int, not str"),
        ({"url": "redis://a", "replicas": True}, "replicas must be int, not bool"),
        ({"url": "redis://a", "replicas": 0}, "replicas must be at least 1"),
        ({"url": SECRET}, "url must begin with one of"),
    ],
)
def test_settings_that_are_wrong_are_a_configuration_error(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as failure:
        from_settings(settings)
    assert SECRET not in str(failure.value)


def test_the_entry_point_leads_to_it() -> None:
    """Its name in pyproject.toml, by which a configuration can name it without an import."""

    from importlib.metadata import EntryPoint

    from tests.conftest import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    value = project["entry-points"]["agentflow.integrations"]["valkey"]
    assert EntryPoint("valkey", value, "agentflow.integrations").load() is from_settings


def test_the_keys_of_one_thing_lie_in_one_slot_and_do_not_say_what_it_is() -> None:
    """Cluster mode hashes what stands in braces; a key may hold a credential's name, so it is hashed before."""
    store = ValkeyStore("redis://127.0.0.1")
    one = store.keys("limit", "openai/gpt-4o/key-of-team-a", "levels", "leases", "queue", "needs")
    other = store.keys("limit", "openai/gpt-4o/key-of-team-b", "levels")
    tags = {key[key.index("{") : key.index("}") + 1] for key in one}
    assert len(tags) == 1
    assert len(set(one)) == 4
    assert other[0] not in one
    assert not any("team" in key for key in one)
