"""Models that answer in another's place: when, with what, within which time, and what the caller learns of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.bench import Bench, Slow

from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.timeout import limit
from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContextLengthError,
    LimitExceededError,
    ModelConnectionError,
    ModelTimeoutError,
    OperationTimeoutError,
    OverloadedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    UnknownModelError,
    UnsupportedError,
)
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.content import Image, ToolCall, ToolResult
from agentflow.llm.fallbacks import CONDITIONS, stands_in
from agentflow.llm.messages import Request, Response, StreamChunk, Usage
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

ONCE = RetryPolicy(max_attempts=1)
OSLO = ToolCall.parse("c1", "weather", '{"city": "Oslo"}')


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@dataclass
class Person:
    name: str


def scripted(name: str, *answers: ScriptedAnswer, schemas: bool = True) -> ScriptedProvider:
    return ScriptedProvider(list(answers), name=name, schemas=schemas)


def three(tmp_path: Path, one: ScriptedAnswer, two: ScriptedAnswer, three: ScriptedAnswer) -> Bench:
    providers = {"one": scripted("one", one), "two": scripted("two", two), "three": scripted("three", three)}
    return Bench(tmp_path, providers)


def asking(bench: Bench) -> LLMClientBuilder[str]:
    return bench.ask("one/m").retry(ONCE).fallback("two/m", "three/m")


# ---- who is asked, and when ----------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_stand_ins_are_asked_in_order_and_the_reply_says_who_answered(tmp_path: Path, streaming: bool) -> None:
    bench = three(tmp_path, ServerError("down"), OverloadedError("busy"), "Hello.")
    reply = bench.run(asking(bench).streaming(streaming).execute_full())
    assert (reply.text, reply.provider, reply.model) == ("Hello.", "three", "m")


@pytest.mark.parametrize("streaming", [False, True])
def test_where_all_fail_the_last_error_is_raised_with_the_others_as_notes(tmp_path: Path, streaming: bool) -> None:
    last = ServerError("third")
    bench = three(tmp_path, ServerError("first"), OverloadedError("second"), last)
    with pytest.raises(ServerError) as caught:
        bench.run(asking(bench).streaming(streaming).execute())
    assert caught.value is last
    assert last.__notes__ == [
        "one/m had failed before: ServerError: first",
        "two/m had failed before: OverloadedError: second",
    ]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("error", [BadRequestError("nonsense"), ValueError("a bug")])
def test_what_another_model_would_not_mend_is_raised_at_once(tmp_path: Path, error: Exception, streaming: bool) -> None:
    bench = three(tmp_path, error, "never", "never")
    with pytest.raises(type(error)) as caught:
        bench.run(asking(bench).streaming(streaming).execute())
    assert caught.value is error


def test_conditions_of_models_yml_choose_the_stand_in(tmp_path: Path) -> None:
    yml = (
        "providers: {one: {retry: {max_attempts: 1}}}\n"
        "models: {m: {provider: one, fallback: [{model: two/m, when: [rate_limit, overloaded]},"
        " {model: three/m, when: [context_length]}]}}"
    )
    for error, answer in ((RateLimitError("x"), "two"), (ContextLengthError("x"), "three")):
        providers = {"one": scripted("one", error), "two": scripted("two", "two"), "three": scripted("three", "three")}
        bench = Bench(tmp_path, providers, yml)
        assert bench.run(bench.ask("m").execute()) == answer
    bench = Bench(tmp_path, {**providers, "one": scripted("one", ServerError("down"))}, yml)
    with pytest.raises(ServerError):
        bench.run(bench.ask("m").execute())


def test_every_condition_of_models_yml_means_something() -> None:
    from typing import get_args

    from agentflow.llm.config.schema import Condition

    assert set(get_args(Condition)) == set(CONDITIONS)
    assert stands_in(("connection",), StreamInterruptedError("cut", partial=""))
    assert not stands_in(("timeout",), ServerError("down"))


def test_the_callers_list_wins_and_an_empty_one_takes_all_away(tmp_path: Path) -> None:
    yml = "models: {m: {provider: one, retry: {max_attempts: 1}, fallback: [two/m]}}"
    bench = Bench(tmp_path, {"one": scripted("one", *[ServerError("x")] * 3), "two": scripted("two", "two")}, yml)
    bench.add("three", scripted("three", "three"))
    assert bench.run(bench.ask("m").execute()) == "two"
    assert bench.run(bench.ask("m").fallback("three/m").execute()) == "three"
    with pytest.raises(ServerError):
        bench.run(bench.ask("m").fallback().execute())


def test_a_list_that_goes_in_circles_ends(tmp_path: Path) -> None:
    """Each model is asked once; the stand-ins of a stand-in are not its caller's."""
    yml = (
        "defaults: {retry: {max_attempts: 1}}\n"
        "models: {a: {provider: one, fallback: [b, a]}, b: {provider: two, fallback: [a, b]}}"
    )
    one = ScriptedProvider(lambda _: ServerError("a is down"), name="one")
    two = ScriptedProvider(lambda _: ServerError("b is down"), name="two")
    bench = Bench(tmp_path, {"one": one, "two": two}, yml)
    with pytest.raises(ServerError, match="b is down"):
        bench.run(bench.ask("a").execute())
    assert (len(one.requests), len(two.requests)) == (1, 1)


