"""The fluent face: immutable, checked where it is said, sync and async."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.told import Told

from agentflow.clock import SystemClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.scope import Channel, Scope, current_scope
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ConfigurationError, ContentFilterError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import LLMClient
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Message, Request, Response, Tool
from agentflow.llm.providers.scripted import ScriptedProvider


class Echo(ScriptedProvider):
    def __init__(self) -> None:
        super().__init__(lambda request: request.prompt.upper(), name="echo")


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def builder(echo: Echo, tmp_path: Path) -> LLMClientBuilder:
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("echo", lambda _: echo)
    return AgentFlow.model("echo/m", registry=registry)


Say = Callable[[LLMClientBuilder], LLMClientBuilder]

WORDS: dict[str, Say] = {
    "prompt": lambda b: b.prompt("x"),
    "system": lambda b: b.system("x"),
    "messages": lambda b: b.messages([Message("user", "x")]),
    "temperature": lambda b: b.temperature(1.0),
    "max_tokens": lambda b: b.max_tokens(1),
    "top_p": lambda b: b.top_p(0.5),
    "stop": lambda b: b.stop("x"),
    "seed": lambda b: b.seed(1),
    "param": lambda b: b.param("x", 1),
    "top_k": lambda b: b.top_k(1),
    "n": lambda b: b.n(2),
    "logprobs": lambda b: b.logprobs(),
    "thinking": lambda b: b.thinking("low"),
    "prompt_cache": lambda b: b.prompt_cache("5m"),
    "metadata": lambda b: b.metadata(user_id="u1"),
    "output": lambda b: b.output(int),
    "tools": lambda b: b.tools(Tool("look")),
    "tool_choice": lambda b: b.tool_choice("required"),
    "parallel_tool_calls": lambda b: b.parallel_tool_calls(False),
    "limits": lambda b: b.limits(requests=1),
    "timeout": lambda b: b.timeout(1.0),
    "retry": lambda b: b.retry(RetryPolicy(max_attempts=1)),
    "streaming": lambda b: b.streaming(),
    "tenant": lambda b: b.tenant("x"),
    "priority": lambda b: b.priority("low"),
    "fallback": lambda b: b.fallback("echo/other"),
}


@pytest.mark.parametrize("word", WORDS)
def test_every_word_gives_a_new_builder_and_leaves_the_old_one(builder: LLMClientBuilder, word: str) -> None:
    before = builder.call
    said = WORDS[word](builder)
    assert said.call != before
    assert builder.call == before
    assert said.registry is builder.registry


def test_the_table_above_has_every_word() -> None:
    ends = {"build", "count_tokens", "embed", "embed_full", "execute", "execute_both", "execute_full"}
    ends |= {"execute_full_sync", "execute_streaming", "execute_sync"}
    fields = {field.name for field in dataclasses.fields(LLMClientBuilder)}
    public = {name for name in vars(LLMClientBuilder) if not name.startswith("_")}
    assert public - ends - fields == set(WORDS)


def test_a_builder_cannot_be_changed(builder: LLMClientBuilder) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        builder.call = builder.prompt("x").call  # type: ignore[misc]  # the mistake
    with pytest.raises(AttributeError):
        builder.call.prompt = "x"  # type: ignore[misc]  # the mistake


def test_params_of_two_builders_from_one_do_not_mix(builder: LLMClientBuilder) -> None:
    base = builder.param("a", 1)
    one, two = base.param("b", 1), base.param("c", 1)
    assert (base.call.params, one.call.params, two.call.params) == ({"a": 1}, {"a": 1, "b": 1}, {"a": 1, "c": 1})


async def test_one_builder_serves_many_tasks(builder: LLMClientBuilder) -> None:
    answers = await asyncio.gather(*[builder.prompt(f"task {n}").execute() for n in range(50)])
    assert answers == [f"TASK {n}" for n in range(50)]


async def test_system_history_and_prompt_go_out_in_this_order(builder: LLMClientBuilder, echo: Echo) -> None:
    history = [{"role": "user", "content": "one"}, Message("assistant", "two", name="bot")]
    await builder.prompt("three").messages(history).system("be brief").execute()
    assert echo.requests[0].messages == (
        Message("system", "be brief"),
        Message("user", "one"),
        Message("assistant", "two", name="bot"),
        Message("user", "three"),
    )


async def test_messages_alone_are_enough(builder: LLMClientBuilder) -> None:
    assert await builder.messages([{"role": "user", "content": "alone"}]).execute() == "ALONE"


@pytest.mark.parametrize("text", [None, "", " \n"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_nothing_to_ask_is_an_error_that_says_what_to_do(
    builder: LLMClientBuilder, echo: Echo, text: str | None, streaming: bool
) -> None:
    asked = builder if text is None else builder.prompt(text)
    with pytest.raises(ConfigurationError, match=r"nothing to ask: give \.prompt\(text\) a text"):
        await asked.system("be brief").streaming(streaming).execute()
    assert not echo.requests


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (lambda b: b.temperature(2.1), r"^temperature: found 2.1, allowed is a number from 0 to 2$"),
        (lambda b: b.temperature(float("nan")), r"^temperature: found nan"),
        (lambda b: b.temperature(True), r"^temperature: found true"),
        (lambda b: b.temperature("hot"), r"^temperature: found 'hot'"),
        (lambda b: b.top_p(-0.1), r"^top_p: found -0.1, allowed is a number from 0 to 1$"),
        (lambda b: b.max_tokens(0), r"^max_tokens: found 0, allowed is a whole number, 1 or more$"),
        (lambda b: b.max_tokens(1.5), r"^max_tokens: found 1.5"),
        (lambda b: b.timeout(0), r"^timeout: found 0, allowed is a number above 0"),
        (lambda b: b.timeout(float("inf")), r"^timeout: found inf"),
        (lambda b: b.seed("x"), r"^seed: found 'x', allowed is a whole number$"),
        (lambda b: b.stop("a", ""), r"^stop\.1: found '', allowed is a text that is not empty$"),
        (lambda b: b.prompt(None), r"^prompt: found nothing, allowed is a text"),
        (lambda b: b.system(3), r"^system: found 3"),
        (lambda b: b.tenant(3), r"^tenant: found 3"),
        (lambda b: b.param("", 3), r"^param: found ''"),
        (lambda b: b.streaming("yes"), r"^streaming: found 'yes', allowed is true or false$"),
        (lambda b: b.retry(3), r"^retry: found a int, allowed is a RetryPolicy"),
        (lambda b: b.messages(["x"]), r"^messages\[0\]: found a str, allowed is a Message or a mapping$"),
        (
            lambda b: b.messages([{"role": "user"}]),
            r"^messages\[0\]: a turn has role, content and perhaps name, not role$",
        ),
        (lambda b: b.messages([{"role": "u", "content": "x", "tool": "y"}]), r"perhaps name, not role, content, tool$"),
        (lambda b: b.messages([{"role": "u", "content": 3}]), r"^messages\[0\]\.content: found a int"),
    ],
)
def test_a_value_out_of_range_is_an_error_where_it_is_said(
    builder: LLMClientBuilder, say: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        say(builder)


@pytest.mark.parametrize(
    "say", [lambda b: b.temperature(0), lambda b: b.temperature(2), lambda b: b.top_p(1), lambda b: b.timeout(0.001)]
)
def test_the_ends_of_a_range_are_allowed(builder: LLMClientBuilder, say: Say) -> None:
    say(builder)


async def test_a_blocked_answer_is_an_error_and_a_partly_blocked_one_is_not(tmp_path: Path) -> None:
    answers = [
        Response("", "m", "toy", finish_reason="content_filter", request_id="r7"),
        Response("so far", "m", "toy", finish_reason="content_filter"),
        Response("", "m", "toy", finish_reason="content_filter"),
    ]
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: ScriptedProvider(answers))
    builder = AgentFlow.model("toy/m", registry=registry).prompt("Hi")
    with pytest.raises(ContentFilterError, match="blocked") as caught:
        await builder.execute()
    assert caught.value.request_id == "r7"
    assert await builder.execute() == "so far"
    assert (await builder.execute_full()).finish_reason == "content_filter"


async def test_execute_streaming_is_not_awaited_and_iterates(builder: LLMClientBuilder) -> None:
    stream = builder.prompt("a b c").streaming(True).execute_streaming()
    assert [chunk.content async for chunk in stream if chunk.content] == ["A ", "B ", "C"]
    assert (await stream.collect()).text == "A B C"


async def test_streaming_lets_execute_stream_and_add_up(builder: LLMClientBuilder) -> None:
    plain = await builder.prompt("a b c").execute_full()
    streamed = await builder.prompt("a b c").streaming().execute_full()
    assert (streamed.text, streamed.usage, streamed.finish_reason) == (plain.text, plain.usage, plain.finish_reason)


async def test_build_gives_a_client_that_may_be_used_again(builder: LLMClientBuilder, echo: Echo) -> None:
    client = builder.prompt("again").build()
    assert isinstance(client, LLMClient)
    assert [(await client.execute()).text for _ in range(2)] == ["AGAIN", "AGAIN"]
    assert len(echo.requests) == 2


# ---- sync ----------------------------------------------------------------------------------------------------


def test_sync_calls_need_no_loop(builder: LLMClientBuilder) -> None:
    assert builder.prompt("sync").execute_sync() == "SYNC"
    assert builder.prompt("sync").execute_full_sync().text == "SYNC"


async def test_sync_calls_work_inside_a_running_loop(builder: LLMClientBuilder) -> None:
    assert builder.prompt("jupyter").execute_sync() == "JUPYTER"


async def test_a_sync_call_in_a_watched_nodes_thread_is_watched(builder: LLMClientBuilder) -> None:
    """Its events go to the flow's own loop, although the call runs on the portal's."""
    seen: list[tuple[str, int]] = []

    async def sink(event: ExecutionEvent) -> None:
        await asyncio.sleep(0)
        seen.append((event.kind, threading.get_ident()))

    current_scope.set(Scope(Channel("run", SystemClock(), Told(sink)), "flow/ask#1", "ask", 1))
    assert await asyncio.to_thread(builder.prompt("in a thread").execute_sync) == "IN A THREAD"
    assert seen == [("model_start", threading.get_ident()), ("model_success", threading.get_ident())]


async def test_a_sync_call_on_the_watched_loop_itself_goes_unwatched_instead_of_waiting_forever(
    builder: LLMClientBuilder,
) -> None:
    seen: list[str] = []

    async def sink(event: ExecutionEvent) -> None:
        seen.append(event.kind)

    current_scope.set(Scope(Channel("run", SystemClock(), Told(sink)), "flow/ask#1", "ask", 1))
    assert builder.prompt("blocking").execute_sync() == "BLOCKING"
    assert seen == []


def test_requests_are_plain_values(builder: LLMClientBuilder, echo: Echo) -> None:
    builder.prompt("x").execute_sync()
    assert echo.requests == [Request("m", (Message("user", "x"),), timeout=600.0)]
