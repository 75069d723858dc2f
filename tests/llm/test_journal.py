"""What a durable step keeps of the models and tools that it asks: nothing that was answered is asked twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.llm.conftest import Exchange, Serve
from tests.support.bench import Bench, Slow
from tests.support.memory_durability import MemoryDurability
from tests.support.memory_journal import MemoryJournal, step_of
from tests.support.span_rules import misfits

from agentflow import AsyncFlow, ExecutionEvent, SharedState, node
from agentflow.clock import SystemClock
from agentflow.core.durability import interrupt
from agentflow.core.durability.records import Record
from agentflow.core.durability.step import current_step
from agentflow.core.durability.values import decode, encode
from agentflow.core.limits import Ledger, Limits
from agentflow.core.observability import observe
from agentflow.core.parking import Parked
from agentflow.core.robustness.attempt import idempotency_key
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.run import Run, current_run
from agentflow.core.threads import call_in_thread
from agentflow.errors import (
    DocumentError,
    DurabilityError,
    LimitExceededError,
    ModelConnectionError,
    NodeError,
    SerializationError,
    ServerError,
    StreamInterruptedError,
    ToolError,
)
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.content import Image, Part, Raw, Reasoning, Text, ToolCall, ToolResult, content_of
from agentflow.llm.journal.fingerprint import call_print, request_print
from agentflow.llm.messages import (
    Alternative,
    EmbeddingRequest,
    Message,
    OutputFormat,
    PromptCache,
    Request,
    Response,
    StreamChunk,
    Thinking,
    TokenLogprob,
    Tool,
    Usage,
)
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

ONCE = RetryPolicy(max_attempts=1)
PNG = b"\x89PNG\r\n\x1a\n"
BOTH = pytest.mark.parametrize("streaming", [False, True])
OSLO = ToolCall.parse("c1", "weather", '{"city": "Oslo"}')
ROME = ToolCall.parse("c2", "weather", '{"city": "Rome"}')

Ask = Callable[..., tuple[LLMClientBuilder[str], ScriptedProvider]]


class Crash(BaseException):
    """The process dies here: nobody handles it."""


@dataclass
class Person:
    name: str
    age: int


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """A builder whose model gives these answers, or those of a function, and the provider that was asked."""

    def make(*answers: ScriptedAnswer, by: Any = None) -> tuple[LLMClientBuilder[str], ScriptedProvider]:
        provider = ScriptedProvider(list(answers) if by is None else by, name="toy")
        registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
        registry.register_provider("toy", lambda _: provider)
        registry.register_model("toy/m", provider="toy", model_id="m", price={"input": 1e6, "output": 2e6})
        return AgentFlow.model("toy/m", registry=registry).prompt("Hi").retry(ONCE), provider

    return make


def numbered() -> Callable[[Request], str]:
    """Answers no two questions alike."""
    calls = iter(range(1, 1000))
    return lambda request: f"{next(calls)}: {request.prompt}"


def calling(*calls: ToolCall, text: str = "") -> Response:
    said = (Text(text),) if text else ()
    return Response((*said, *calls), "m", "toy", usage=Usage(1, 1), finish_reason="tool_calls")


def dying_at(journal: MemoryJournal, save: int) -> None:
    """The process dies before that save, counted from 1, and keeps nothing afterwards."""
    saves = iter(range(1, 1000))

    async def before(record: Record) -> None:
        if next(saves) >= save:
            raise Crash

    journal.before = before


def alive(journal: MemoryJournal) -> MemoryJournal:
    """The same for the next process."""
    return MemoryJournal(journal.records())


@contextmanager
def run_with(ledger: Ledger) -> Iterator[None]:
    token = current_run.set(Run("run-1", SystemClock(), ledger=ledger))
    try:
        yield
    finally:
        current_run.reset(token)


# ---- an answer that is on record -----------------------------------------------------------------------------


@BOTH
async def test_a_question_that_was_answered_is_not_asked_again(ask: Ask, streaming: bool) -> None:
    """The reply is the one that was recorded, to the last field: cost, ids and timing as well."""
    model, provider = ask("Hello there.", "never said")
    journal, replies = MemoryJournal(), []
    for _ in range(3):
        with step_of(journal):
            replies.append(await model.streaming(streaming).execute_full())
    assert len(provider.requests) == 1
    assert replies[0] == replies[1] == replies[2]
    assert replies[0].cost == 5.0
    assert replies[0].timing is not None


async def test_outside_of_a_durable_step_every_question_is_asked(ask: Ask) -> None:
    model, provider = ask("one", "two")
    assert [await model.execute(), await model.execute()] == ["one", "two"]
    assert len(provider.requests) == 2


async def test_an_answer_that_was_streamed_serves_a_whole_one_and_the_other_way_round(ask: Ask) -> None:
    model, provider = ask("one", "two")
    journal = MemoryJournal()
    with step_of(journal):
        first = [await model.streaming().execute_full(), await model.execute_full()]
    with step_of(journal):
        second = [await model.execute_full(), await model.streaming().execute_full()]
    assert first == second
    assert len(provider.requests) == 2


async def test_the_record_says_what_it_has_cost(ask: Ask) -> None:
    model, _ = ask(ServerError("down"), Response("Hello", "m", "toy", usage=Usage(3, 4)))
    journal = MemoryJournal()
    retry = RetryPolicy(max_attempts=2, base_delay=0)
    with step_of(journal) as step:
        await model.retry(retry).execute()
        assert (step.cost, step.tokens, step.calls) == (11.0, 7, 1)
    [record] = journal.records()
    assert (record.kind, record.cost, record.tokens, record.attempts) == ("call", 11.0, 7, 2)
    assert record.id.startswith("flow/ask#1!call:")
    with step_of(journal) as step:
        await model.execute()
        assert (step.cost, step.tokens, step.calls) == (11.0, 7, 1)


async def test_what_nobody_has_counted_is_recorded_as_the_ledger_has_it(ask: Ask) -> None:
    """A provider that says nothing of tokens is charged by an estimate; a replay must not be dearer than that."""
    model, _ = ask(by=lambda _: Response("Hello", "m", "toy"))
    journal, ledger = MemoryJournal(), Ledger(Limits(dollars=1e9))
    with step_of(journal), run_with(ledger):
        assert (await model.execute_full()).cost is None
    [record] = journal.records()
    assert (record.cost, record.tokens) == (ledger.dollars, ledger.tokens)
    assert record.tokens > 0


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
opaque = st.sampled_from([{}, {"openai": {"id": "x"}}, {"google": {"signature": "abc", "list": [1, {"deep": None}]}}])


def parts() -> st.SearchStrategy[Part]:
    return st.one_of(
        st.builds(Text, words, opaque=opaque),
        st.builds(Reasoning, st.one_of(st.just(""), words), opaque=opaque),
        st.builds(lambda raw: ToolCall.parse("call-1", "f", raw), st.sampled_from(['{"a": 1}', '{"a": ', "", "{}"])),
        st.builds(ToolCall, st.just("call-2"), st.just("f"), st.just({"a": [1.5, {"b": None}]}), opaque=opaque),
        st.just(Image("https://example.org/cat.png")),
        st.just(Raw("anthropic", {"type": "server_tool_use", "id": "s1", "input": {"q": [True]}})),
    )


def responses() -> st.SearchStrategy[Response]:
    content = st.lists(parts(), max_size=4, unique_by=lambda part: getattr(part, "id", id(part))).map(content_of)
    other = st.builds(Alternative, content, finish_reason=st.just("stop"), logprobs=st.just((TokenLogprob("a", -1.0),)))
    return st.builds(
        Response,
        content,
        st.just("m-1"),
        st.just("toy"),
        usage=st.one_of(st.none(), st.just(Usage(3, 2, cached_tokens=1, reasoning_tokens=1))),
        finish_reason=st.sampled_from([None, "stop", "tool_calls", "content_filter"]),
        raw_finish_reason=st.sampled_from([None, "end_turn"]),
        request_id=st.just("r1"),
        cost=st.one_of(st.none(), st.floats(0, 1)),
        opaque=opaque,
        id=st.just("id-1"),
        service_tier=st.just("default"),
        logprobs=st.just((TokenLogprob("b", -2.0, (("c", -3.0),)),)),
        alternatives=st.lists(other, max_size=2).map(tuple),
    )


@settings(max_examples=40, deadline=None)
@given(responses(), st.booleans(), st.booleans())
def test_whatever_a_model_says_comes_back_as_it_was(response: Response, first: bool, then: bool) -> None:
    """What providers send that is not modelled, too; and streamed or whole, then as now."""
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), {"toy": ScriptedProvider([response])})
        journal = MemoryJournal()

        async def stretch(streaming: bool) -> Response:
            with step_of(journal):
                return await bench.ask().streaming(streaming).execute_full()

        assert bench.run(stretch(first)) == bench.run(stretch(then))


# ---- which question it is ------------------------------------------------------------------------------------


async def test_the_same_question_asked_twice_has_two_answers(ask: Ask) -> None:
    model, provider = ask(by=numbered())
    journal = MemoryJournal()
    said = []
    for _ in range(2):
        with step_of(journal):
            said.append([await model.execute(), await model.execute(), await model.execute()])
    assert said[0] == said[1] == ["1: Hi", "2: Hi", "3: Hi"]
    assert len(provider.requests) == 3


async def test_questions_asked_at_the_same_time_need_no_order(ask: Ask) -> None:
    model, provider = ask(by=numbered())
    journal, prompts = MemoryJournal(), ["a", "b", "c", "d"]
    with step_of(journal):
        first = await asyncio.gather(*(model.prompt(prompt).execute() for prompt in prompts))
    with step_of(journal):
        again = await asyncio.gather(*(model.prompt(prompt).execute() for prompt in reversed(prompts)))
    assert again == first[::-1]
    assert len(provider.requests) == 4


async def test_a_question_that_was_changed_is_asked_anew_and_the_others_are_not(ask: Ask) -> None:
    model, provider = ask(by=numbered())
    journal = MemoryJournal()
    with step_of(journal):
        for prompt in ("a", "b", "c"):
            await model.prompt(prompt).execute()
    with step_of(journal):
        said = [await model.prompt(prompt).execute() for prompt in ("a", "better b", "c")]
    assert said == ["1: a", "4: better b", "3: c"]
    assert len(provider.requests) == 4


async def test_another_step_has_its_own_answers(ask: Ask) -> None:
    model, provider = ask(by=numbered())
    journal = MemoryJournal()
    for path in ("flow/ask#1", "flow/ask#2", "flow/each#1/0"):
        with step_of(journal, path):
            await model.execute()
    assert len(provider.requests) == 3


QUESTION = Request(
    "m",
    (Message("system", "Be brief."), Message("user", (Text("Look:"), Image(PNG + b"1", media_type="image/png")))),
    temperature=0.5,
    params={"b": {"z": 1, "a": [1, 2]}, "a": None},
    tools=(Tool("weather", "The weather.", {"type": "object", "properties": {"b": {}, "a": {}}}),),
    output=OutputFormat("Person", {"type": "object"}),
)


@pytest.mark.parametrize(
    "other",
    [
        replace(QUESTION, model="m2"),
        replace(QUESTION, messages=QUESTION.messages[1:]),
        replace(QUESTION, messages=(*QUESTION.messages[:1], Message("user", (Text("Look:"), Image(PNG + b"2"))))),
        replace(QUESTION, temperature=0.6),
        replace(QUESTION, top_p=0.1),
        replace(QUESTION, top_k=3),
        replace(QUESTION, max_tokens=9),
        replace(QUESTION, stop=("x",)),
        replace(QUESTION, seed=1),
        replace(QUESTION, params={**QUESTION.params, "a": 1}),
        replace(QUESTION, tools=(replace(QUESTION.tools[0], description="Weather."),)),
        replace(QUESTION, tools=()),
        replace(QUESTION, tool_choice="none"),
        replace(QUESTION, parallel_tool_calls=False),
        replace(QUESTION, output=None),
        replace(QUESTION, output=OutputFormat("Person", {"type": "object", "properties": {}})),
        replace(QUESTION, thinking=Thinking("low")),
        replace(QUESTION, cache=PromptCache("1h")),
        replace(QUESTION, n=2),
        replace(QUESTION, logprobs=1),
    ],
)
def test_what_may_change_the_answer_makes_another_question(other: Request) -> None:
    assert request_print(other, "toy") != request_print(QUESTION, "toy")


def test_whom_it_is_asked_of_and_what_for_make_another_question() -> None:
    assert request_print(QUESTION, "toy") != request_print(QUESTION, "lab")
    assert request_print(EmbeddingRequest("m", ("a",)), "toy") != request_print(EmbeddingRequest("m", ("b",)), "toy")


def test_how_long_it_may_take_and_what_is_noted_about_it_make_none() -> None:
    other = replace(QUESTION, timeout=3.0, metadata={"trace": "1"})
    assert request_print(other, "toy") == request_print(QUESTION, "toy")
    assert request_print(EmbeddingRequest("m", ("a",), timeout=1.0), "t") == request_print(
        EmbeddingRequest("m", ("a",)), "t"
    )


def test_the_order_of_keys_makes_none() -> None:
    other = replace(
        QUESTION,
        params={"a": None, "b": {"a": [1, 2], "z": 1}},
        tools=(Tool("weather", "The weather.", {"properties": {"a": {}, "b": {}}, "type": "object"}),),
    )
    assert request_print(other, "toy") == request_print(QUESTION, "toy")
    one, two = ToolCall("1", "f", {"a": 1, "b": {"c": 2, "d": 3}}), ToolCall("1", "f", {"b": {"d": 3, "c": 2}, "a": 1})
    assert call_print(one, "x") == call_print(two, "x")


@pytest.mark.parametrize(
    "other",
    [
        ToolCall("2", "f", {"a": 1}),
        ToolCall("1", "g", {"a": 1}),
        ToolCall("1", "f", {"a": 2}),
        ToolCall.parse("1", "f", '{"a": '),
    ],
)
def test_what_tells_calls_of_tools_apart(other: ToolCall) -> None:
    call = ToolCall("1", "f", {"a": 1})
    assert call_print(other, "x") != call_print(call, "x")
    assert call_print(call, "x") != call_print(call, "y")


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """Neither the seed of hashes nor the addresses of objects are in it: what one process kept, another one finds."""
    program = (
        "from agentflow.llm.journal.fingerprint import request_print\n"
        "from agentflow.llm.messages import *\n"
        "print(request_print(Request('m', (Message('user', 'Hi'),), params={'b': {'x', 'y', 'z'}, 'a': 1}), 'toy'))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_a_fingerprint_fits_into_an_id() -> None:
    assert request_print(QUESTION, "toy").isalnum()
    with pytest.raises(SerializationError, match="JSON cannot hold what is asked"):
        request_print(replace(QUESTION, params={"odd": object()}), "toy")  # type: ignore[dict-item]


async def test_a_file_is_known_by_what_is_in_it(ask: Ask, tmp_path: Path) -> None:
    model, provider = ask(by=numbered())
    journal, cat = MemoryJournal(), tmp_path / "cat.png"

    async def look(content: bytes, at: Path = cat) -> str:
        at.write_bytes(content)
        with step_of(journal):
            return await model.prompt("Look", Image(at)).execute()

    assert await look(PNG + b"one") == "1: Look"
    (tmp_path / "elsewhere").mkdir()
    assert await look(PNG + b"one", tmp_path / "elsewhere" / "cat.png") == "1: Look"
    assert await look(PNG + b"two") == "2: Look"
    cat.unlink()
    with step_of(journal), pytest.raises(DocumentError):
        await model.prompt("Look", Image(cat)).execute()
    assert len(provider.requests) == 2


# ---- what is not kept ----------------------------------------------------------------------------------------


@BOTH
async def test_a_failure_is_asked_again(ask: Ask, streaming: bool) -> None:
    model, provider = ask(ServerError("down"), "Hello")
    journal = MemoryJournal()
    with step_of(journal), pytest.raises(ServerError):
        await model.streaming(streaming).execute()
    assert journal.records() == []
    with step_of(journal):
        assert await model.streaming(streaming).execute() == "Hello"
    assert len(provider.requests) == 2


async def test_a_stream_that_breaks_or_is_left_is_asked_again(ask: Ask) -> None:
    broken = ["one ", StreamInterruptedError("cut", partial="one ")]
    model, provider = ask(broken, "one two three", "one two three", "one two three")
    journal = MemoryJournal()
    with step_of(journal), pytest.raises(StreamInterruptedError):
        await model.execute_streaming().collect()
    with step_of(journal):
        async with model.execute_streaming() as stream:
            assert (await anext(stream)).content
    assert journal.records() == []
    with step_of(journal):
        assert await model.execute_streaming().text() == "one two three"
    with step_of(journal):
        assert await model.execute_streaming().text() == "one two three"
    assert len(provider.requests) == 3


async def test_a_stream_that_was_begun_anew_is_kept_without_what_broke(ask: Ask) -> None:
    broken = ["lost ", ModelConnectionError("cut")]
    model, provider = ask(broken, ["kept"])
    retry = RetryPolicy(max_attempts=2, base_delay=0, after_first_chunk=True)
    journal = MemoryJournal()
    with step_of(journal):
        first = await model.retry(retry).execute_streaming().collect()
    with step_of(journal):
        stream = model.retry(retry).execute_streaming()
        chunks = [chunk async for chunk in stream]
        assert await stream.collect() == first
    assert not any(chunk.restart or "lost" in chunk.content for chunk in chunks)
    assert first.text == "kept"
    assert len(provider.requests) == 2


async def test_what_is_answered_and_not_yet_kept_when_the_process_dies_is_asked_again(ask: Ask) -> None:
    model, _ = ask(by=numbered())
    journal = MemoryJournal()
    dying_at(journal, 2)
    with step_of(journal), pytest.raises(Crash):
        for prompt in ("a", "b", "c"):
            await model.prompt(prompt).execute()
    with step_of(alive(journal)):
        said = [await model.prompt(prompt).execute() for prompt in ("a", "b", "c")]
    assert said == ["1: a", "3: b", "4: c"]


def test_where_nothing_can_be_kept_the_call_fails_and_its_cost_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": ScriptedProvider([Response("Hi", "m", "toy", usage=Usage(1, 1), cost=0.5)])})
    journal = MemoryJournal()

    async def full(record: Record) -> None:
        raise DurabilityError("the disk is full")

    journal.before = full

    async def main() -> None:
        with step_of(journal):
            await bench.ask().execute()

    with pytest.raises(DurabilityError, match="disk is full"):
        bench.run_watched(main)
    assert [event["cost"] for event in bench.of("model_success")] == [0.5]
    assert "model_error" not in bench.kinds


@BOTH
async def test_an_answer_that_json_cannot_hold_is_an_error_that_names_the_record(ask: Ask, streaming: bool) -> None:
    model, _ = ask(Response("Hi", "m", "toy", opaque={"toy": {"odd": object()}}))  # type: ignore[dict-item]
    with step_of(MemoryJournal()), pytest.raises(SerializationError, match=r"flow/ask#1!call:.*JSON cannot hold"):
        await model.streaming(streaming).execute()


async def test_a_record_that_is_no_answer_is_an_error_that_names_it(ask: Ask) -> None:
    model, _ = ask("Hi")
    journal = MemoryJournal()
    with step_of(journal):
        await model.execute()
    [record] = journal.records()
    spoilt = MemoryJournal([Record(record.id, "call", '{"by": 3}', 0.0)])
    with step_of(spoilt), pytest.raises(SerializationError, match=rf"{record.id}.*no answer of a model"):
        await model.execute()


@BOTH
async def test_an_answer_is_kept_also_where_nobody_wants_it_any_more(ask: Ask, streaming: bool) -> None:
    """Cancelled while it is being saved, the question ends when it is."""
    model, provider = ask("Hello")
    journal, saving, go_on = MemoryJournal(), asyncio.Event(), asyncio.Event()

    async def slowly(record: Record) -> None:
        saving.set()
        await go_on.wait()

    journal.before = slowly
    with step_of(journal):
        task = asyncio.ensure_future(model.streaming(streaming).execute())
    await saving.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    with step_of(journal):
        assert await model.execute() == "Hello"
    assert len(provider.requests) == 1


async def test_a_cancellation_goes_on_where_saving_fails(ask: Ask) -> None:
    model, _ = ask("Hello")
    journal, saving, go_on = MemoryJournal(), asyncio.Event(), asyncio.Event()

    async def badly(record: Record) -> None:
        saving.set()
        await go_on.wait()
        raise DurabilityError("the disk is full")

    journal.before = badly
    with step_of(journal):
        task = asyncio.ensure_future(model.execute())
    await saving.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- streams and typed answers -------------------------------------------------------------------------------


async def test_a_stream_on_record_comes_in_few_chunks(ask: Ask) -> None:
    answer = Response((Reasoning("hm"), Text("one two three four five")), "m", "toy", usage=Usage(1, 2), id="x")
    model, _ = ask(answer)
    journal = MemoryJournal()
    with step_of(journal):
        stream = model.execute_streaming()
        first, reply = [chunk async for chunk in stream], await stream.collect()
    with step_of(journal):
        stream = model.execute_streaming()
        again, same = [chunk async for chunk in stream], await stream.collect()
    assert len(first) > 3
    assert [(chunk.reasoning, chunk.content) for chunk in again] == [
        ("hm", ""),
        ("", "one two three four five"),
        ("", ""),
    ]
    assert same == reply
    assert again[-1].cost == reply.cost == 5.0


async def test_a_typed_answer_grows_from_what_is_on_record(ask: Ask) -> None:
    model, provider = ask('{"name": "Ada", "age": 36}')
    journal, ends = MemoryJournal(), []
    for _ in range(2):
        with step_of(journal):
            stream = model.output(Person).execute_streaming()
            grown = [partial async for partial in stream.partials()]
            ends.append((grown[-1], await stream.value()))
    assert ends[0] == ends[1] == ({"name": "Ada", "age": 36}, Person("Ada", 36))
    assert len(provider.requests) == 1


@BOTH
def test_a_misfit_is_on_record_like_any_answer(tmp_path: Path, streaming: bool) -> None:
    """Asked again once, and told once."""
    provider = ScriptedProvider(["nobody", '{"name": "Ada", "age": 36}'])
    bench, journal = Bench(tmp_path, {"toy": provider}), MemoryJournal()

    async def main() -> Person:
        with step_of(journal):
            return await bench.ask().output(Person).streaming(streaming).execute()

    assert bench.run_watched(main) == bench.run_watched(main) == Person("Ada", 36)
    assert len(provider.requests) == 2
    assert bench.kinds.count("output_retry") == 1


# ---- who answered --------------------------------------------------------------------------------------------


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@BOTH
def test_a_stand_in_goes_on_where_it_was(tmp_path: Path, streaming: bool) -> None:
    """The process died after the tool that a stand-in asked for: the next request is the stand-in's, as it would have
    been, and the model that had failed is not asked again."""
    one = ScriptedProvider([ServerError("down")], name="one")
    two = ScriptedProvider([calling(OSLO), "It is sunny."], name="two")
    bench = Bench(tmp_path, {"one": one, "two": two, "three": ScriptedProvider([ServerError("busy")], name="three")})
    model = bench.ask("one/m").retry(ONCE).fallback("three/m", "two/m").tools(weather).streaming(streaming)
    journal = MemoryJournal()
    dying_at(journal, 3)

    async def main(journal: MemoryJournal) -> Response:
        with step_of(journal):
            return await model.execute_full()

    with pytest.raises(Crash):
        bench.run(main(journal))
    asked = two.requests[1]
    two._answers = ["It is sunny."]
    two.requests.clear()
    survivor = alive(journal)
    reply = bench.run(main(survivor))
    assert (len(one.requests), two.requests) == (1, [asked])
    assert (reply.text, reply.provider) == ("It is sunny.", "two")
    assert bench.run(main(survivor)) == reply
    assert len(two.requests) == 1


def test_an_answer_outlives_the_stand_in_that_gave_it(tmp_path: Path) -> None:
    providers = {"one": ScriptedProvider([ServerError("down")]), "two": ScriptedProvider(["Hello."])}
    bench, journal = Bench(tmp_path, providers), MemoryJournal()

    async def main(*stand_ins: str) -> Response:
        with step_of(journal):
            return await bench.ask("one/m").retry(ONCE).fallback(*stand_ins).execute_full()

    reply = bench.run(main("two/m"))
    assert bench.run(main()) == reply


def test_the_winner_of_a_race_is_on_record(tmp_path: Path) -> None:
    slow = Slow(30.0, 0.1, usage=Usage(1, 1))
    yml = "providers: {toy: {hedge: {after: 1}}}\nmodels: {m: {provider: toy, price: {input: 1e6, output: 1e6}}}"
    bench, journal = Bench(tmp_path, {"toy": slow}, yml), MemoryJournal()

    async def main() -> Response:
        with step_of(journal):
            return await bench.ask("m").execute_full()

    reply = bench.run(main())
    assert bench.run(main()) == reply
    assert slow.calls == 2
    assert [record.cost for record in journal.records()] == [reply.cost] == [2.0]


# ---- tools ---------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("save", range(1, 7))
async def test_a_question_with_tools_goes_on_in_the_middle(ask: Ask, streaming: bool, save: int) -> None:
    """Wherever it was cut, exactly what is missing is asked and called."""
    told: list[str] = []

    def answer(request: Request) -> ScriptedAnswer:
        results = [part for turn in request.messages for part in turn.parts if isinstance(part, ToolResult)]
        return (calling(OSLO, text="Let me see."), calling(ROME), "Sunny in both.")[len(results)]

    def looked(city: str) -> str:
        """The weather in a city."""
        told.append(city)
        return f"sunny in {city}"

    model, provider = ask(by=answer)
    from agentflow.llm.tools import function_tool

    asking = model.tools(function_tool(looked, name="weather")).streaming(streaming)
    undisturbed = MemoryJournal()
    with step_of(undisturbed):
        whole = await asking.execute_full()
    assert (len(provider.requests), told) == (3, ["Oslo", "Rome"])
    provider.requests.clear()
    told.clear()
    journal = MemoryJournal()
    dying_at(journal, save)
    with suppress(Crash), step_of(journal):
        await asking.execute_full()
    kept = len(journal.records())
    assert kept == min(save - 1, 5)
    provider.requests.clear()
    told.clear()
    with step_of(alive(journal)):
        reply = await asking.execute_full()
    assert (len(provider.requests), len(told)) == {
        0: (3, 2), 1: (2, 2), 2: (2, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0),
    }[kept]  # fmt: skip
    assert (reply.text, reply.turns, reply.usage, reply.cost) == (whole.text, whole.turns, whole.usage, whole.cost)


async def test_an_error_that_the_model_was_told_is_not_tried_again(ask: Ask) -> None:
    calls = []

    def fail() -> str:
        """Fail."""
        calls.append(1)
        raise OSError("no network")

    model, provider = ask(calling(ToolCall("1", "fail"), ToolCall("2", "nothing")), "I could not.")
    journal, replies = MemoryJournal(), []
    for _ in range(2):
        with step_of(journal):
            replies.append(await model.tools(fail).execute_full())
    assert replies[0] == replies[1]
    assert (len(calls), len(provider.requests)) == (1, 2)


async def test_an_error_that_is_raised_is_tried_again(ask: Ask) -> None:
    answers = iter([OSError("no network"), None])

    def fail() -> str:
        """Fail."""
        if (error := next(answers)) is not None:
            raise error
        return "fine"

    model, provider = ask(calling(ToolCall("1", "fail")), "Good.")
    journal = MemoryJournal()
    with step_of(journal), pytest.raises(ToolError):
        await model.tools(fail, on_error="raise").execute()
    with step_of(journal):
        assert await model.tools(fail, on_error="raise").execute() == "Good."
    assert len(provider.requests) == 2


@pytest.mark.parametrize("said", [True, False, "not on Sundays"])
async def test_a_person_who_has_decided_is_not_asked_again(ask: Ask, said: bool | str) -> None:
    asked: list[str] = []

    def approve(call: ToolCall) -> bool | str:
        asked.append(call.id)
        return said

    model, provider = ask(calling(OSLO), "Done.")
    journal, replies = MemoryJournal(), []
    for _ in range(2):
        with step_of(journal):
            replies.append(await model.tools(weather, approve=approve).execute_full())
    assert replies[0] == replies[1]
    assert asked == ["c1"]
    assert len(provider.requests) == 2


async def test_calls_of_the_same_id_in_different_questions_keep_their_results(ask: Ask) -> None:
    """Some servers call every call "call_0": a result belongs to the answer that asked for it."""
    turn = iter(range(100))

    def roll() -> int:
        """Roll a die."""
        return next(turn)

    def answer(request: Request) -> ScriptedAnswer:
        if request.messages[-1].role == "tool":
            [result] = request.messages[-1].parts
            assert isinstance(result, ToolResult)
            return f"{request.prompt} rolled {result.text}"
        return calling(ToolCall("call_0", "roll"))

    model, provider = ask(by=answer)
    journal, asking = MemoryJournal(), model.tools(roll)
    with step_of(journal):
        first = [await asking.prompt(who).execute() for who in ("Ada", "Bob")]
    with step_of(journal):
        again = [await asking.prompt(who).execute() for who in ("Bob", "Ada")]
    assert first == again[::-1] == ["Ada rolled 0", "Bob rolled 1"]
    assert len(provider.requests) == 4


async def test_files_that_a_tool_returns_are_kept_as_they_were(ask: Ask, tmp_path: Path) -> None:
    cat = tmp_path / "cat.png"

    def picture() -> Image:
        """A picture."""
        cat.write_bytes(PNG + b"1")
        return Image(cat)

    model, provider = ask(calling(ToolCall("1", "picture")), "A cat.")
    journal, replies = MemoryJournal(), []
    for _ in range(2):
        with step_of(journal):
            replies.append(await model.tools(picture).execute_full())
        cat.unlink(missing_ok=True)
    assert replies[0] == replies[1]
    assert len(provider.requests) == 2


async def test_what_a_tool_asks_of_models_serves_when_it_was_not_finished(ask: Ask) -> None:
    """The tool runs again, and its own question is found; once its result is there, neither is asked for."""
    model, provider = ask(by=lambda request: calling(ToolCall("1", "think")) if not _told(request) else "Done.")
    inner, thinker = ask(by=numbered())
    runs, journal = [], MemoryJournal()

    async def think() -> str:
        """Think."""
        runs.append(1)
        return await inner.prompt("deeply").execute()

    dying_at(journal, 3)  # the question, what the tool asked, and now the tool
    with step_of(journal), pytest.raises(Crash):
        await model.tools(think).execute()
    journal = alive(journal)
    for _ in range(2):
        with step_of(journal) as step:
            await model.tools(think).execute()
            assert (step.cost, step.tokens) == (11.0, 7)
    assert (len(runs), len(thinker.requests), len(provider.requests)) == (2, 1, 2)


def _told(request: Request) -> bool:
    return request.messages[-1].role == "tool"


async def test_what_a_tool_was_answered_is_not_taken_for_what_the_step_asks(ask: Ask) -> None:
    """Both ask the same: on a replay, when the tool is not run, the step still gets its own answer."""
    model, _ = ask(by=lambda request: "Done." if _told(request) else calling(ToolCall("1", "think")))
    inner, thinker = ask(by=numbered())

    async def think() -> str:
        """Think."""
        return await inner.prompt("deeply").execute()

    journal, said = MemoryJournal(), []
    for _ in range(2):
        with step_of(journal):
            await model.tools(think).execute()
            said.append(await inner.prompt("deeply").execute())
    assert said == ["2: deeply", "2: deeply"]
    assert len(thinker.requests) == 2


class Somebody:
    """Answers what was asked of them, when they come to it: the run is parked until then."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.journal = journal
        self.questions: dict[str, str] = {}

    def ask(self, question: str) -> str:
        step = current_step.get()
        assert step is not None
        id = step.id_of("wait")
        record = self.journal.find(f"{id}!answer")
        if record is not None:
            return record.body
        self.questions[id] = question
        raise Parked

    async def answer(self, by: Callable[[str], str]) -> None:
        for id, question in self.questions.items():
            await self.journal.save(Record(f"{id}!answer", "answer", by(question), 0.0))
        self.questions.clear()