def test_a_model_that_stands_twice_in_a_list_is_asked_once(tmp_path: Path) -> None:
    two = ScriptedProvider(lambda _: OverloadedError("busy"), name="two")
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("down")), "two": two})
    with pytest.raises(OverloadedError):
        bench.run(bench.ask("one/m").retry(ONCE).fallback("two/m", "two/m").execute())
    assert len(two.requests) == 1


def test_an_open_breaker_hands_over_without_asking(tmp_path: Path) -> None:
    one = ScriptedProvider(lambda _: ServerError("down"), name="one")
    bench = Bench(tmp_path, {"one": one, "two": ScriptedProvider(lambda _: "two", name="two")})
    bench.breaker("one/m").force_open()
    assert bench.run(asking_two(bench).execute()) == "two"
    assert not one.requests


def asking_two(bench: Bench) -> LLMClientBuilder[str]:
    return bench.ask("one/m").retry(ONCE).fallback("two/m")


# ---- who cannot be asked -------------------------------------------------------------------------------------


def test_a_stand_in_that_nobody_knows_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    one = scripted("one", "never")
    bench = Bench(tmp_path, {"one": one}, "models: {m: {provider: one, fallback: [gpt-5o-mini-typo]}}")
    with pytest.raises(ConfigurationError, match=r"model 'm' has a stand-in under `fallback` that nobody knows"):
        bench.run(bench.ask("m").execute())
    with pytest.raises(UnknownModelError, match="nowhere/at-all"):
        bench.run(bench.ask("one/m").fallback("nowhere/at-all").execute())
    assert not one.requests
    assert any("gpt-5o-mini-typo" in problem for problem in bench.registry.problems())


def test_a_stand_in_without_a_key_is_passed_over_with_a_note(tmp_path: Path) -> None:
    yml = "providers: {locked: {kind: openai, base_url: 'https://x.example/v1', api_key_env: LOCKED_KEY}}"
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("down"), ServerError("down"))}, yml)
    bench.add("two", scripted("two", "two"))
    ask = bench.ask("one/m").retry(ONCE)
    assert bench.run(ask.fallback("locked/m", "two/m").execute()) == "two"
    with pytest.raises(ServerError, match="down") as caught:
        bench.run(ask.fallback("locked/m").execute())
    (note,) = caught.value.__notes__
    assert note.startswith("locked/m could not stand in: ")
    assert "LOCKED_KEY" in note


def test_a_stand_in_that_cannot_do_what_is_asked_is_passed_over_with_a_note(tmp_path: Path) -> None:
    yml = "models: {deaf: {provider: two, capabilities: []}}"
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("down")), "two": scripted("two", "never")}, yml)
    with pytest.raises(ServerError) as caught:
        bench.run(bench.ask("one/m").retry(ONCE).tools(weather).fallback("deaf").execute())
    assert "deaf could not stand in" in caught.value.__notes__[0]


