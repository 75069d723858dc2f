"""Many ask the same at once, and the model is asked once: whoever leaves, whoever stays, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from tests.support.costly import CENT, Costly, asked

from agentflow.clock import VirtualClock
from agentflow.errors import LimitExceededError, ModelTimeoutError, RateLimitError
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.messages import Request, Response, StreamChunk
from agentflow.llm.streaming.join import join
from agentflow.mcp.performance.caching import ResponseCache, SqliteStore


def cached(model: Costly, **options: Any) -> ResponseCache:
    return ResponseCache(model, **{"ttl": 60.0, **options})


def held() -> Costly:
    model = Costly()
    model.gate = asyncio.Event()
    return model


async def settled(condition: Callable[[], bool]) -> None:
    """Until it is so; the loop's turns that this takes are no time."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never became so")


async def started(cache: ResponseCache, model: Costly, count: int) -> list[asyncio.Task[Response]]:
    """So many who ask, and the first of them has reached the model."""
    tasks = [asyncio.create_task(cache.execute(asked())) for _ in range(count)]
    await settled(lambda: len(model.calls) == 1)
    return tasks


async def test_a_thousand_who_ask_at_once_make_one_call() -> None:
    """One pays, for all others it is a hit."""
    model = held()
    cache = cached(model)
    tasks = await started(cache, model, 1000)
    model.gate.set()  # type: ignore[union-attr]
    answers = await asyncio.gather(*tasks)
    assert len(model.calls) == 1
    assert {answer.text for answer in answers} == {"answer 1 to Hi"}
    assert sum(answer.cost or 0.0 for answer in answers) == CENT
    assert [answer.cache_hit for answer in answers].count(None) == 1
    found = cache.statistics()
    assert (found.joined, found.misses) == (999, {"absent": 1})
    assert found.saved == pytest.approx(999 * CENT)


async def test_others_do_not_wait_for_it() -> None:
    """Another question, another tenant, and what is not for the cache."""
    model = held()
    cache = cached(model)
    tasks = await started(cache, model, 2)
    with asking_as(Caller(tenant="b")):
        tasks.append(asyncio.create_task(cache.execute(asked())))
    tasks += [asyncio.create_task(cache.execute(each)) for each in (asked("Ho"), asked(temperature=1.0))]
    await settled(lambda: len(model.calls) == 4)
    model.gate.set()  # type: ignore[union-attr]
    await asyncio.gather(*tasks)
    assert len(model.calls) == 4


async def test_the_others_survive_the_first() -> None:
    """He is cancelled, and the call goes on; the cost is told to the next."""
    model = held()
    cache = cached(model)
    first, *others = await started(cache, model, 3)
    first.cancel()
    await settled(first.done)
    assert first.cancelled()
    model.gate.set()  # type: ignore[union-attr]
    answers = await asyncio.gather(*others)
    assert [answer.cost for answer in answers] == [CENT, 0.0]
    assert (len(model.calls), model.cancelled) == (1, 0)
    assert (await cache.execute(asked())).cache_hit == "exact"


async def test_when_the_last_one_leaves_the_call_is_given_up() -> None:
    """Whoever leaves last waits until it is, so that no connection is left behind; and the next one asks anew."""
    model = held()
    cache = cached(model)
    tasks = await started(cache, model, 3)
    for task in tasks:
        assert model.cancelled == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert model.cancelled == 1
    again = asyncio.create_task(cache.execute(asked()))
    await settled(lambda: len(model.calls) == 2)
    model.gate.set()  # type: ignore[union-attr]
    assert (await again).text == "answer 2 to Hi"


async def test_who_comes_when_it_is_given_up_asks_anew() -> None:
    """Even in the very turn of the loop in which the last one leaves."""
    model = held()
    cache = cached(model)
    (task,) = await started(cache, model, 1)
    task.cancel()
    again = asyncio.create_task(cache.execute(asked()))
    await settled(lambda: len(model.calls) == 2)
    model.gate.set()  # type: ignore[union-attr]
    assert (await again).text == "answer 2 to Hi"
    assert task.cancelled()