async def test_an_approval_belongs_to_the_call_that_it_is_for(ask: Ask) -> None:
    """Two calls wait for a person at once; what was said of one is never taken for another, in later rounds either."""
    journal = MemoryJournal()
    person, sent = Somebody(journal), []

    def send(to: str) -> str:
        """Send it."""
        sent.append(to)
        return "sent"

    def approve(call: ToolCall) -> bool | str:
        return person.ask(str(call.arguments["to"])) == "yes" or "no"

    def calls(*names: str) -> Response:
        return calling(*(ToolCall(name, "send", {"to": name}) for name in names))

    model, provider = ask(calls("ada", "bob"), calls("eve"), "Done.")
    asking = model.tools(send, approve=approve)
    with step_of(journal), pytest.raises(Parked):
        await asking.execute()
    assert sorted(person.questions.values()) == ["ada", "bob"]
    await person.answer(lambda question: "yes" if question == "ada" else "no")
    with step_of(journal), pytest.raises(Parked):
        await asking.execute()
    assert list(person.questions.values()) == ["eve"]
    assert sent == ["ada"]
    await person.answer(lambda _: "no")
    for _ in range(2):
        with step_of(journal):
            assert await asking.execute() == "Done."
    assert sent == ["ada"]
    assert len(provider.requests) == 3


