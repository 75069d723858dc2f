"""One call, guarded and observed: attempts, waits, limits, events and cancellation."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pytest
from tests.support import bench as support

from agentflow.clock import VirtualClock
from agentflow.core.robustness.deadline import Deadline, is_bounded_by
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.timing import Timing
from agentflow.errors import (
    AuthenticationError,
    ConfigurationError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OperationTimeoutError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.messages import Message, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

T = TypeVar("T")

NO_JITTER = RetryPolicy(max_attempts=4, base_delay=1.0, max_delay=100.0, jitter="none")


class Bench(support.Bench):
    """A registry with one provider on a clock that jumps."""

    def __init__(self, provider: LLMProvider, tmp_path: Path) -> None:
        super().__init__(tmp_path, {"toy": provider})

    @property
    def builder(self) -> LLMClientBuilder:
        return self.ask().retry(NO_JITTER)


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., tuple[Bench, ScriptedProvider]]:
    def make(*answers: ScriptedAnswer) -> tuple[Bench, ScriptedProvider]:
        provider = ScriptedProvider(list(answers), name="toy")
        return Bench(provider, tmp_path), provider

    return make


Scripted = Callable[..., tuple[Bench, ScriptedProvider]]


class Hanging:
    """A provider that answers after `delay` seconds, and counts what it was asked and how its streams ended."""

    name = "toy"

    def __init__(self, delay: float, pieces: int = 3) -> None:
        self.delay = delay
        self.pieces = pieces
        self.calls = 0
        self.open = 0
        self.cancelled = 0

    async def execute(self, request: Request) -> Response:
        self.calls += 1
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Response("late", request.model, self.name)

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        self.calls += 1
        self.open += 1
        try:
            for number in range(self.pieces):
                await asyncio.sleep(self.delay)
                yield StreamChunk(f"{number} ")
        finally:
            self.open -= 1

    async def aclose(self) -> None: ...


async def read(builder: LLMClientBuilder, into: list[str]) -> None:
    async for chunk in builder.execute_streaming():
        into.append(chunk.content)


async def contents(builder: LLMClientBuilder) -> list[str]:
    found: list[str] = []
    await read(builder, found)
    return found


# ---- attempts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_a_retryable_error_is_tried_again_after_the_back_off(scripted: Scripted, streaming: bool) -> None:
    bench, provider = scripted(ServerError("one"), OverloadedError("two"), ModelConnectionError("three"), "done")
    assert bench.run(bench.builder.streaming(streaming).execute()) == "done"
    assert len(provider.requests) == 4
    assert bench.clock.monotonic() == pytest.approx(1 + 2 + 4)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("error", [AuthenticationError("no"), QuotaExceededError("no money"), ModelError("other")])
def test_an_error_that_waiting_does_not_mend_is_raised_at_once(
    scripted: Scripted, error: ModelError, streaming: bool
) -> None:
    bench, provider = scripted(error, "never")
    with pytest.raises(type(error)) as caught:
        bench.run(bench.builder.streaming(streaming).execute())
    assert caught.value is error
    assert len(provider.requests) == 1


def test_the_last_error_is_raised_when_the_attempts_are_used_up(scripted: Scripted) -> None:
    bench, provider = scripted(*[ServerError(str(n)) for n in range(9)])
    with pytest.raises(ServerError, match="3"):
        bench.run(bench.builder.execute())
    assert len(provider.requests) == 4


def test_one_attempt_means_no_retry(scripted: Scripted) -> None:
    bench, provider = scripted(ServerError("once"), "never")
    with pytest.raises(ServerError):
        bench.run(bench.builder.retry(RetryPolicy(max_attempts=1)).execute())
    assert len(provider.requests) == 1


@pytest.mark.parametrize(("retry_after", "waited"), [(0.25, 1.0), (20.0, 20.0)])
def test_retry_after_is_a_floor_under_the_back_off(scripted: Scripted, retry_after: float, waited: float) -> None:
    bench, _ = scripted(RateLimitError("slow down", retry_after=retry_after), "done")
    bench.run(bench.builder.execute())
    assert bench.clock.monotonic() == pytest.approx(waited)


def test_full_jitter_draws_from_the_clocks_own_chance(tmp_path: Path) -> None:
    policy = RetryPolicy(max_attempts=5, base_delay=1.0)

    def waited() -> float:
        errors: list[ScriptedAnswer] = [ServerError("x")] * 4
        bench = Bench(ScriptedProvider([*errors, "done"]), tmp_path)
        bench.run(bench.builder.retry(policy).execute())
        return bench.clock.monotonic()

    assert waited() == waited()
    assert 0 < waited() < 1 + 2 + 4 + 8


def test_an_error_that_is_no_model_error_is_a_bug_and_not_repeated(tmp_path: Path) -> None:
    calls = []

    def broken(request: Request) -> str:
        calls.append(request)
        raise ZeroDivisionError

    bench = Bench(ScriptedProvider(broken), tmp_path)
    with pytest.raises(ZeroDivisionError):
        bench.run(bench.builder.execute())
    assert len(calls) == 1


def test_the_policy_of_models_yml_holds_where_the_caller_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text(
        "providers: {toy: {retry: {jitter: none}}}\n"
        "models: {m: {provider: toy, retry: {max_attempts: 2, base_delay: 5}}}"
    )
    provider = ScriptedProvider([ServerError("x")] * 9)
    bench = Bench(provider, tmp_path)
    with pytest.raises(ServerError):
        bench.run(LLMClientBuilder(lambda: bench.registry, Call(model="m")).prompt("Hi").execute())
    assert len(provider.requests) == 2
    assert bench.clock.monotonic() == 5


# ---- streams -------------------------------------------------------------------------------------------------


def test_a_stream_is_not_tried_again_once_a_chunk_was_delivered(scripted: Scripted) -> None:
    bench, provider = scripted(["one ", ServerError("midway")], "never")

    seen: list[str] = []
    with pytest.raises(ServerError, match="midway"):
        bench.run(read(bench.builder, seen))
    assert seen == ["one "]
    assert len(provider.requests) == 1


def test_a_stream_that_fails_before_its_first_chunk_starts_again_unseen(scripted: Scripted) -> None:
    bench, provider = scripted(ServerError("at once"), ["one ", "two"])
    assert bench.run(contents(bench.builder))[:2] == ["one ", "two"]
    assert len(provider.requests) == 2


def test_an_interrupted_stream_keeps_its_own_error(scripted: Scripted) -> None:
    bench, _ = scripted(["one ", StreamInterruptedError("cut", partial="one ")])
    with pytest.raises(StreamInterruptedError, match="cut") as caught:
        bench.run(bench.builder.streaming().execute())
    assert caught.value.partial == "one "


def test_nothing_is_sent_before_the_first_chunk_is_asked_for(scripted: Scripted) -> None:
    bench, provider = scripted("never")

    async def main() -> None:
        async with bench.builder.execute_streaming():
            await asyncio.sleep(1)

    bench.run(main())
    assert not provider.requests


def test_leaving_a_stream_early_frees_the_providers(tmp_path: Path) -> None:
    provider = Hanging(1.0)
    bench = Bench(provider, tmp_path)

    async def main() -> int:
        async with bench.builder.execute_streaming() as stream:
            async for _ in stream:
                break
        return provider.open

    assert bench.run(main()) == 0
    assert provider.calls == 1


def test_a_wrong_name_is_an_error_before_the_stream_begins(scripted: Scripted) -> None:
    bench, _ = scripted()
    with pytest.raises(ConfigurationError, match="unknown model"):
        LLMClientBuilder(lambda: bench.registry, Call(model="nonsense")).prompt("Hi").execute_streaming()


def test_a_model_that_the_provider_does_not_know_is_looked_for_where_it_was_asked(scripted: Scripted) -> None:
    """The same id at another provider is no help."""
    bench, _ = scripted(NotFoundError("no such model"))
    bench.registry.register_model("toy/maximal", provider="toy", model_id="maximal-1")
    with pytest.raises(NotFoundError, match=r"did you mean toy/maximal\?$") as caught:
        bench.run(LLMClientBuilder(lambda: bench.registry, Call(model="toy/maximl")).prompt("Hi").execute())
    assert caught.value.suggestions == ("toy/maximal",)


# ---- the total limit -----------------------------------------------------------------------------------------


def test_the_total_limit_ends_a_call_as_a_time_out(tmp_path: Path) -> None:
    provider = Hanging(100.0)
    bench = Bench(provider, tmp_path)
    with pytest.raises(ModelTimeoutError, match=r"toy/m: .*total took longer than 5 s") as caught:
        bench.run(bench.builder.timeout(5).execute())
    assert (caught.value.operation, caught.value.seconds, provider.cancelled) == ("total", 5, 1)
    assert bench.clock.monotonic() == 5
    assert provider.calls == 1


def test_the_total_limit_spans_attempts_and_waits(scripted: Scripted) -> None:
    """A wait that would outlast the limit is not begun: the error comes at once and is the provider's own."""
    bench, provider = scripted(*[ServerError(str(n)) for n in range(9)])
    with pytest.raises(ServerError, match="2"):
        bench.run(bench.builder.timeout(6).execute())
    assert len(provider.requests) == 3
    assert bench.clock.monotonic() == 3