def test_a_stand_in_whose_price_is_unknown_cannot_stand_in_under_a_limit_in_dollars(tmp_path: Path) -> None:
    yml = "models: {m: {provider: one, price: {input: 1.0}}}"
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("down")), "two": scripted("two", "never")}, yml)
    with pytest.raises(ServerError) as caught:
        bench.run(bench.ask("m").retry(ONCE).limits(dollars=1.0).fallback("two/m").execute())
    assert "two/m could not stand in: a limit in dollars needs a price" in caught.value.__notes__[0]


def test_a_key_stands_in_no_note_and_no_event(tmp_path: Path) -> None:
    secret = "sk-very-secret-123"
    yml = (
        "providers: {locked: {kind: openai, base_url: 'https://x.example/v1', api_key_env: LOCKED_KEY}}\n"
        "models: {deaf: {provider: locked, capabilities: []}}"
    )
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("down"))}, yml, environ={"LOCKED_KEY": secret})
    with pytest.raises(ServerError) as caught:
        bench.run_watched(bench.ask("one/m").tools(weather).retry(ONCE).fallback("deaf").execute)
    assert caught.value.__notes__
    assert secret not in repr((caught.value, getattr(caught.value, "__notes__", ()), bench.events))


# ---- time ----------------------------------------------------------------------------------------------------


def test_each_candidate_has_the_time_that_models_yml_gives_it(tmp_path: Path) -> None:
    yml = "models: {a: {provider: one, timeout: 5}, b: {provider: two, timeout: 20}}"
    bench = Bench(tmp_path, {"one": Slow(100.0), "two": Slow(15.0)}, yml)
    reply = bench.run(bench.ask("a").fallback("b").execute_full())
    assert (reply.text, bench.clock.monotonic()) == ("done", 20.0)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_stand_in_that_is_late_is_named_by_the_error(tmp_path: Path, streaming: bool) -> None:
    yml = "models: {a: {provider: one, timeout: 5}, b: {provider: two, model_id: big, timeout: 7}}"
    bench = Bench(tmp_path, {"one": Slow(100.0), "two": Slow(100.0)}, yml)
    with pytest.raises(ModelTimeoutError, match=r"two/big: .*longer than 7 s") as caught:
        bench.run(bench.ask("a").fallback("b").streaming(streaming).execute())
    assert (caught.value.provider, caught.value.model, bench.clock.monotonic()) == ("two", "big", 12.0)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_callers_own_time_bounds_all_candidates_together(tmp_path: Path, streaming: bool) -> None:
    slow = Slow(100.0)
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("down")), "two": slow})
    with pytest.raises(ModelTimeoutError, match="two/m"):
        bench.run(asking_two(bench).timeout(5).streaming(streaming).execute())
    assert (bench.clock.monotonic(), slow.open) == (5.0, 0)


def test_nobody_is_asked_when_the_callers_time_is_up(tmp_path: Path) -> None:
    two = scripted("two", "never")
    bench = Bench(tmp_path, {"one": Slow(100.0), "two": two})
    with pytest.raises(ModelTimeoutError, match="one/m"):
        bench.run_watched(asking_two(bench).timeout(5).execute)
    assert not two.requests
    assert "fallback" not in bench.kinds


def test_a_stand_in_has_no_more_time_than_what_is_around_leaves(tmp_path: Path) -> None:
    yml = "models: {a: {provider: one, timeout: 5}}"
    two = Slow(100.0)
    bench = Bench(tmp_path, {"one": Slow(100.0), "two": two}, yml)

    async def main() -> None:
        with suppress(OperationTimeoutError), limit(8.0, "article"):
            task = asyncio.create_task(bench.ask("a").fallback("two/m").execute())  # the limit does not cancel it
            await asyncio.wait([task])
        await asyncio.wait([task])
        await task

    with pytest.raises(ModelTimeoutError, match="two/m"):
        bench.run(main())
    assert bench.clock.monotonic() == pytest.approx(8.0)
    assert two.open == 0


# ---- streams -------------------------------------------------------------------------------------------------