async def test_where_one_tool_is_parked_the_others_finish(ask: Ask) -> None:
    journal = MemoryJournal()
    person, parked, done = Somebody(journal), asyncio.Event(), []

    async def judge() -> str:
        """Ask a person."""
        try:
            return person.ask("Is it good?")
        finally:
            parked.set()

    async def work() -> str:
        """Work."""
        await parked.wait()
        await asyncio.sleep(0)
        done.append(1)
        return "worked"

    model, provider = ask(calling(ToolCall("1", "judge"), ToolCall("2", "work")), "Done.")
    with step_of(journal), pytest.raises(Parked):
        await model.tools(judge, work).execute()
    await person.answer(lambda _: "yes")
    with step_of(journal):
        reply = await model.tools(judge, work).execute_full()
    results = reply.turns[1].content
    assert results == (ToolResult("1", "yes", "judge"), ToolResult("2", "worked", "work"))
    assert (len(done), len(provider.requests)) == (1, 2)


async def test_a_result_is_kept_also_where_nobody_wants_it_any_more(ask: Ask) -> None:
    model, _ = ask(calling(OSLO), "Sunny.")
    journal, saving, go_on, runs = MemoryJournal(), asyncio.Event(), asyncio.Event(), []

    def looked(city: str) -> str:
        """The weather in a city."""
        runs.append(city)
        return "sunny"

    async def slowly(record: Record) -> None:
        if "result" in json.loads(record.body):
            saving.set()
            await go_on.wait()

    from agentflow.llm.tools import function_tool

    asking = model.tools(function_tool(looked, name="weather"))
    journal.before = slowly
    with step_of(journal):
        task = asyncio.ensure_future(asking.execute())
    await saving.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    with step_of(journal):
        assert await asking.execute() == "Sunny."
    assert runs == ["Oslo"]