def test_a_stream_ends_at_the_total_limit_too(tmp_path: Path) -> None:
    provider = Hanging(2.0, pieces=100)
    bench = Bench(provider, tmp_path)
    seen: list[str] = []
    with pytest.raises(ModelTimeoutError):
        bench.run(read(bench.builder.timeout(5), seen))
    assert seen == ["0 ", "1 "]
    assert provider.open == 0
    assert bench.clock.monotonic() == 5


def test_the_limit_never_cancels_the_reader_between_two_chunks(tmp_path: Path) -> None:
    bench = Bench(Hanging(1.0), tmp_path)
    finished = []

    async def main() -> None:
        async for _ in bench.builder.timeout(5).execute_streaming():
            await asyncio.sleep(10)
            finished.append("slept well")

    with pytest.raises(ModelTimeoutError):
        bench.run(main())
    assert finished == ["slept well"]


def test_the_request_carries_the_limit_for_the_provider(scripted: Scripted) -> None:
    bench, provider = scripted("a", "b")
    bench.run(bench.builder.execute())
    bench.run(bench.builder.timeout(7).execute())
    assert [request.timeout for request in provider.requests] == [600, 7]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_finished_call_leaves_no_timer_behind(scripted: Scripted, streaming: bool) -> None:
    """Ten thousand calls with a limit of ten minutes would else hold ten thousand timers."""
    bench, _ = scripted("done")

    async def main() -> list[object]:
        before = {id(thing) for thing in gc.get_objects() if type(thing) is Deadline}
        await bench.builder.timeout(600).streaming(streaming).execute()
        gc.collect()
        return [thing for thing in gc.get_objects() if type(thing) is Deadline and id(thing) not in before]

    assert bench.run(main()) == []