def test_a_stream_changes_hands_only_before_its_first_chunk(tmp_path: Path) -> None:
    two = scripted("two", "never")
    bench = Bench(tmp_path, {"one": scripted("one", ["Hel", ModelConnectionError("cut")]), "two": two})
    seen: list[str] = []

    async def main() -> None:
        async for chunk in asking_two(bench).execute_streaming():
            seen.append(chunk.content)

    with pytest.raises(ModelConnectionError):
        bench.run(main())
    assert (seen, two.requests) == (["Hel"], [])


# ---- conversations -------------------------------------------------------------------------------------------


def calling(*calls: ToolCall, provider: str = "one") -> Response:
    return Response(calls, "m", provider, usage=Usage(1, 1), finish_reason="tool_calls")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_stand_in_goes_on_with_the_conversation_in_its_second_round(tmp_path: Path, streaming: bool) -> None:
    """It gets the call and the result of the first model, and is asked from then on."""
    one = scripted("one", calling(OSLO), ServerError("down"))
    two = scripted("two", calling(ToolCall.parse("c2", "weather", '{"city": "Rome"}'), provider="two"), "Both sunny.")
    bench = Bench(tmp_path, {"one": one, "two": two})
    reply = bench.run(asking_two(bench).tools(weather).streaming(streaming).execute_full())
    assert (reply.text, reply.provider) == ("Both sunny.", "two")
    assert [turn.role for turn in two.requests[0].messages] == ["user", "assistant", "tool"]
    found = [part for turn in two.requests[1].messages for part in turn.parts if isinstance(part, ToolResult)]
    assert [each.content for each in found] == ["sunny in Oslo", "sunny in Rome"]
    assert (len(one.requests), len(two.requests)) == (2, 2)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True), (False, False)])
def test_a_stand_in_is_asked_for_a_type_in_its_own_way(
    tmp_path: Path, first: bool, second: bool, streaming: bool
) -> None:
    """One takes a schema, the other answers through a tool, which is no tool of the first's request."""
    one = scripted("one", ServerError("down"), schemas=first)
    answer: ScriptedAnswer = '{"name": "Ada"}'
    if not second:
        answer = calling(ToolCall.parse("a", "Person", '{"name": "Ada"}'), provider="two")
    two = scripted("two", answer, schemas=second)
    bench = Bench(tmp_path, {"one": one, "two": two})
    person, reply = bench.run(asking_two(bench).output(Person).streaming(streaming).execute_both())
    assert person == Person("Ada")
    (asked,) = two.requests
    assert (asked.output is not None, [getattr(tool, "name", "") for tool in asked.tools]) == (
        second,
        [] if second else ["Person"],
    )
    assert reply.text == '{"name": "Ada"}'


def test_a_stand_in_answers_a_misfit_of_the_first(tmp_path: Path) -> None:
    one = scripted("one", '{"nom": "Ada"}', ServerError("down"))
    two = scripted("two", calling(ToolCall.parse("a", "Person", '{"name": "Ada"}'), provider="two"), schemas=False)
    bench = Bench(tmp_path, {"one": one, "two": two})
    assert bench.run(asking_two(bench).output(Person).execute()) == Person("Ada")
    assert [turn.role for turn in two.requests[0].messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("schemas", [False, True])
def test_a_tool_that_had_to_be_called_is_not_forced_on_a_stand_in_again(tmp_path: Path, schemas: bool) -> None:
    one = scripted("one", calling(OSLO), ServerError("down"))
    two = scripted("two", "Sunny.", schemas=schemas)
    bench = Bench(tmp_path, {"one": one, "two": two})
    bench.run(asking_two(bench).tools(weather).tool_choice("required").execute())
    assert one.requests[0].tool_choice == "required"
    assert two.requests[0].tool_choice == "auto"


def test_what_a_tool_returns_must_be_something_that_the_stand_in_takes(tmp_path: Path) -> None:
    """The check is the stand-in's own, not the first model's."""

    def look() -> Image:
        """Look."""
        return Image("https://example.org/a.png")

    yml = "models: {blind: {provider: two, capabilities: [tools]}}"
    call = ToolCall("c1", "look")
    two = scripted("two", calling(call, provider="two"), "never")
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("down")), "two": two}, yml)
    with pytest.raises(UnsupportedError, match="image"):
        bench.run(bench.ask("one/m").retry(ONCE).tools(look).fallback("blind").execute())
    assert len(two.requests) == 1