async def test_what_the_model_says_no_to_it_says_no_to_all() -> None:
    """Each gets an error of his own; asking a thousand times would not help."""
    model = held()
    model.fail = [RateLimitError("too fast", provider="lab")]
    cache = cached(model)
    tasks = await started(cache, model, 3)
    model.gate.set()  # type: ignore[union-attr]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, RateLimitError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    "trouble", [ModelTimeoutError("total", 1.0), LimitExceededError("requests", 1, 1)], ids=["time", "limit"]
)
async def test_what_is_the_first_ones_own_trouble_is_not_the_others(trouble: Exception) -> None:
    """His time or his limit is used up; theirs is not, so one of them asks for the rest."""
    model = held()
    model.fail = [trouble]
    cache = cached(model)
    first, *others = await started(cache, model, 4)
    model.gate.set()  # type: ignore[union-attr]
    with pytest.raises(type(trouble)):
        await first
    answers = await asyncio.gather(*others)
    assert {answer.text for answer in answers} == {"answer 2 to Hi"}
    assert len(model.calls) == 2


def test_who_waits_waits_no_longer_than_he_may() -> None:
    """His time is over before the answer is there. The one who asks goes on."""
    clock = VirtualClock()

    async def main() -> None:
        model = held()
        cache = cached(model, clock=clock)
        (first,) = await started(cache, model, 1)
        with pytest.raises(ModelTimeoutError):
            await cache.execute(asked(timeout=5.0))
        assert clock.monotonic() == pytest.approx(5.0)
        model.gate.set()  # type: ignore[union-attr]
        assert (await first).text == "answer 1 to Hi"

    clock.run(main())


async def test_an_answer_that_is_not_kept_still_serves_all_who_waited() -> None:
    """But nobody who comes later."""
    model = held()
    model.finish = "length"
    cache = cached(model)
    tasks = await started(cache, model, 3)
    model.gate.set()  # type: ignore[union-attr]
    assert {answer.text for answer in await asyncio.gather(*tasks)} == {"answer 1 to Hi"}
    await asyncio.sleep(0)
    assert (await cache.execute(asked())).text == "answer 2 to Hi"


async def test_closing_gives_up_what_nobody_waits_for_and_keeps_what_has_come(tmp_path: Any) -> None:
    model = Costly()
    store = SqliteStore(tmp_path / "cache.db")
    cache = cached(model, store=store)
    await cache.execute(asked())
    await cache.aclose()
    again = cached(Costly(), store=SqliteStore(tmp_path / "cache.db"))
    assert (await again.execute(asked())).cache_hit == "exact"
    await again.aclose()


def test_every_event_loop_has_its_own() -> None:
    """A future of one loop cannot be waited for in another."""
    model = Costly()
    cache = cached(model)
    assert asyncio.run(cache.execute(asked())).cache_hit is None
    assert asyncio.run(cache.execute(asked())).cache_hit == "exact"


# ---- streams -------------------------------------------------------------------------------------------------


async def read(cache: ResponseCache, prompt: str = "Hi") -> list[StreamChunk]:
    return [chunk async for chunk in cache.execute_streaming(asked(prompt))]


def whole(chunks: list[StreamChunk]) -> Response:
    return join(chunks, provider="lab", model="tiny-1")


async def test_streams_of_the_same_question_are_one_stream() -> None:
    """Who comes later gets what has come at once, and then what comes; who wants a whole answer gets that."""
    model = held()
    cache = cached(model)
    first = cache.execute_streaming(asked())
    assert (await anext(first)).content == "answer "
    second = cache.execute_streaming(asked())
    assert (await anext(second)).content == "answer "
    third = asyncio.create_task(cache.execute(asked()))
    await asyncio.sleep(0)
    model.gate.set()  # type: ignore[union-attr]
    ends = [[chunk async for chunk in stream] for stream in (first, second)]
    answers = [whole(chunks) for chunks in ends]
    assert [answer.text for answer in answers] == ["1 to Hi"] * 2
    assert [(answer.cost, answer.cache_hit) for answer in answers] == [(CENT, None), (0.0, "exact")]
    assert ((await third).text, (await third).cost, (await third).cache_hit) == ("answer 1 to Hi", 0.0, "exact")
    assert len(model.calls) == 1
    assert cache.statistics().joined == 2