# ---- cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_the_callers_cancellation_passes_through_and_is_no_failure(tmp_path: Path, streaming: bool) -> None:
    provider = Hanging(100.0)
    bench = Bench(provider, tmp_path)

    async def main() -> bool:
        task = asyncio.ensure_future(bench.builder.streaming(streaming).execute())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert bench.run_watched(main)
    assert bench.kinds == ["model_start"]
    assert (provider.open, provider.calls) == (0, 1)


def test_a_cancellation_during_the_back_off_passes_through(scripted: Scripted) -> None:
    bench, provider = scripted(ServerError("x"), "never")

    async def main() -> bool:
        task = asyncio.ensure_future(bench.builder.execute())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert bench.run(main())
    assert len(provider.requests) == 1


def test_an_outer_time_out_stays_the_callers(tmp_path: Path) -> None:
    bench = Bench(Hanging(100.0), tmp_path)

    async def main() -> None:
        async with asyncio.timeout(3):
            await bench.builder.timeout(50).execute()

    with pytest.raises(TimeoutError) as caught:
        bench.run(main())
    assert not isinstance(caught.value, ModelTimeoutError)
    assert bench.clock.monotonic() == 3


def test_cancelled_and_late_at_the_same_moment_is_cancelled(tmp_path: Path) -> None:
    bench = Bench(Hanging(100.0), tmp_path)

    async def main() -> bool:
        task = asyncio.ensure_future(bench.builder.timeout(5).execute())
        asyncio.get_running_loop().call_at(5.0, task.cancel)
        await asyncio.wait([task])
        return task.cancelled()

    assert bench.run(main())


# ---- events --------------------------------------------------------------------------------------------------


