"""The guards around every model call, as a newcomer has them, and as models.yml sets them."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.llm.conftest import Exchange, Serve
from tests.support.bench import Bench, Slow
from tests.support.sweep import sweep
from tests.support.told import Told

from agentflow.clock import VirtualClock
from agentflow.core.limits import Ledger, Limits
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.scope import Channel, Scope, current_scope
from agentflow.core.robustness.attempt import idempotency_key
from agentflow.core.robustness.circuit_breaker import BreakerState
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.timing import Timing
from agentflow.core.run import Run, current_run
from agentflow.errors import (
    BadRequestError,
    CircuitOpenError,
    LimiterError,
    LoadShedError,
    ModelTimeoutError,
    NodeError,
    OverloadedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Request, Response, StreamChunk, Usage
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

ONCE = RetryPolicy(max_attempts=1)
EVEN = RetryPolicy(max_attempts=3, base_delay=1.0, jitter="none")
ANEW = RetryPolicy(max_attempts=3, base_delay=1.0, jitter="none", after_first_chunk=True)
CUT = StreamInterruptedError("cut", partial="")


def bench_of(tmp_path: Path, *answers: ScriptedAnswer, yml: str = "") -> tuple[Bench, ScriptedProvider]:
    provider = ScriptedProvider(list(answers), name="toy")
    return Bench(tmp_path, {"toy": provider}, yml), provider


def always(tmp_path: Path, answer: ScriptedAnswer, yml: str = "") -> tuple[Bench, ScriptedProvider]:
    provider = ScriptedProvider(lambda _: answer, name="toy")
    return Bench(tmp_path, {"toy": provider}, yml), provider


def fail(bench: Bench, error: type[Exception], times: int = 1, model: str = "toy/m") -> None:
    async def main() -> None:
        for _ in range(times):
            with pytest.raises(error):
                await bench.ask(model).retry(ONCE).execute()

    bench.run(main())


async def left(bench: Bench, streaming: bool, seconds: float = 1.0) -> None:
    """Ask, and leave after some seconds."""
    task = asyncio.create_task(bench.ask().streaming(streaming).execute())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


# ---- what a newcomer gets ------------------------------------------------------------------------------------


def test_a_newcomers_call_has_every_guard(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path)
    titles = ["load shedder", "retry", "rate limiter", "circuit breaker"]
    described = bench.pipeline().describe()
    assert [title for title in titles if title in described] == titles


def test_a_newcomers_call_is_tried_three_times(tmp_path: Path) -> None:
    bench, provider = always(tmp_path, ServerError("down"))
    with pytest.raises(ServerError) as caught:
        bench.run(bench.ask().execute())
    assert len(provider.requests) == 3
    assert [note[:14] for note in caught.value.__notes__] == ["attempt 1 of 3", "attempt 2 of 3"]


def test_a_newcomers_call_waits_where_the_server_told_another_to(tmp_path: Path) -> None:
    """What one call is told by a 429, all others of the model obey."""
    bench, provider = bench_of(tmp_path, RateLimitError("slow down", retry_after=20.0), "one", "two")

    async def main() -> list[str]:
        first = asyncio.create_task(bench.ask().execute())
        await asyncio.sleep(1)
        second = asyncio.create_task(bench.ask().execute())
        await asyncio.sleep(18)
        assert len(provider.requests) == 1
        return [await first, await second]

    assert sorted(bench.run(main())) == ["one", "two"]
    assert bench.clock.monotonic() >= 20.0
    bench.assert_free()


def test_what_one_model_is_told_no_other_obeys(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path, RateLimitError("slow down", retry_after=20.0), "two")

    async def main() -> str:
        with pytest.raises(RateLimitError):
            await bench.ask("toy/a").retry(ONCE).execute()
        return await bench.ask("toy/b").execute()

    assert bench.run(main()) == "two"
    assert bench.clock.monotonic() == 0.0


def test_what_the_heads_of_answers_say_holds_a_newcomers_calls_back(tmp_path: Path) -> None:
    """`x-ratelimit-remaining-requests: 0`, and a reset in ten seconds."""
    bench, _ = always(tmp_path, "fine")

    async def main() -> None:
        await bench.ask().execute()
        observe = bench.settings["toy"].observe
        assert observe is not None
        observe("m", {"requests_remaining": 0, "requests_reset": 10.0})
        await bench.ask().execute()

    bench.run(main())
    assert bench.clock.monotonic() == pytest.approx(10.0, abs=0.5)


def test_a_newcomers_breaker_opens_after_ten_calls_of_which_half_failed_and_closes_again(tmp_path: Path) -> None:
    state: dict[str, ScriptedAnswer] = {"answer": "fine"}
    provider = ScriptedProvider(lambda _: state["answer"], name="toy")
    bench = Bench(tmp_path, {"toy": provider})

    async def main() -> None:
        for _ in range(5):
            await bench.ask().execute()
        state["answer"] = ServerError("down")
        for _ in range(5):
            with pytest.raises(ServerError):
                await bench.ask().retry(ONCE).execute()
        with pytest.raises(CircuitOpenError, match="toy/m") as caught:
            await bench.ask().execute()
        assert len(provider.requests) == 10  # nothing was sent
        wait = caught.value.retry_after
        assert wait is not None
        assert 0 < wait < 20
        state["answer"] = "fine again"
        await asyncio.sleep(wait + 0.01)
        assert await asyncio.gather(*[bench.ask().execute() for _ in range(3)]) == ["fine again"] * 3
        assert bench.breaker().state is BreakerState.CLOSED

    bench.run(main())
    bench.assert_free()


@pytest.mark.parametrize("error", [RateLimitError("x"), BadRequestError("x")])
def test_what_is_no_sign_of_illness_opens_no_breaker(tmp_path: Path, error: Exception) -> None:
    bench, _ = always(tmp_path, error)
    fail(bench, type(error), times=30)
    assert bench.breaker().counts().failures == 0


def test_a_newcomers_call_does_not_hang(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(10_000_000.0)})
    with pytest.raises(ModelTimeoutError):
        bench.run(bench.ask().execute())
    assert bench.clock.monotonic() == 600.0
    bench.assert_free()


def test_a_newcomers_calls_are_fewer_at_once_while_the_server_is_overloaded(tmp_path: Path) -> None:
    bench, _ = always(tmp_path, OverloadedError("529"))
    before = bench.shedder().limit

    async def main() -> None:
        for _ in range(3):
            with pytest.raises((OverloadedError, CircuitOpenError)):
                await bench.ask().retry(ONCE).execute()
            await asyncio.sleep(30)

    bench.run(main())
    assert bench.shedder().limit < before


# ---- models.yml: each field has an effect --------------------------------------------------------------------


def test_retry_fields(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy, retry: {max_attempts: 4, base_delay: 2, max_delay: 3, jitter: none}}}"
    bench, provider = always(tmp_path, ServerError("x"), yml)
    with pytest.raises(ServerError):
        bench.run(bench.ask("m").execute())
    assert len(provider.requests) == 4
    assert bench.clock.monotonic() == 2 + 3 + 3


def test_the_jitter_of_models_yml_is_drawn(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path, ServerError("x"), "ok", yml="defaults: {retry: {base_delay: 8, jitter: equal}}")
    bench.run(bench.ask().execute())
    assert 4 <= bench.clock.monotonic() < 8


def test_the_retry_budget_bounds_a_storm_and_false_takes_it_away(tmp_path: Path) -> None:
    budget = "defaults: {breaker: false, retry: {base_delay: 0, jitter: none, budget: {ratio: 0.1, minimum: 2}}}"
    bench, provider = always(tmp_path, ServerError("x"), budget)

    def storm(bench: Bench) -> None:
        async def main() -> None:
            for _ in range(50):
                with pytest.raises(ServerError):
                    await bench.ask().execute()

        bench.run(main())

    storm(bench)
    assert 50 < len(provider.requests) < 65
    bench, provider = always(
        tmp_path, ServerError("x"), "defaults: {breaker: false, retry: {base_delay: 0, budget: false}}"
    )
    storm(bench)
    assert len(provider.requests) == 150


def test_the_retry_budget_is_the_providers(tmp_path: Path) -> None:
    yml = "defaults: {breaker: false, retry: {base_delay: 0, jitter: none, budget: {ratio: 0, minimum: 1}}}"
    bench, provider = always(tmp_path, ServerError("x"), yml)

    async def main() -> None:
        for model in ("toy/a", "toy/b"):
            with pytest.raises(ServerError):
                await bench.ask(model).execute()

    bench.run(main())
    assert len(provider.requests) == 3


def test_breaker_fields(tmp_path: Path) -> None:
    fields = "window: 4, min_calls: 2, failure_rate: 1.0, open_for: 100, half_open_calls: 1"
    bench, _ = always(tmp_path, ServerError("x"), f"defaults: {{breaker: {{{fields}}}}}")
    fail(bench, ServerError, times=2)
    with pytest.raises(CircuitOpenError) as caught:
        bench.run(bench.ask().execute())
    assert 75 < (caught.value.retry_after or 0) < 125
    assert bench.breaker().summary


def test_a_breaker_of_models_yml_may_be_smaller_than_the_usual_number_of_calls(tmp_path: Path) -> None:
    bench, _ = always(tmp_path, ServerError("x"), "defaults: {breaker: {window: 3}}")
    fail(bench, ServerError, times=3)
    fail(bench, CircuitOpenError)


def test_a_breaker_may_count_by_time(tmp_path: Path) -> None:
    bench, _ = always(tmp_path, ServerError("x"), "defaults: {breaker: {window_seconds: 10, min_calls: 3}}")

    async def main() -> None:
        for _ in range(6):  # never three within ten seconds
            with pytest.raises(ServerError):
                await bench.ask().retry(ONCE).execute()
            await asyncio.sleep(6)

    bench.run(main())
    fail(bench, ServerError, times=2)
    fail(bench, CircuitOpenError)


def test_switched_off_guards_do_nothing(tmp_path: Path) -> None:
    bench, provider = always(tmp_path, ServerError("x"), "defaults: {breaker: false, shedder: false}")
    fail(bench, ServerError, times=40)
    assert len(provider.requests) == 40
    described = bench.pipeline().describe()
    assert "breaker" not in described
    assert "shedder" not in described


def test_shedder_fields_bound_calls_at_once_and_the_queue(tmp_path: Path) -> None:
    slow = Slow(1.0)
    yml = "defaults: {shedder: {algorithm: fixed, maximum: 2, max_queue: 1}}"
    bench = Bench(tmp_path, {"toy": slow}, yml)

    async def main() -> list[object]:
        return await asyncio.gather(*[bench.ask().execute() for _ in range(5)], return_exceptions=True)

    results = bench.run(main())
    assert slow.at_once == 2
    assert sum(isinstance(result, LoadShedError) for result in results) == 2
    bench.assert_free()


def test_priority_and_tenant_decide_who_waits(tmp_path: Path) -> None:
    order: list[str] = []

    async def answer(request: Request) -> str:
        order.append(request.prompt)
        await asyncio.sleep(1)
        return "ok"

    yml = "defaults: {shedder: {algorithm: fixed, maximum: 1}}"
    bench = Bench(tmp_path, {"toy": ScriptedProvider(answer)}, yml)

    async def main() -> None:
        calls = [bench.ask(prompt="first").execute()]
        calls += [bench.ask(prompt="a1").tenant("a").execute(), bench.ask(prompt="a2").tenant("a").execute()]
        calls += [bench.ask(prompt="b1").tenant("b").execute(), bench.ask(prompt="now").priority("critical").execute()]
        await asyncio.gather(*calls)

    bench.run(main())
    assert order == ["first", "now", "a1", "b1", "a2"]


def test_a_models_rate_limit_is_its_own_and_a_providers_is_for_all_its_models(tmp_path: Path) -> None:
    yml = (
        "providers: {toy: {rate_limit: {requests_per_minute: 60, concurrency: 1}}}\n"
        "models: {own: {provider: toy, rate_limit: {concurrency: 3}}, free: {provider: toy, rate_limit: null}}"
    )
    slow = Slow(10.0)
    bench = Bench(tmp_path, {"toy": slow}, yml)

    async def at_once(*models: str) -> int:
        slow.at_once = 0
        await asyncio.gather(*[bench.ask(model).execute() for model in models])
        return slow.at_once

    assert bench.run(at_once("toy/a", "toy/b", "toy/c")) == 1
    assert bench.run(at_once("own", "own", "own", "own")) == 3
    assert bench.run(at_once("free", "free", "free", "free", "free")) == 5


@pytest.mark.parametrize("field", ["tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute"])
def test_tokens_are_limited_by_what_answers_have_used(tmp_path: Path, field: str) -> None:
    """The first answer has used twice what there is, and the next call waits until that is paid."""
    yml = f"models: {{m: {{provider: toy, max_tokens: 10, rate_limit: {{{field}: 600}}}}}}"
    usage = Usage(1200, 1) if field != "output_tokens_per_minute" else Usage(1, 1200)
    bench, _ = always(tmp_path, Response("ok", "m", "toy", usage=usage), yml)

    async def main() -> None:
        await bench.ask("m").execute()
        assert bench.clock.monotonic() == 0
        await bench.ask("m").execute()

    bench.run(main())
    assert 60 < bench.clock.monotonic() < 65


def test_a_limiter_that_raises_is_not_waited_for(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy, rate_limit: {concurrency: 1, on_limit: raise}}}"
    bench = Bench(tmp_path, {"toy": Slow(10.0)}, yml)

    async def main() -> list[object]:
        return await asyncio.gather(*[bench.ask("m").execute() for _ in range(2)], return_exceptions=True)

    first, second = bench.run(main())
    assert (first, isinstance(second, LimiterError)) == ("done", True)
    assert bench.clock.monotonic() == 10.0


def test_a_call_that_would_wait_too_long_is_refused_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": ScriptedProvider(lambda _: "ok")})
    bench.limiter().drain(100.0)
    with pytest.raises(LimiterError) as caught:
        bench.run(bench.ask().timeout(5).execute())
    assert bench.clock.monotonic() == 0.0
    assert caught.value.retry_after == pytest.approx(100.0)


def test_aliases_of_a_model_share_its_guards_but_not_their_retries(tmp_path: Path) -> None:
    yml = "models: {a: {provider: toy, model_id: m}, b: {provider: toy, model_id: m, retry: {max_attempts: 2}}}"
    bench, provider = always(tmp_path, ServerError("x"), yml)
    for alias, attempts in (("a", 3), ("b", 2)):
        before = len(provider.requests)
        with pytest.raises(ServerError):
            bench.run(bench.ask(alias).execute())
        assert len(provider.requests) - before == attempts
    assert bench.breaker("a") is bench.breaker("b")
    assert bench.limiter("a") is bench.limiter("b")
    assert bench.shedder("a") is bench.shedder("b")


def test_two_credentials_and_two_endpoints_do_not_share_a_breaker(tmp_path: Path) -> None:
    yml = "providers: {other: {kind: toy}}"
    bench, _ = always(tmp_path, ServerError("x"), yml)
    fail(bench, ServerError, times=10)
    fail(bench, CircuitOpenError)
    fail(bench, ServerError, model="other/m")
    assert bench.run(bench.ask().embed(["text"]))
    endpoints = ["chat", "embeddings", "token count", "responses"]
    breakers = [bench.breaker(endpoint=endpoint) for endpoint in endpoints]
    assert len(set(map(id, breakers))) == len({breaker.name for breaker in breakers}) == len(endpoints)


def test_what_runs_in_this_process_has_neither_breaker_nor_shedder(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path)
    described = bench.pipeline("local/extractive").describe()
    assert "breaker" not in described
    assert "shedder" not in described


# ---- streams: held to the end --------------------------------------------------------------------------------


def test_a_stream_holds_its_place_its_slot_and_its_permit_until_its_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(1.0, gap=1.0, usage=Usage(3, 4))})

    async def main() -> None:
        async for _ in bench.ask().execute_streaming():
            assert (bench.shedder().in_flight, bench.limiter().in_use) == (1, 1)

    bench.run(main())
    bench.assert_free()
    assert bench.breaker().counts().calls == 1


async def by_closing(bench: Bench) -> None:
    async with bench.ask().execute_streaming() as stream:
        async for _ in stream:
            break


async def by_forgetting(bench: Bench) -> None:
    async for _ in bench.ask().execute_streaming():
        break
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0)


async def by_an_error(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError):
        async with bench.ask().execute_streaming() as stream:
            async for _ in stream:
                raise ZeroDivisionError


async def by_a_cancellation(bench: Bench) -> None:
    await left(bench, streaming=True, seconds=2.5)


@pytest.mark.parametrize("leave", [by_closing, by_forgetting, by_an_error, by_a_cancellation])
def test_a_stream_that_is_left_is_neither_success_nor_failure(tmp_path: Path, leave: Callable[[Bench], Any]) -> None:
    slow = Slow(1.0, gap=1.0)
    bench = Bench(tmp_path, {"toy": slow})
    bench.run(leave(bench))
    bench.assert_free()
    assert slow.open == 0
    counts = bench.breaker().counts()
    assert (counts.calls, counts.failures) == (0, 0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("yml", ["", "models: {m: {provider: toy, hedge: {after: 0.5}}}"])
def test_a_call_cancelled_anywhere_gives_everything_back(tmp_path: Path, streaming: bool, yml: str) -> None:
    benches: list[Bench] = []

    async def operation(clock: VirtualClock) -> None:
        slow = Slow(1.0, gap=1.0)
        bench = Bench(tmp_path, {"toy": slow}, f"defaults: {{shedder: {{algorithm: fixed, maximum: 2}}}}\n{yml}")
        bench.registry.clock = bench.registry.pipelines._clock = bench.clock = clock
        benches[:] = [bench]
        model = "m" if yml else "toy/m"
        others = [asyncio.create_task(bench.ask(model).execute()) for _ in range(2)]
        try:
            await bench.ask(model).streaming(streaming).execute()
        finally:
            results = await asyncio.gather(*others, return_exceptions=True)
            assert results in (["done"] * 2, [])  # they are served, whoever leaves

    def check() -> None:
        (bench,) = benches
        model = "m" if yml else "toy/m"
        bench.assert_free(model)
        assert bench.breaker(model).counts().failures == 0

    assert sweep(operation, check) >= 2


def test_a_watcher_that_fails_is_no_failure_of_the_model(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path, ["a ", "b"])

    async def sink(event: ExecutionEvent) -> None:
        if event.kind == "chunk":
            raise ServerError("the watcher's own")

    async def main() -> None:
        token = current_scope.set(Scope(Channel("run", bench.clock, Told(sink)), "flow/ask#1", "ask", 1))
        try:
            await bench.ask().retry(ANEW).streaming().execute()
        finally:
            current_scope.reset(token)

    with pytest.raises(ServerError, match="own"):
        bench.run(main())
    assert bench.breaker().counts().failures == 0
    bench.assert_free()


def test_a_stream_that_is_cut_is_a_failure_and_its_tokens_are_gone(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy, max_tokens: 100, rate_limit: {tokens_per_minute: 6000}}}"
    bench, _ = bench_of(tmp_path, ["Hel", CUT], yml=yml)
    before = bench.limiter("m").available().tokens

    async def main() -> None:
        with pytest.raises(StreamInterruptedError):
            await bench.ask("m").streaming().execute()

    bench.run(main())
    assert bench.breaker("m").counts().failures == 1
    after = bench.limiter("m").available().tokens
    assert before is not None
    assert after is not None
    assert after < before - 100
    bench.assert_free("m")


@pytest.mark.parametrize(("first", "slow"), [(5.0, True), (0.5, False)])
def test_a_slow_first_token_counts_as_slow_and_a_long_answer_does_not(tmp_path: Path, first: float, slow: bool) -> None:
    yml = "defaults: {breaker: {slow_call: 2, slow_rate: 0.5, min_calls: 2}}"
    bench = Bench(tmp_path, {"toy": Slow(first, gap=10.0)}, yml)

    async def main() -> None:
        for _ in range(2):
            await bench.ask().streaming().execute()

    bench.run(main())
    assert bench.breaker().state is (BreakerState.OPEN if slow else BreakerState.CLOSED)


def test_a_wait_for_a_connection_of_ours_makes_no_call_slow(tmp_path: Path) -> None:
    bumpy = Bumpy(1.0)
    bumpy.calls = 1  # past its failure
    bench = Bench(tmp_path, {"toy": bumpy}, "defaults: {breaker: {slow_call: 2}}")
    bench.run(bench.ask().execute())  # three seconds for a connection, one for the answer
    assert bench.clock.monotonic() == 4.0
    assert bench.breaker().counts().slow == 0


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("usage", "left"), [(Usage(10, 20), 5970), (None, None)])
def test_the_usage_settles_the_limiter_and_without_one_the_estimate_stays(
    tmp_path: Path, usage: Usage | None, left: int | None, streaming: bool
) -> None:
    yml = "models: {m: {provider: toy, max_tokens: 100, rate_limit: {tokens_per_minute: 6000}}}"
    bench = Bench(tmp_path, {"toy": Slow(0.0, usage=usage)}, yml)
    bench.run(bench.ask("m").streaming(streaming).execute())
    available = bench.limiter("m").available().tokens
    assert available is not None
    if left is None:
        assert 5890 <= available <= 5900
    else:
        assert available == left


# ---- streams that are begun anew -----------------------------------------------------------------------------


def test_a_stream_that_breaks_is_begun_anew_where_the_policy_says_so(tmp_path: Path) -> None:
    """The consumer sees the broken beginning, and then a chunk that says that it counts for nothing."""
    bench, provider = bench_of(tmp_path, ["Hel", CUT], ["Hello ", "there."])
    seen: list[tuple[str, bool]] = []

    async def main() -> Response:
        stream = bench.ask().retry(ANEW).execute_streaming()
        async for chunk in stream:
            seen.append((chunk.content, chunk.restart))
        return await stream.collect()

    reply = bench.run(main())
    assert seen[:3] == [("Hel", False), ("Hello ", True), ("there.", False)]
    assert reply.text == "Hello there."
    assert len(provider.requests) == 2
    assert bench.clock.monotonic() == 1.0
    counts = bench.breaker().counts()
    assert (counts.calls, counts.failures) == (2, 1)
    bench.assert_free()


@pytest.mark.parametrize("error", [ServerError("500"), ModelTimeoutError("idle", 60), CUT])
def test_whatever_breaks_it_and_however_often_no_answer_is_delivered_twice(tmp_path: Path, error: Exception) -> None:
    bench, provider = bench_of(tmp_path, ["a", error], ServerError("at once"), ["b", "c"])
    assert bench.run(bench.ask().retry(ANEW).streaming().execute()) == "bc"
    assert len(provider.requests) == 3
    bench, provider = bench_of(tmp_path, ["a", error], ["b", error], ["c", error], ["never"])
    with pytest.raises(type(error)) as caught:
        bench.run(bench.ask().retry(ANEW).streaming().execute())
    assert len(provider.requests) == 3
    assert [note[:14] for note in caught.value.__notes__] == ["attempt 1 of 3", "attempt 2 of 3"]


def test_where_the_breaker_has_opened_meanwhile_the_broken_stream_is_what_is_raised(tmp_path: Path) -> None:
    bench, provider = bench_of(tmp_path, ["a", CUT], ["never"], yml="defaults: {breaker: {window: 1}}")
    with pytest.raises(StreamInterruptedError) as caught:
        bench.run(bench.ask().retry(ANEW).streaming().execute())
    assert len(provider.requests) == 1
    assert caught.value.__notes__[-1].startswith("not tried again: toy/m: ")


@pytest.mark.parametrize("policy", [EVEN, None])
def test_without_that_word_a_broken_stream_stays_broken(tmp_path: Path, policy: RetryPolicy | None) -> None:
    bench, provider = bench_of(tmp_path, ["a", CUT], ["never"])
    ask = bench.ask() if policy is None else bench.ask().retry(policy)
    with pytest.raises(StreamInterruptedError):
        bench.run(ask.streaming().execute())
    assert len(provider.requests) == 1


def test_models_yml_may_say_it(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path, ["a", CUT], ["b"], yml="defaults: {retry: {after_first_chunk: true}}")
    assert bench.run(bench.ask().streaming().execute()) == "b"


def test_an_error_that_is_nobodys_is_not_begun_anew(tmp_path: Path) -> None:
    bench, provider = bench_of(tmp_path, ["a", ZeroDivisionError()], ["never"])
    with pytest.raises(ZeroDivisionError):
        bench.run(bench.ask().retry(ANEW).streaming().execute())
    assert len(provider.requests) == 1


def test_a_new_beginning_that_has_no_chunk_forgets_the_old_one(tmp_path: Path) -> None:
    class Silent(ScriptedProvider):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            self.requests.append(request)
            if len(self.requests) == 1:
                yield StreamChunk("Hel")
                raise CUT

    bench = Bench(tmp_path, {"toy": Silent([])})
    assert bench.run(bench.ask().retry(ANEW).streaming().execute()) == ""


def test_both_attempts_of_a_broken_stream_are_paid_for(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy, price: {input: 1000000, output: 1000000}}}"
    said = StreamChunk("Hel", usage=Usage(5, 1))
    bench, _ = bench_of(tmp_path, [said, CUT], ["Hello", StreamChunk(usage=Usage(5, 2))], yml=yml)
    ledger = Ledger(Limits())
    reply = bench.run(within(ledger, bench.ask("m").retry(ANEW).streaming()))
    assert (ledger.requests, ledger.tokens, ledger.dollars) == (1, 13, 13.0)
    assert (reply.usage, reply.cost) == (Usage(10, 3), 13.0)


def test_what_a_broken_attempt_did_not_say_is_estimated_in_ledgers_alone(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path, ["Hel", CUT], ["Hello", StreamChunk(usage=Usage(5, 2))])
    ledger = Ledger(Limits())
    reply = bench.run(within(ledger, bench.ask().retry(ANEW).streaming()))
    assert reply.usage == Usage(5, 2)
    assert ledger.tokens > 7


async def within(ledger: Ledger, ask: LLMClientBuilder[str]) -> Response:
    """Ask within a run that has this ledger."""
    token = current_run.set(Run("run", VirtualClock(), None, None, ledger))
    try:
        return await ask.execute_full()
    finally:
        current_run.reset(token)


def test_watchers_hear_of_the_new_beginning(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path, ["Hel", CUT], ["Hello"])
    bench.run_watched(bench.ask().retry(ANEW).streaming().execute)
    assert bench.kinds == ["model_start", "chunk", "retry", "chunk", "model_success"]
    assert bench.of("chunk") == [{"content": "Hel"}, {"content": "Hello", "restart": True}]
    assert bench.of("model_success")[0]["output_tokens"] == 1
    assert_adds_up(bench.of("model_success")[0]["timing"])


def test_partials_begin_anew(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path, ['{"a": "wro', CUT], ['{"a": "ri', 'ght"}'])

    async def main() -> list[object]:
        stream = bench.ask().retry(ANEW).output(dict[str, str]).execute_streaming()
        return [value async for value in stream.partials()]

    assert bench.run(main()) == [{"value": {"a": words}} for words in ("wro", "ri", "right")]


def test_a_tool_call_of_a_broken_beginning_is_not_run(tmp_path: Path) -> None:
    from agentflow.llm.messages import ToolCallDelta

    runs: list[str] = []

    def note(text: str) -> str:
        """Write it down."""
        runs.append(text)
        return "noted"

    broken = StreamChunk(tool_calls=(ToolCallDelta(0, "c1", "note", '{"text": "wrong"}'),))
    whole = StreamChunk(tool_calls=(ToolCallDelta(0, "c2", "note", '{"text": "right"}'),), finish_reason="tool_calls")
    bench, _ = bench_of(tmp_path, [broken, CUT], [whole], "done")
    reply = bench.run(bench.ask().retry(ANEW).tools(note).streaming().execute_full())
    assert (reply.text, runs) == ("done", ["right"])


def test_a_new_beginning_has_the_key_of_the_old_one(tmp_path: Path) -> None:
    keys: list[str | None] = []

    class Noting(ScriptedProvider):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            keys.append(idempotency_key())
            async for chunk in super().execute_streaming(request):
                yield chunk

    bench = Bench(tmp_path, {"toy": Noting([ServerError("x"), ["a", CUT], ["b"]])})
    assert bench.run(bench.ask().retry(ANEW).streaming().execute()) == "b"
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_stream_has_no_new_beginning_that_would_outlast_the_limit(tmp_path: Path) -> None:
    bench, provider = bench_of(tmp_path, ["a", CUT], ["never"])
    with pytest.raises(StreamInterruptedError) as caught:
        bench.run(bench.ask().retry(ANEW).timeout(0.5).streaming().execute())
    assert len(provider.requests) == 1
    assert "outlast" in caught.value.__notes__[-1]


def test_a_hedged_stream_is_begun_anew_within_its_attempts(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy, hedge: {after: 5}}}"
    provider = ScriptedProvider(lambda _: ["a", CUT], name="toy")
    bench = Bench(tmp_path, {"toy": provider}, yml)
    with pytest.raises(StreamInterruptedError):
        bench.run(bench.ask("m").retry(ANEW).streaming().execute())
    assert len(provider.requests) == 3
    bench.assert_free("m")


@pytest.mark.parametrize(
    "said", ["", "hedge: {after: 0.5}", "hedge: {after: 0.5}, rate_limit: {concurrency: 1}", "fallback: [two/m]"]
)
def test_a_stream_that_is_begun_anew_and_cancelled_anywhere_gives_everything_back(tmp_path: Path, said: str) -> None:
    class Breaking(Slow):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            await self._wait()
            try:
                yield StreamChunk("a")
                await asyncio.sleep(1)
                if self.calls < 3:
                    raise StreamInterruptedError("cut", partial="a")
                yield StreamChunk("b", finish_reason="stop", usage=Usage(1, 1))
            finally:
                self.open -= 1

    made: list[tuple[Bench, Breaking]] = []

    async def operation(clock: VirtualClock) -> None:
        breaking = Breaking(1.0)
        bench = Bench(tmp_path, {"toy": breaking, "two": Slow(1.0)}, f"models: {{m: {{provider: toy, {said}}}}}")
        bench.registry.clock = bench.registry.pipelines._clock = bench.clock = clock
        made[:] = [(bench, breaking)]
        assert await bench.ask("m").retry(ANEW).streaming().execute() == "ab"

    def check() -> None:
        ((bench, breaking),) = made
        bench.assert_free("m")
        assert breaking.open == 0

    assert sweep(operation, check) >= 7


# ---- one owner of retries ------------------------------------------------------------------------------------


def test_a_node_around_a_call_does_not_multiply_its_attempts(tmp_path: Path) -> None:
    from agentflow import AsyncFlow, LLMNode

    for node_retry, builder_retry, expected in (
        (RetryPolicy(max_attempts=5, base_delay=0), None, 5),  # the node's word is inherited
        (RetryPolicy(max_attempts=5, base_delay=0), RetryPolicy(max_attempts=2, base_delay=0), 2),  # the caller's wins
        (RetryPolicy(max_attempts=4, base_delay=0), ONCE, 4),  # who never repeats leaves it to the node
        (None, None, 3),
    ):
        bench, provider = always(tmp_path, ServerError("x"))
        ask = bench.ask() if builder_retry is None else bench.ask().retry(builder_retry)
        flow = AsyncFlow(LLMNode(ask, prompt="Hi", writes="said", retry=node_retry), clock=bench.clock)
        with pytest.raises(Exception, match="x"):
            bench.run(flow.run({}))
        assert len(provider.requests) == expected


# ---- time that is inherited ----------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_a_model_call_in_a_node_gives_up_a_wait_that_the_node_has_no_time_for(tmp_path: Path, streaming: bool) -> None:
    from agentflow import AsyncFlow, node

    bench, provider = bench_of(tmp_path, ServerError("first"), "never")

    async def inner() -> str:
        return await bench.ask().retry(RetryPolicy(base_delay=10, jitter="none")).streaming(streaming).execute()

    async def work() -> str:
        return await asyncio.create_task(inner())  # which the node's limit does not cancel by itself

    flow = AsyncFlow(node(writes="said", timeout=5)(work), clock=bench.clock)
    with pytest.raises(Exception, match="first") as caught:
        bench.run(flow.run({}))
    assert isinstance(caught.value.__cause__, ServerError)
    assert bench.clock.monotonic() == 0.0
    assert len(provider.requests) == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_what_a_tool_asks_of_a_model_has_no_more_time_than_the_question(tmp_path: Path, streaming: bool) -> None:
    """Both tools run at the same time, in tasks of their own; neither waits for what would come too late."""
    from agentflow.core.robustness.timeout import remaining
    from agentflow.llm.content import ToolCall

    found: list[float] = []
    call = Response((ToolCall("1", "ask"), ToolCall("2", "ask")), "m", "toy", finish_reason="tool_calls")
    bench, _ = bench_of(tmp_path, call, "done")
    bench.add("inner", ScriptedProvider(lambda _: ServerError("inner"), name="inner"))

    async def ask() -> str:
        """Ask another model."""
        found.append(remaining())
        return await bench.ask("inner/m").retry(RetryPolicy(base_delay=50, jitter="none")).execute()

    assert bench.run(bench.ask().timeout(20).tools(ask).streaming(streaming).execute()) == "done"
    assert found == [20.0, 20.0]
    assert bench.clock.monotonic() == 0.0


def test_a_tool_that_runs_in_a_thread_inherits_the_time_too(tmp_path: Path) -> None:
    from agentflow.core.robustness.timeout import remaining
    from agentflow.llm.content import ToolCall

    found: list[float] = []

    def look() -> str:
        """Look at the clock."""
        found.append(remaining())
        return "looked"

    call = Response((ToolCall("1", "look"),), "m", "toy", finish_reason="tool_calls")
    bench, _ = bench_of(tmp_path, call, "done")
    bench.run(bench.ask().timeout(20).tools(look).execute())
    assert found == [20.0]


# ---- hedges --------------------------------------------------------------------------------------------------

HEDGED = "models: {m: {provider: toy, hedge: {after: 2}, price: {input: 1000000, output: 1000000}}}"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_slow_call_is_raced_and_the_loser_is_cancelled_and_paid_for(tmp_path: Path, streaming: bool) -> None:
    slow = Slow(100.0, 1.0, usage=Usage(3, 4))
    bench = Bench(tmp_path, {"toy": slow}, HEDGED)
    ledger = Ledger(Limits())
    reply = bench.run_watched(lambda: within(ledger, bench.ask("m").streaming(streaming)))
    assert reply.text.split()[-1] in ("done", "2")
    assert bench.clock.monotonic() == 3.0
    assert (slow.calls, slow.cancelled, slow.open) == (2, 1, 0)
    bench.assert_free("m")
    assert ledger.requests == 1
    assert ledger.tokens > 7
    (success,) = bench.of("model_success")
    assert success["lost_requests"] == 1
    lost = success["lost_cost"]
    assert isinstance(lost, float)
    assert ledger.dollars == pytest.approx(7.0 + lost)
    assert bench.of("hedge") == [{"model": "m", "provider": "toy", "attempt": 1, "guard": "m chat", "number": 2}]
    counts = bench.breaker("m").counts()
    assert (counts.calls, counts.failures) == (1, 0)
    assert reply.timing is not None
    assert reply.timing.failed == 2.0  # the seconds that the loser had alone
    assert_adds_up(reply.timing)


def test_both_legs_of_a_hedge_take_a_slot(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy, hedge: {after: 2}, rate_limit: {concurrency: 1}}}"
    slow = Slow(5.0)
    bench = Bench(tmp_path, {"toy": slow}, yml)
    bench.run(bench.ask("m").execute())
    assert (slow.at_once, bench.clock.monotonic()) == (1, 5.0)
    bench.assert_free("m")


@pytest.mark.parametrize("streaming", [False, True])
def test_the_limit_of_time_bounds_both_legs_and_is_the_calls_own(tmp_path: Path, streaming: bool) -> None:
    slow = Slow(100.0)
    bench = Bench(tmp_path, {"toy": slow}, HEDGED)
    with pytest.raises(ModelTimeoutError, match=r"toy/m: .*longer than 7 s"):
        bench.run(bench.ask("m").timeout(7).streaming(streaming).execute())
    assert (bench.clock.monotonic(), slow.open) == (7.0, 0)
    bench.assert_free("m")


def test_a_hedged_call_that_fails_accounts_for_its_time(tmp_path: Path) -> None:
    bench, _ = always(tmp_path, ServerError("x"), HEDGED)
    with pytest.raises(ServerError):
        bench.run_watched(bench.ask("m").retry(EVEN).execute)
    timing = bench.of("model_error")[0]["timing"]
    assert_adds_up(timing)
    assert isinstance(timing, dict)
    assert (timing["backoff"], timing["attempts"]) == (3.0, 3)


# ---- where the time went -------------------------------------------------------------------------------------


def assert_adds_up(said: object) -> None:
    timing = Timing(**said) if isinstance(said, dict) else said
    assert isinstance(timing, Timing)
    parts = (timing.queue, timing.limiter, timing.pool, timing.backoff, timing.failed, timing.first_token or 0.0)
    assert sum(parts) + timing.generation == pytest.approx(timing.total, abs=0.001)


class Bumpy(Slow):
    """Fails after two seconds, and then answers; each time it waits three seconds for a connection first."""

    async def _wait(self) -> None:
        from agentflow.core.robustness.attempt import note_pool_wait

        await asyncio.sleep(3.0)
        note_pool_wait(3.0)
        if not self.calls:
            self.calls += 1
            await asyncio.sleep(2.0)
            raise ServerError("bump")
        await super()._wait()


@pytest.mark.parametrize("streaming", [False, True])
def test_every_second_of_a_call_is_accounted_for_once(tmp_path: Path, streaming: bool) -> None:
    yml = "models: {m: {provider: toy, shedder: {algorithm: fixed, maximum: 1}, timeout: 600}}"
    bench = Bench(tmp_path, {"toy": Bumpy(5.0, gap=4.0)}, yml)

    async def main() -> Response:
        ticket = bench.shedder("m").try_admit()
        assert ticket is not None
        task = asyncio.create_task(bench.ask("m").retry(EVEN).streaming(streaming).execute_full())
        await asyncio.sleep(7.0)
        ticket.drop()
        bench.limiter("m").drain(11.0)
        return await task

    reply = bench.run_watched(main)
    assert reply.timing == Timing(
        queue=7.0,
        limiter=11.0,
        pool=6.0,
        backoff=1.0,
        failed=2.0,
        first_token=5.0 if streaming else None,
        generation=8.0 if streaming else 5.0,
        total=bench.clock.monotonic(),
        attempts=2,
    )
    assert_adds_up(reply.timing)
    assert_adds_up(bench.of("model_success")[0]["timing"])


def test_a_call_that_failed_accounts_for_its_time_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": Slow(100.0)})
    with pytest.raises(ModelTimeoutError):
        bench.run_watched(bench.ask().timeout(5).execute)
    timing = bench.of("model_error")[0]["timing"]
    assert_adds_up(timing)
    assert isinstance(timing, dict)
    assert (timing["failed"], timing["generation"]) == (5.0, 0.0)


def test_a_refused_call_has_taken_no_time(tmp_path: Path) -> None:
    bench, _ = always(tmp_path, "never")
    bench.clock.advance(1_000_000.0)  # a machine that has been up for long
    bench.breaker().force_open()
    with pytest.raises(CircuitOpenError):
        bench.run_watched(bench.ask().execute)
    timing = bench.of("model_error")[0]["timing"]
    assert isinstance(timing, dict)
    assert (timing["total"], timing["generation"], timing["failed"]) == (0.0, 0.0, 0.0)


def test_rounds_add_their_accounts_up(tmp_path: Path) -> None:
    from agentflow.llm.content import ToolCall

    def wait() -> str:
        """Wait."""
        return "waited"

    call = Response((ToolCall("1", "wait"),), "m", "toy", finish_reason="tool_calls")
    bench, _ = bench_of(tmp_path, ServerError("x"), call, ServerError("y"), "done")
    reply = bench.run(bench.ask().retry(EVEN).tools(wait).execute_full())
    assert reply.timing is not None
    assert (reply.timing.backoff, reply.timing.attempts) == (2.0, 4)


# ---- loops and threads ---------------------------------------------------------------------------------------


def test_two_event_loops_in_two_threads_share_the_guards_of_a_registry(tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text("providers: {toy: {rate_limit: {concurrency: 3}}}")
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    lock, now, most = threading.Lock(), 0, 0

    async def answer(request: Request) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        await asyncio.sleep(0.002)
        with lock:
            now -= 1
        return "ok"

    registry.register_provider("toy", lambda _: ScriptedProvider(answer))
    answers: list[str] = []

    async def ask() -> None:
        builder = LLMClientBuilder(lambda: registry, Call(model="toy/m")).prompt("Hi")
        answers.extend(await asyncio.gather(*[builder.execute() for _ in range(40)]))

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == ["ok"] * 80
    assert most == 3


async def test_a_sync_call_inside_a_running_loop_passes_the_same_guards(tmp_path: Path) -> None:
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: ScriptedProvider(lambda _: "ok"))
    builder = LLMClientBuilder(lambda: registry, Call(model="toy/m")).prompt("Hi")
    assert builder.execute_sync() == "ok"
    assert await builder.execute() == "ok"
    breaker: Any = registry.pipeline(registry.describe("toy/m"))._breaker
    assert breaker.counts().calls in (0, 2)  # a window that is all good may not be kept


# ---- what is left behind -------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("policy", [ONCE, EVEN, ANEW])
def test_a_failed_call_leaves_no_cycle_that_keeps_its_request_alive(
    tmp_path: Path, streaming: bool, policy: RetryPolicy
) -> None:
    class Down(ServerError):
        pass

    class Raising(Slow):
        async def execute(self, request: Request) -> Response:
            raise Down("x")

        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk("a")
            raise Down("y")

    bench = Bench(tmp_path, {"toy": Raising(), "two": Raising()})
    found: list[weakref.ref[BaseException]] = []

    async def main() -> None:
        try:
            await bench.ask().retry(policy).fallback("two/m").streaming(streaming).execute()
        except Down as error:
            found.append(weakref.ref(error))

    gc.collect()
    gc.disable()
    try:
        bench.run(main())
        (ref,) = found
        assert ref() is None
    finally:
        gc.enable()


def test_names_that_users_make_up_do_not_fill_memory(tmp_path: Path) -> None:
    bench, _ = always(tmp_path, "ok")
    pipelines = bench.registry.pipelines
    config = bench.registry.describe("toy/m")
    for number in range(10_000):
        pipelines.get(f"toy/{number}", "toy", str(number), "chat", config.guarding)
    kept: list[Mapping[Any, Any]] = [pipelines._pipelines, pipelines._breakers, pipelines._limiters]
    assert all(len(each) <= 4_096 for each in (*kept, pipelines._shedders))


def test_made_up_names_do_not_get_around_the_limit_of_a_provider(tmp_path: Path) -> None:
    bench, _ = always(tmp_path, "ok", "providers: {toy: {rate_limit: {concurrency: 1}}}")
    pipelines = bench.registry.pipelines
    said = bench.registry.describe("toy/m").guarding
    limiter: Any = bench.pipeline()._limiter
    held = limiter.try_reserve()
    assert held is not None
    for number in range(5_000):
        pipelines.get(f"toy/{number}", "toy", str(number), "chat", said)
    other: Any = bench.pipeline("toy/other")._limiter
    assert other.try_reserve() is None


# ---- through real connections --------------------------------------------------------------------------------

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}
DOWN = {"error": {"message": "down"}}


def served(tmp_path: Path, url: str, more: str = "") -> LLMClientBuilder[str]:
    """Asks a model at that address, on the machine's own clock."""
    text = f"providers: {{srv: {{kind: openai, base_url: '{url}', api_key_env: KEY, allow_http: true, {more}}}}}"
    (tmp_path / "models.yml").write_text(text)
    registry = ModelRegistry.load(environ={"KEY": "sk-secret"}, cwd=tmp_path, home=tmp_path)
    return LLMClientBuilder(lambda: registry, Call(model="srv/m")).prompt("Hi")