async def test_a_stream_may_wait_for_a_whole_answer() -> None:
    model = held()
    cache = cached(model)
    (first,) = await started(cache, model, 1)
    second = asyncio.create_task(read(cache))
    await asyncio.sleep(0)
    model.gate.set()  # type: ignore[union-attr]
    assert (await first).cost == CENT
    answer = whole(await second)
    assert (answer.text, answer.cost, answer.cache_hit) == ("answer 1 to Hi", 0.0, "exact")


async def test_a_stream_goes_on_when_the_first_reader_leaves() -> None:
    model = held()
    cache = cached(model)
    first, second = cache.execute_streaming(asked()), cache.execute_streaming(asked())
    await anext(first)
    await anext(second)
    await first.aclose()
    model.gate.set()  # type: ignore[union-attr]
    answer = whole([chunk async for chunk in second])
    assert (answer.text, answer.cost, model.cancelled) == ("1 to Hi", CENT, 0)
    assert (await cache.execute(asked())).text == "answer 1 to Hi"


async def test_a_stream_that_fails_fails_for_all_and_is_not_kept() -> None:
    model = held()
    model.fail = [RateLimitError("too fast")]
    cache = cached(model)
    tasks = [asyncio.create_task(read(cache)) for _ in range(3)]
    await settled(lambda: len(model.calls) == 1)
    model.gate.set()  # type: ignore[union-attr]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, RateLimitError) for error in errors)
    assert cache.statistics().kept == 0
    assert whole(await read(cache)).text == "answer 2 to Hi"


async def test_a_stream_does_not_run_far_ahead_of_its_readers() -> None:
    """What nobody reads is not piled up without end."""
    sent = 0

    class Endless(Costly):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            nonlocal sent
            while True:
                sent += 1
                yield StreamChunk("x")

    stream = cached(Endless()).execute_streaming(asked())
    for _ in range(10):
        await anext(stream)
    for _ in range(100):
        await asyncio.sleep(0)
    assert sent < 5_000
    await stream.aclose()


async def test_readers_that_wait_do_not_wake_each_other() -> None:
    """Two who have read all there is wait in peace: a loop that is kept busy would never come to the next chunk."""
    model = held()
    cache = cached(model)
    tasks = [asyncio.create_task(read(cache)) for _ in range(3)]
    await settled(lambda: len(model.calls) == 1)
    (flight,) = cache._asking._flights._loops[asyncio.get_running_loop()].values()
    await settled(lambda: len(flight._bells) == 3)
    bells = list(flight._bells)
    for _ in range(20):
        await asyncio.sleep(0)
    assert flight._bells == bells
    model.gate.set()  # type: ignore[union-attr]
    assert {whole(chunks).text for chunks in await asyncio.gather(*tasks)} == {"answer 1 to Hi"}


async def test_who_leaves_last_is_gone_when_the_connection_is() -> None:
    """Giving it back takes a while, and whoever closes his client right afterwards must not be overtaken by it."""
    given_back: list[bool] = []

    class Slow(Costly):
        async def execute(self, request: Request) -> Response:
            self.calls.append(request)
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                given_back.append(True)
            raise AssertionError

    model = Slow()
    (task,) = await started(cached(model), model, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert given_back == [True]


async def test_an_answer_that_came_between_the_look_and_the_lease_is_found(tmp_path: Any) -> None:
    """Another process has answered, kept and given back its lease in just that moment."""
    model = Costly()
    other = cached(model, store=SqliteStore(tmp_path / "cache.db"))

    class Late(SqliteStore):
        async def claim(self, name: str, holder: str, seconds: float) -> bool:
            if not model.calls:
                await other.execute(asked())
                await other.aclose()
            return await super().claim(name, holder, seconds)

    cache = cached(model, store=Late(tmp_path / "cache.db"))
    answer = await cache.execute(asked())
    assert (answer.text, answer.cost, answer.cache_hit) == ("answer 1 to Hi", 0.0, "exact")
    assert len(model.calls) == 1
    assert (cache.statistics().hits, cache.statistics().misses) == (1, {})
    await cache.aclose()