def test_a_watched_call_tells_how_it_began_and_ended(scripted: Scripted) -> None:
    bench, _ = scripted(Response("Hello", "m-2026", "toy", usage=Usage(3, 5), finish_reason="stop", request_id="r1"))
    bench.run_watched(bench.builder.tenant("acme").execute)
    start, success = bench.events
    about = {"model": "toy/m", "provider": "toy", "model_id": "m", "tenant": "acme"}
    assert (start.kind, start.data) == ("model_start", {**about, "operation": "chat", "streaming": False})
    assert success.kind == "model_success"
    timing = success.data["timing"]
    assert success.data == {
        **about,
        "response_model": "m-2026",
        "input_tokens": 3,
        "output_tokens": 5,
        "finish_reason": "stop",
        "request_id": "r1",
        "cost": None,
        "timing": timing,
        "breakdown": {},
    }
    assert (success.duration, success.span, start.span) == (0.0, start.sequence, start.sequence)
    assert timing == asdict(Timing())
    assert (success.run_id, success.path, success.node) == ("run", "flow/ask#1", "ask")


@pytest.mark.parametrize("collect", [False, True])
def test_a_watched_stream_tells_every_piece_and_the_usage_at_its_end(scripted: Scripted, collect: bool) -> None:
    bench, _ = scripted(["one ", "two", StreamChunk(usage=Usage(1, 2), finish_reason="length")])
    make = bench.builder.streaming().execute if collect else lambda: contents(bench.builder)
    bench.run_watched(make)  # type: ignore[arg-type]  # str or list, whichever
    assert bench.kinds == ["model_start", "chunk", "chunk", "model_success"]
    assert [event.data["content"] for event in bench.events[1:3]] == ["one ", "two"]
    assert (bench.events[-1].data["output_tokens"], bench.events[-1].data["finish_reason"]) == (2, "length")


def test_a_retry_is_told_with_its_reason_and_wait(scripted: Scripted) -> None:
    bench, _ = scripted(RateLimitError("too fast", retry_after=9.0), "done")
    bench.run_watched(bench.builder.execute)
    assert bench.kinds == ["model_start", "retry", "model_success"]
    assert bench.events[1].data == {
        "model": "toy/m",
        "provider": "toy",
        "attempt": 1,
        "delay": 9.0,
        "error": "too fast",
        "error_type": "RateLimitError",
    }
    assert (bench.events[2].duration, bench.events[2].data["breakdown"]) == (9.0, {"backoff": 9.0})
    assert bench.events[2].data["timing"] == asdict(Timing(backoff=9.0, total=9.0, attempts=2))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_failure_is_told_once(scripted: Scripted, streaming: bool) -> None:
    bench, _ = scripted(AuthenticationError("bad key", provider="toy"))
    with pytest.raises(AuthenticationError):
        bench.run_watched(bench.builder.streaming(streaming).execute)
    assert bench.kinds == ["model_start", "model_error"]
    assert bench.events[1].data["error_type"] == "AuthenticationError"
    assert bench.events[1].data["error"] == "toy: bad key"


def test_a_stream_that_its_reader_leaves_has_neither_succeeded_nor_failed(scripted: Scripted) -> None:
    bench, _ = scripted(["one ", "two "])

    async def main() -> None:
        async with bench.builder.execute_streaming() as stream:
            await anext(aiter(stream))

    bench.run_watched(main)
    assert bench.kinds == ["model_start", "chunk"]


def test_an_unwatched_call_tells_nobody(scripted: Scripted) -> None:
    bench, _ = scripted("one")
    assert bench.run(bench.builder.streaming().execute()) == "one"
    assert bench.events == []


# ---- the request ---------------------------------------------------------------------------------------------


def test_the_callers_word_wins_over_models_yml(tmp_path: Path) -> None:
    provider = ScriptedProvider(lambda _: "ok")
    bench = Bench(provider, tmp_path)
    bench.registry.register_model(
        "set", provider="toy", model_id="m9", temperature=0.7, top_p=0.5, max_tokens=9, stop=["S"], seed=1,
        params={"a": 1, "b": 1}, timeout=50,
    )  # fmt: skip
    builder = LLMClientBuilder(lambda: bench.registry, Call(model="set")).prompt("Hi")
    bench.run(builder.execute())
    bench.run(
        builder.temperature(0).top_p(1).max_tokens(1).stop().seed(0).param("b", 2).param("c", None).timeout(1).execute()
    )
    quiet, loud = provider.requests
    assert quiet == Request(
        "m9", (Message("user", "Hi"),), 0.7, 0.5, 9, ("S",), 1, {"a": 1, "b": 1}, 50
    )  # fmt: skip
    assert loud == Request("m9", (Message("user", "Hi"),), 0.0, 1.0, 1, (), 0, {"a": 1, "b": 2, "c": None}, 1.0)