async def test_the_idempotency_header_is_the_same_for_all_attempts_of_a_call_and_for_no_other(
    tmp_path: Path, serve: Serve
) -> None:
    async def handler(exchange: Exchange) -> None:
        attempt = len(server.requests)
        await exchange.respond(DOWN if attempt == 1 else ANSWER, 500 if attempt == 1 else 200)

    server = await serve(handler)
    ask = served(tmp_path, server.url, "idempotency_header: Idempotency-Key, retry: {base_delay: 0, jitter: none}")
    assert [await ask.execute(), await ask.execute()] == ["fine", "fine"]
    keys = [each.headers["idempotency-key"] for each in server.requests]
    assert len(keys) == 3
    assert keys[0] == keys[1] != keys[2]
    await ask.registry().aclose()


async def test_a_wait_for_a_connection_is_bounded_by_its_own_time_out_and_says_nothing_of_the_server(
    tmp_path: Path, serve: Serve
) -> None:
    over = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await over.wait()
        await exchange.respond(ANSWER)

    server = await serve(handler)
    more = "max_connections: 1, timeout: {pool: 0.05}, retry: {max_attempts: 1}"
    ask = served(tmp_path, server.url, more)
    first = asyncio.create_task(ask.execute_full())
    await asyncio.sleep(0.02)
    with pytest.raises(ModelTimeoutError, match="pool"):
        await ask.execute()
    over.set()
    assert (await first).text == "fine"
    breaker: Any = ask.registry().pipeline(ask.registry().describe("srv/m"))._breaker
    assert breaker.counts().failures == 0
    await ask.registry().aclose()