# ---- what it costs, and what is told -------------------------------------------------------------------------


def test_a_request_is_counted_once_whoever_answers_it(tmp_path: Path) -> None:
    bench = three(tmp_path, ServerError("x"), ServerError("x"), Response("ok", "m", "three", usage=Usage(2, 3)))
    assert bench.run(asking(bench).limits(requests=1).execute()) == "ok"


def test_limits_hold_for_all_candidates_together(tmp_path: Path) -> None:
    """The tool rounds of the first count for the stand-in, too."""
    one = scripted("one", calling(OSLO), ServerError("down"))
    two = scripted("two", calling(OSLO, provider="two"), "never")
    bench = Bench(tmp_path, {"one": one, "two": two})
    with pytest.raises(LimitExceededError, match="tool_rounds"):
        bench.run(asking_two(bench).tools(weather).limits(tool_rounds=1).execute())
    assert len(two.requests) == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_a_watcher_hears_who_failed_and_who_takes_over(tmp_path: Path, streaming: bool) -> None:
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("down")), "two": scripted("two", "yes")})
    bench.run_watched(asking_two(bench).streaming(streaming).execute)
    told = [kind for kind in bench.kinds if kind != "chunk"]
    assert told == ["model_start", "model_error", "fallback", "model_start", "model_success"]
    (fact,) = bench.of("fallback")
    assert fact == {"from": "one/m", "to": "two/m", "error": "down", "error_type": "ServerError"}
    assert [data["model"] for data in bench.of("model_start")] == ["one/m", "two/m"]
    assert bench.of("model_success")[0]["model"] == "two/m"


@pytest.mark.parametrize("streaming", [False, True])
def test_the_account_holds_the_time_of_all_who_were_asked(tmp_path: Path, streaming: bool) -> None:
    yml = "models: {a: {provider: one, timeout: 5}, b: {provider: two}}"
    bench = Bench(tmp_path, {"one": Slow(100.0), "two": Slow(2.0, gap=1.0)}, yml)
    reply = bench.run(bench.ask("a").fallback("b").streaming(streaming).execute_full())
    timing = reply.timing
    assert timing is not None
    assert (timing.failed, timing.attempts) == (5.0, 2)
    assert timing.total == pytest.approx(bench.clock.monotonic())
    assert timing.failed + (timing.first_token or 0.0) + timing.generation == pytest.approx(timing.total)


def test_a_stand_in_is_asked_after_a_wrong_key(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"one": scripted("one", AuthenticationError("no")), "two": scripted("two", "yes")})
    assert bench.run(asking_two(bench).execute()) == "yes"


def test_a_cancellation_hands_over_to_nobody(tmp_path: Path) -> None:
    two = scripted("two", "never")
    bench = Bench(tmp_path, {"one": Slow(100.0), "two": two})

    async def main() -> bool:
        task = asyncio.create_task(asking_two(bench).execute())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert bench.run(main())
    assert not two.requests


def test_a_stand_in_has_its_own_parameters_and_the_callers_words(tmp_path: Path) -> None:
    yml = "models: {a: {provider: one, temperature: 0.1}, b: {provider: two, temperature: 0.9, max_tokens: 7}}"
    two = scripted("two", "yes")
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("x")), "two": two}, yml)
    bench.run(bench.ask("a").retry(ONCE).fallback("b").seed(3).execute())
    asked: Request = two.requests[0]
    assert (asked.model, asked.temperature, asked.max_tokens, asked.seed) == ("b", 0.9, 7, 3)


def test_chunks_of_the_stand_in_come_alone(tmp_path: Path) -> None:
    two = scripted("two", ["a", StreamChunk("b")])
    bench = Bench(tmp_path, {"one": scripted("one", ServerError("x")), "two": two})
    reply = bench.run(asking_two(bench).streaming().execute_full())
    assert (reply.text, reply.provider) == ("ab", "two")