def test_without_a_model_the_default_one_answers(tmp_path: Path) -> None:
    bench = Bench(ScriptedProvider(["unused"]), tmp_path)
    builder = LLMClientBuilder(lambda: bench.registry, Call())
    text = "The moon pulls the sea. Tides follow the moon every day. The sun helps the moon a little. Fish do not care."
    answer = asyncio.run(builder.prompt(f"Summarise in 1 sentence:\n\n{text}").execute_full())
    assert (answer.provider, answer.model) == ("local", "extractive")
    assert answer.text in text


async def test_a_deadline_bounds_nothing_but_the_task_that_entered_it() -> None:
    """A task that is started inside outlives it, and a thread has a loop of its own: both need their own limits."""
    deadline = Deadline(5.0)
    now = asyncio.get_running_loop().time()

    async def bounded() -> bool:
        return is_bounded_by(now + 10_000)

    with deadline:
        assert await bounded()
        assert not await asyncio.create_task(bounded())
        assert not await asyncio.to_thread(lambda: asyncio.run(bounded()))
    deadline.close()
    with deadline:  # over, so it cancels nothing any more
        assert not await bounded()


def test_a_call_that_is_closed_under_a_deadline_ends_quietly() -> None:
    """As the end of an event loop does it: from outside, in another context."""
    deadlines: list[Deadline] = []

    async def wait() -> None:
        deadlines.append(Deadline(5.0))
        with deadlines[0]:
            await asyncio.Event().wait()

    async def main() -> None:
        waiting = wait()
        contextvars.copy_context().run(waiting.send, None)
        waiting.close()
        deadlines[0].close()

    asyncio.run(main())
    assert deadlines


def test_an_answer_that_is_whole_is_not_late(tmp_path: Path) -> None:
    """Usage and the last reason have come, and what the server still holds back is nobody's."""

    class Lingering(ScriptedProvider):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk("all", finish_reason="stop", usage=Usage(1, 1))
            await asyncio.sleep(1000)

    bench = Bench(Lingering([]), tmp_path)
    answer = bench.run(bench.builder.timeout(5.0).streaming().execute_full())
    assert (answer.text, answer.finish_reason, bench.clock.monotonic()) == ("all", "stop", 5.0)


@pytest.mark.parametrize("n", [1, 2])
def test_an_answer_that_lacks_its_usage_or_another_choice_is_late(tmp_path: Path, n: int) -> None:
    class Lingering(ScriptedProvider):
        async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
            yield StreamChunk("half", finish_reason="stop", usage=None if n == 1 else Usage(1, 1))
            await asyncio.sleep(1000)

    bench = Bench(Lingering([]), tmp_path)
    with pytest.raises(ModelTimeoutError):
        bench.run(bench.builder.n(n).timeout(5.0).streaming().execute_full())


async def test_what_runs_under_a_deadline_knows_whether_it_needs_one_of_its_own() -> None:
    """The nearer limit keeps the time; the other one would only cost a timer."""
    now = asyncio.get_running_loop().time()
    outer, inner = Deadline(5.0), Deadline(1.0)
    assert not is_bounded_by(now + 10)
    with outer:
        assert is_bounded_by(now + 10)
        assert not is_bounded_by(now + 1)
        with inner:
            assert is_bounded_by(now + 1)
        assert not is_bounded_by(now + 1)
    assert not is_bounded_by(now + 10)
    outer.close()
    inner.close()


def test_a_storm_of_deadlines_is_kept_by_one_timer() -> None:
    """Each ends in its time, whatever the others do."""
    clock = VirtualClock()
    late: list[float] = []

    async def wait(seconds: float) -> None:
        deadline = Deadline(seconds)
        with pytest.raises(OperationTimeoutError):
            with deadline:
                await asyncio.sleep(1000)
        late.append(clock.monotonic() - seconds)

    async def main() -> None:
        await asyncio.gather(*[wait(1 + number / 1000) for number in range(2000)])

    clock.run(main())
    assert len(late) == 2000
    assert max(late) < 0.05