async def test_the_heads_of_answers_reach_the_limiter(tmp_path: Path, serve: Serve) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.respond(ANSWER, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="30s")

    server = await serve(handler)
    ask = served(tmp_path, server.url)
    assert await ask.execute() == "fine"
    with pytest.raises(LimiterError) as caught:
        await ask.timeout(5).execute()
    assert 25 < (caught.value.retry_after or 0) <= 30
    assert len(server.requests) == 1
    assert "sk-secret" not in repr((caught.value, caught.value.__dict__))
    await ask.registry().aclose()


async def test_a_sync_call_in_a_node_of_a_thread_has_no_more_time_than_the_node(tmp_path: Path, serve: Serve) -> None:
    from agentflow import AsyncFlow, node

    async def handler(exchange: Exchange) -> None:
        await exchange.respond(DOWN, 500)

    server = await serve(handler)
    ask = served(tmp_path, server.url, "retry: {base_delay: 60, jitter: none}")

    @node(writes="said", timeout=20)
    def work() -> str:
        return ask.execute_sync()

    with pytest.raises(NodeError) as caught:
        await AsyncFlow(work).run({})
    assert isinstance(caught.value.__cause__, ServerError)
    assert any("outlast" in note for note in caught.value.__cause__.__notes__)
    assert len(server.requests) == 1
    await ask.registry().aclose()