# ---- embeddings ----------------------------------------------------------------------------------------------


async def test_of_many_texts_only_those_that_are_missing_are_embedded_again(ask: Ask) -> None:
    model, provider = ask()
    provider.most_inputs = 2  # type: ignore[attr-defined]
    texts, journal = [f"text {number}" for number in range(5)], MemoryJournal()
    dying_at(journal, 3)
    with step_of(journal), pytest.raises(Crash):
        await model.build().embed(texts)
    assert len(provider.embedded) == 3
    provider.embedded.clear()
    with step_of(alive(journal)):
        found = await model.build().embed(texts)
    assert provider.embedded == [("text 4",)]
    assert found == await model.build().embed(texts)
    assert [record.cost for record in journal.records()] == [4.0, 4.0]


# ---- keys ----------------------------------------------------------------------------------------------------


async def _answer(exchange: Exchange) -> None:
    said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
    await exchange.respond({**said, "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


async def test_after_a_crash_the_same_question_goes_out_under_the_same_key(serve: Serve, tmp_path: Path) -> None:
    """So that a server that has answered it already need not do so again; and no other question has that key."""
    server = await serve(_answer)
    (tmp_path / "models.yml").write_text(
        f"providers: {{own: {{kind: openai, base_url: '{server.url}', allow_http: true, api_key_env: KEY,"
        " idempotency_header: Idempotency-Key}}\nmodels: {m: {provider: own, model_id: m}}"
    )
    registry = ModelRegistry.load(environ={"KEY": "sk-secret"}, cwd=tmp_path, home=tmp_path)
    model = AgentFlow.model("m", registry=registry).prompt("Hi")
    journal = MemoryJournal()
    dying_at(journal, 1)
    with step_of(journal), pytest.raises(Crash):
        await model.execute()
    with step_of(alive(journal)):
        await model.execute()
        await model.execute()
    with step_of(MemoryJournal(run_id="run-2")):
        await model.execute()
    await registry.aclose()
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


class Keys:
    """Fails as often as it is told to, and remembers under which keys it was asked."""

    def __init__(self, name: str, fails: int) -> None:
        self.name = name
        self.keys: list[str | None] = []
        self._fails = fails

    async def execute(self, request: Request) -> Response:
        self.keys.append(idempotency_key())
        if len(self.keys) <= self._fails:
            raise ServerError("down")
        return Response("Hi", request.model, self.name)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        reply = await self.execute(request)
        yield StreamChunk(reply.text)

    async def aclose(self) -> None: ...


@BOTH
def test_attempts_share_a_key_and_a_stand_in_has_its_own(tmp_path: Path, streaming: bool) -> None:
    one, two = Keys("one", 2), Keys("two", 0)
    bench = Bench(tmp_path, {"one": one, "two": two})
    model = bench.ask("one/m").retry(RetryPolicy(max_attempts=2, base_delay=0)).fallback("two/m").streaming(streaming)

    async def main() -> None:
        with step_of(MemoryJournal()):
            await model.execute()

    bench.run(main())
    assert one.keys[0] == one.keys[1] != two.keys[0]
    one.keys.clear()
    first, second = list(one.keys), list(two.keys)
    bench.run(main())
    assert two.keys == second * 2, first


def test_a_hedged_request_has_another_key_than_the_one_it_stands_beside(tmp_path: Path) -> None:
    class Late(Keys):
        async def execute(self, request: Request) -> Response:
            self.keys.append(idempotency_key())
            await asyncio.sleep(30.0 if len(self.keys) == 1 else 0.1)
            return Response("Hi", request.model, self.name)

    late = Late("toy", 0)
    bench = Bench(tmp_path, {"toy": late}, "providers: {toy: {hedge: {after: 1}}}\nmodels: {m: {provider: toy}}")

    async def main() -> None:
        with step_of(MemoryJournal()):
            await bench.ask("m").execute()

    bench.run(main())
    late_first = late.keys[0]
    assert late.keys[0] != late.keys[1]
    late.keys.clear()
    bench.run(main())
    assert late.keys[0] == late_first


async def test_a_tool_has_a_key_of_its_own_that_is_the_same_after_a_crash(ask: Ask) -> None:
    keys: dict[str, list[str | None]] = {"Oslo": [], "Rome": []}

    def pay(city: str) -> str:
        """Pay."""
        keys[city].append(idempotency_key())
        return "paid"

    from agentflow.llm.tools import function_tool

    tool = function_tool(pay, name="weather")
    model, _ = ask(by=lambda request: "Done." if _told(request) else calling(OSLO, ROME))
    journal = MemoryJournal()
    dying_at(journal, 2)
    with step_of(journal), pytest.raises(Crash):
        await model.tools(tool).execute()
    with step_of(alive(journal)):
        await model.tools(tool).execute()
    assert len(keys["Oslo"]) == len(keys["Rome"]) == 2
    assert len(set(keys["Oslo"])) == len(set(keys["Rome"])) == 1
    assert keys["Oslo"] != keys["Rome"]


# ---- what it costs, and what is told -------------------------------------------------------------------------


@BOTH
async def test_what_is_on_record_is_not_charged_to_the_run_again(ask: Ask, streaming: bool) -> None:
    """A run has been charged for its records when it was loaded: not even a limit that is used up stands in the way."""
    model, _ = ask(calling(OSLO), "Sunny.")
    journal, asking = MemoryJournal(), model.tools(weather).streaming(streaming)
    with step_of(journal):
        await asking.execute()
    ledger = Ledger(Limits(requests=2, tokens=1))
    ledger.spend(10, 10.0)
    with step_of(journal), run_with(ledger):
        assert await asking.execute() == "Sunny."
    assert (ledger.requests, ledger.tokens, ledger.dollars, ledger.tool_rounds) == (0, 10, 10.0, 1)


async def test_no_tool_is_called_for_an_answer_that_the_run_cannot_ask_for(ask: Ask) -> None:
    model, _ = ask(calling(OSLO), "Sunny.")
    journal, ledger = MemoryJournal(), Ledger(Limits(tokens=1))
    with step_of(journal), run_with(ledger), pytest.raises(LimitExceededError):
        await model.tools(weather).execute()
    assert len(journal.records()) == 1


async def test_a_question_has_no_more_requests_than_its_own_limit_allows_replays_included(ask: Ask) -> None:
    model, provider = ask(calling(OSLO), calling(ROME), "never asked")
    journal, asking = MemoryJournal(), model.tools(weather).limits(requests=2)
    for _ in range(2):
        with step_of(journal), pytest.raises(LimitExceededError):
            await asking.execute()
    assert len(provider.requests) == 2


@BOTH
def test_one_event_says_that_an_answer_was_on_record(tmp_path: Path, streaming: bool) -> None:
    """And no call is told of, so that nobody counts its cost twice."""
    provider = ScriptedProvider([calling(OSLO), "Sunny."])
    bench, journal = Bench(tmp_path, {"toy": provider}), MemoryJournal()

    async def main() -> None:
        with step_of(journal):
            await bench.ask().tools(weather).streaming(streaming).execute()
            await bench.ask().build().embed(["a"])

    bench.run_watched(main)
    assert not [kind for kind in bench.kinds if kind.endswith("_replayed")]
    bench.events.clear()
    bench.run_watched(main)
    assert bench.kinds == ["model_replayed", "tool_replayed", "model_replayed", "model_replayed"]
    first, second, third = bench.of("model_replayed")
    assert first == {
        "model": "toy/m", "provider": "toy", "operation": "chat", "input_tokens": 1, "output_tokens": 1, "cost": None,
    }  # fmt: skip
    assert (second["round"], third["operation"]) == (1, "embeddings")
    assert bench.of("tool_replayed") == [{"tool": "weather", "call_id": "c1"}]
    assert misfits(bench.events) == []


def test_the_run_of_a_replayed_answer_is_the_one_that_asked(tmp_path: Path) -> None:
    """A run that was forked shares its history, and says so."""
    bench, journal = Bench(tmp_path, {"toy": ScriptedProvider(["Hi"])}), MemoryJournal()

    async def asked() -> Response:
        with step_of(journal):
            return await bench.ask().execute_full()

    async def streamed() -> Response:
        with step_of(journal), run_with(Ledger(Limits())):
            return await bench.ask().execute_streaming().collect()

    reply = bench.run_watched(asked)
    assert reply.run_id == "run"
    assert bench.run(streamed()) == reply


# ---- sync code -----------------------------------------------------------------------------------------------


async def test_sync_code_is_part_of_the_step_it_runs_in(ask: Ask) -> None:
    model, provider = ask(by=numbered())
    journal, said = MemoryJournal(), []
    for _ in range(2):
        with step_of(journal):
            said.append(await call_in_thread(lambda: [model.execute_sync(), model.execute_sync()]))
    assert said[0] == said[1]
    assert len(provider.requests) == 2


async def test_a_sync_tool_may_ask_models_too(ask: Ask) -> None:
    inner, thinker = ask(by=numbered())

    def think() -> str:
        """Think."""
        return inner.execute_sync()

    model, provider = ask(calling(ToolCall("1", "think")), "Done.")
    journal, said = MemoryJournal(), []
    for _ in range(2):
        with step_of(journal):
            said.append(await model.tools(think).execute_full())
    assert said[0] == said[1]
    assert (len(provider.requests), len(thinker.requests)) == (2, 1)
    assert len(journal.records()) == 4


def test_without_a_durable_step_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from agentflow import AgentFlow, ScriptedProvider\n"
        "from agentflow.llm.config.registry import ModelRegistry\n"
        "registry = ModelRegistry.load(environ={}, cwd=Path.cwd(), home=Path.cwd())\n"
        "registry.register_provider('toy', lambda _: ScriptedProvider(['Hi']))\n"
        "asyncio.run(AgentFlow.model('toy/m', registry=registry).prompt('Hi').execute())\n"
        "print([name for name in sys.modules if name.startswith('agentflow.llm.journal')])"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"


# ---- in a flow -----------------------------------------------------------------------------------------------


class Watching:
    """Adds up what is told of costs."""

    inline = True

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.cost = 0.0

    def observe(self, event: ExecutionEvent) -> None:
        self.kinds.append(event.kind)
        if event.kind == "model_success":
            cost = event.data["cost"]
            assert isinstance(cost, float)
            self.cost += cost


async def test_a_node_that_is_parked_and_crashes_pays_for_each_of_its_two_calls_once(ask: Ask) -> None:
    model, provider = ask(by=numbered())
    engine, watching = MemoryDurability(), Watching()

    @node
    async def write(state: SharedState) -> None:
        draft = await model.prompt("draft").execute_full()
        state["draft"] = draft
        if await interrupt("Publish?", draft.text, schema=bool):
            state["text"] = await model.prompt("final").execute()

    flow = AsyncFlow(write, name="article", durability=engine)

    async def crash(record: Record) -> None:
        if record.kind == "step":
            raise DurabilityError("the disk is full")

    with observe(watching):
        assert (await flow.run(run_id="r")).status == "interrupted"
        engine.before = crash
        with pytest.raises(DurabilityError):
            await flow.resume("r", True)
        engine.before = MemoryDurability().before
        result = await flow.resume("r")
    assert (result.state["text"], len(provider.requests)) == ("2: final", 2)
    draft = result.state["draft"]
    assert isinstance(draft, Response)
    assert (draft.text, draft.run_id) == ("1: draft", "r")
    [step] = [each for each in await flow.history("r") if each.status == "done"]
    assert watching.cost == step.cost == sum(call.cost or 0.0 for call in step.calls)
    assert watching.kinds.count("model_replayed") == 3


async def test_a_limit_of_a_run_counts_what_was_asked_and_no_tools_and_nothing_twice(ask: Ask) -> None:
    model, provider = ask(by=lambda request: "Done." if _told(request) else calling(OSLO, ROME))
    engine = MemoryDurability()

    @node
    async def look(state: SharedState) -> None:
        await model.tools(weather).execute()
        await interrupt("On?")
        for _ in range(2):
            await model.execute()

    flow = AsyncFlow(look, durability=engine)
    await flow.run(run_id="r", limits=Limits(requests=3))
    with pytest.raises(NodeError) as caught:
        await flow.resume("r", None)
    assert isinstance(caught.value.__cause__, LimitExceededError)
    assert len(provider.requests) == 3


async def test_tools_and_approvals_ask_people_in_the_middle_of_a_run(ask: Ask) -> None:
    """A question with a tool that is parked goes on where it was, and each answer goes to the call that asked."""
    sent: list[str] = []

    async def approve(call: ToolCall) -> bool:
        answer = await interrupt(f"May I call {call.name} with {call.arguments['to']}?", schema=bool)
        return bool(answer)

    async def send(to: str) -> str:
        """Send it."""
        words = await interrupt(f"What shall I say to {to}?", schema=str)
        sent.append(f"{to}: {words}")
        return "sent"

    model, provider = ask(calling(*(ToolCall(name, "send", {"to": name}) for name in ("ada", "bob"))), "Done.")
    flow = AsyncFlow(
        node(name="ask", writes="said")(lambda: model.tools(send, approve=approve).execute()),
        durability=MemoryDurability(),
    )
    parked = await flow.run(run_id="r")
    assert [question.prompt for question in parked.interrupts] == [
        "May I call send with ada?",
        "May I call send with bob?",
    ]
    parked = await flow.resume("r", {question.id: True for question in parked.interrupts})
    words = {question.id: question.prompt.split()[-1].upper() for question in parked.interrupts}
    assert sorted(words.values()) == ["ADA?", "BOB?"]
    result = await flow.resume("r", words)
    assert result.state["said"] == "Done."
    assert sorted(sent) == ["ada: ADA?", "bob: BOB?"]
    assert len(provider.requests) == 2


@settings(max_examples=30, deadline=None)
@given(responses(), st.lists(parts(), max_size=3))
def test_replies_and_turns_can_be_put_into_the_state(reply: Response, content: list[Part]) -> None:
    """They are stored by names of their own, with what is in them."""
    kept = {"reply": reply, "history": [Message("user", tuple(content)), reply.message], "parts": content}
    kept["more"] = [reply.usage, *reply.alternatives, *reply.logprobs, ToolResult("1", (Text("x"), Image(PNG)))]
    assert decode(encode(kept, "state"), "state") == kept


def test_types_of_answers_are_registered_only_where_something_is_stored() -> None:
    program = (
        "import sys\n"
        "from agentflow import Response\n"
        "assert 'agentflow.core.durability.values' not in sys.modules\n"
        "from agentflow.core.durability.values import decode, encode\n"
        "reply = Response('Hi', 'm', 'toy')\n"
        "text = encode(reply, 'reply')\n"
        "assert decode(text, 'reply') == reply\n"
        "print(text)"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert json.loads(found.stdout) == {"$:agentflow.Response": {"content": "Hi", "model": "m", "provider": "toy"}}


def test_a_stored_answer_is_read_where_nothing_was_stored_before() -> None:
    program = (
        "from agentflow import Response\n"
        "from agentflow.core.durability.values import decode\n"
        'print(decode(\'{"$:agentflow.Response": {"content": "Hi", "model": "m", "provider": "toy"}}\', "reply").text)'
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "Hi"


# ---- any program, cut anywhere -------------------------------------------------------------------------------

prompts = st.sampled_from(["a", "b", "tool a", "tool b"])
single = st.tuples(st.sampled_from(["ask", "stream", "embed"]), prompts)
program = st.lists(st.one_of(single.map(lambda one: [one]), st.lists(single, min_size=2, max_size=4)), max_size=6)


class World:
    """A program of questions, one after the other or at the same time, and all that it asks of models and tools."""

    def __init__(self, folder: Path) -> None:
        self.provider = ScriptedProvider(self._answer, name="toy")
        self.bench = Bench(folder, {"toy": self.provider})
        self.tools = 0

    @property
    def calls(self) -> int:
        return len(self.provider.requests) + len(self.provider.embedded) + self.tools

    def run(self, program: Sequence[Sequence[tuple[str, str]]], journal: MemoryJournal) -> list[object]:
        async def main() -> list[object]:
            said: list[object] = []
            with step_of(journal):
                for group in program:
                    said += await asyncio.gather(*(self._do(kind, prompt) for kind, prompt in group))
            return said

        return self.bench.run(main())

    async def _do(self, kind: str, prompt: str) -> object:
        model = self.bench.ask(prompt=prompt).tools(self.look)
        if kind == "embed":
            return (await model.build().embed([prompt])).vectors
        return await model.streaming(kind == "stream").execute()

    async def look(self, of: str) -> str:
        """Look, and think about it."""
        self.tools += 1
        return "seen " + await self.bench.ask(prompt=of).execute()

    def _answer(self, request: Request) -> ScriptedAnswer:
        if _told(request):
            [result] = request.messages[-1].parts
            assert isinstance(result, ToolResult)
            return f"so {result.text}"
        if request.prompt.startswith("tool "):
            return calling(ToolCall("call_0", "look", {"of": request.prompt[5:]}))
        return f"said {request.prompt}"


@settings(max_examples=40, deadline=None)
@given(program, st.integers(1, 40))
def test_a_program_cut_anywhere_pays_for_exactly_what_is_not_on_record(
    program: Sequence[Sequence[tuple[str, str]]], save: int
) -> None:
    with TemporaryDirectory() as folder:
        world, journal = World(Path(folder)), MemoryJournal()
        undisturbed = world.run(program, journal)
        total, records = world.calls, len(journal.records())
        assert records == total
        cut = MemoryJournal()
        dying_at(cut, save)
        before = world.calls
        with suppress(Crash):
            world.run(program, cut)
        paid, kept = world.calls - before, len(cut.records())
        assert kept == min(save - 1, total)
        survivor = alive(cut)
        before = world.calls
        assert world.run(program, survivor) == undisturbed
        again = world.calls - before
        assert paid >= kept
        assert again == total - kept
        before = world.calls
        assert world.run(program, survivor) == undisturbed
        assert world.calls == before
