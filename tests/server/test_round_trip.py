"""Our own client before our own server: what was asked is what the model hears, what it says is what the caller gets.

Request ──ChatApi.write──▶ JSON ──read_chat──▶ Call ──▶ the same Request
Response ──chat──▶ JSON ──read_response──▶ the same Response          chunks ──ChatChunks──▶ ──ChatReading──▶ the same
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.served import registry_of, running

from agentflow import AgentFlow, ModelRegistry
from agentflow.errors import ContextLengthError, ModelError, QuotaExceededError, ServerError
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.content import Audio, Content, Document, Image, Part, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import (
    Alternative,
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
from agentflow.llm.providers.failures import Source
from agentflow.llm.providers.openai.chat import ChatApi
from agentflow.llm.providers.openai.chat_answers import read_response
from agentflow.llm.providers.openai.dialects import DIALECTS
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.llm.streaming.join import chunks_of, join
from agentflow.llm.streaming.sse import ServerSentEvent
from agentflow.server.sending import encoded
from agentflow.server.wire import answers
from agentflow.server.wire.chat_chunks import ChatChunks
from agentflow.server.wire.chat_request import read_chat

DIALECT = replace(DIALECTS["azure"], top_k=True)  # which has a word for everything
CONFIG = ModelConfig("m", "lab", "m")
SOURCE = Source("lab", "m")

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
names = st.from_regex(r"[a-z_]{4,12}", fullmatch=True).filter(lambda name: name not in ("auto", "none", "required"))
numbers = st.integers(-(2**53), 2**53)
leaves = st.none() | st.booleans() | numbers | words
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))
objects = st.dictionaries(words, values, max_size=3)


def uri(kind: str) -> st.SearchStrategy[str]:
    return st.binary(min_size=1, max_size=9).map(lambda data: f"data:{kind};base64,{base64.b64encode(data).decode()}")


media: st.SearchStrategy[Part] = st.one_of(
    st.builds(Image, uri("image/png"), detail=st.sampled_from([None, "low", "high"])),
    st.just(Image("https://example.org/a.png")),
    st.builds(Audio, uri("audio/wav")),
    st.builds(Document, uri("application/pdf"), name=words),
)
texts = st.builds(Text, words)
calls = st.builds(
    lambda id, name, arguments: ToolCall.parse(id, name, msgspec.json.encode(arguments).decode()), names, names, objects
)


@st.composite
def exchanges(draw: st.DrawFn) -> list[Message]:
    """A question, and perhaps an answer with calls and their results."""
    content: Content = draw(words | st.lists(texts | media, min_size=1, max_size=3).map(tuple))
    turns = [Message("user", content, draw(st.none() | names))]
    if draw(st.booleans()):
        made = tuple(draw(st.lists(calls, min_size=1, max_size=2, unique_by=lambda call: call.id)))
        said = draw(st.just(()) | st.tuples(texts))
        turns.append(Message("assistant", (*said, *made)))
        results = words | st.lists(texts, min_size=1, max_size=2).map(tuple)
        turns += [Message("tool", (ToolResult(call.id, draw(results)),)) for call in made]
    if draw(st.booleans()):
        turns.append(Message("assistant", draw(words)))
    return turns


@st.composite
def requests(draw: st.DrawFn) -> Request:
    system = [
        Message(role, draw(words)) for role in draw(st.lists(st.sampled_from(["system", "developer"]), max_size=2))
    ]
    turns = [turn for exchange in draw(st.lists(exchanges(), min_size=1, max_size=2)) for turn in exchange]
    tools = draw(
        st.lists(
            st.builds(Tool, names, st.just("") | words, objects, st.none() | st.booleans()),
            max_size=3,
            unique_by=lambda tool: tool.name,
        )
    )
    chosen = [tool.name for tool in tools]
    choices = st.sampled_from([None, "auto", "none", "required", *chosen, tuple(chosen)]) if tools else st.none()
    output = st.builds(OutputFormat, names, objects, st.none() | st.booleans(), st.none() | words)
    return Request(
        "m",
        (*system, *turns),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0, 1)),
        top_k=draw(st.none() | st.integers(1, 100)),
        max_tokens=draw(st.none() | st.integers(1, 10**6)),
        stop=tuple(draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=3))),
        seed=draw(st.none() | numbers),
        params=draw(st.just({}) | st.just({"frequency_penalty": 0.5, "logit_bias": {"7": -100.0}})),
        tools=tuple(tools),
        tool_choice=draw(choices),
        parallel_tool_calls=draw(st.none() | st.booleans()) if tools else None,
        output=draw(st.none() | st.just(OutputFormat("answer")) | output),
        thinking=draw(st.none() | st.builds(Thinking, st.sampled_from(["none", "low", "high"]))),
        cache=draw(st.none() | st.builds(PromptCache, st.sampled_from([None, "24h"]), words)),
        n=draw(st.none() | st.integers(2, 9)),
        logprobs=draw(st.none() | st.integers(0, 20)),
        metadata=draw(st.dictionaries(names, words, max_size=2)),
    )


@settings(max_examples=60)
@given(requests(), st.booleans())
def test_a_request_arrives_as_it_was_made(request: Request, stream: bool) -> None:
    """Every turn, tool and setting, written by our adapter and read by our server."""
    body = ChatApi(DIALECT).write(request, stream=stream).body
    question = read_chat(encoded(body))
    assert question.call.request(CONFIG) == request
    assert (question.model, question.stream, question.usage) == ("m", stream, stream)


token_logprobs = st.builds(
    TokenLogprob,
    words,
    st.floats(-20, 0),
    st.lists(st.tuples(words, st.floats(-20, 0)), max_size=2).map(tuple),
)
usages = st.builds(
    lambda asked, said, cached, thought: Usage(asked + cached, said + thought, cached, thought),
    *[st.integers(0, 10**6)] * 4,
).filter(lambda usage: usage.total_tokens > 0)


@st.composite
def contents(draw: st.DrawFn) -> tuple[Content, bool]:
    """What an answer may be made of, and whether it calls tools."""
    thought = draw(st.just(()) | st.tuples(st.builds(Reasoning, words)))
    made = tuple(draw(st.lists(calls, max_size=2, unique_by=lambda call: call.id)))
    said = draw(st.tuples(texts) if not made else st.just(()) | st.tuples(texts))
    return (*thought, *said, *made), bool(made)


@st.composite
def responses(draw: st.DrawFn) -> Response:
    content, calling = draw(contents())
    finish = "tool_calls" if calling else draw(st.sampled_from(["stop", "length", "content_filter"]))
    logprobs = tuple(draw(st.lists(token_logprobs, max_size=3)))
    return Response(content, "m", "lab", draw(st.none() | usages), finish, logprobs=logprobs)


def same(found: Response, made: Response) -> None:
    assert (found.text, found.reasoning, found.tool_calls) == (made.text, made.reasoning, made.tool_calls)
    assert (found.finish_reason, found.usage, found.logprobs) == (made.finish_reason, made.usage, made.logprobs)


@settings(max_examples=50)
@given(responses(), st.lists(responses(), max_size=2))
def test_an_answer_arrives_as_it_was_given(response: Response, others: list[Response]) -> None:
    """Thoughts, words, calls, log probabilities, usage, and further answers."""
    more = tuple([Alternative(each.content, each.finish_reason, logprobs=each.logprobs) for each in others])
    body = answers.chat(replace(response, alternatives=more), id="c", created=1, model="m")
    found = read_response(encoded(body), SOURCE, DIALECT)
    same(found, response)
    told = [(each.text, each.finish_reason, each.logprobs) for each in found.alternatives]
    assert told == [(each.text, each.finish_reason, each.logprobs) for each in more]


def streamed(chunks: list[StreamChunk]) -> Response:
    """What our client makes of the events that our server makes of chunks."""
    writer = ChatChunks(id="c", created=1, model="m", usage=True)
    pieces = [piece for chunk in chunks for piece in writer.write(chunk)] + writer.end()
    reading = ChatApi(DIALECT).reading(SOURCE)
    events = [encoded(piece).decode() for piece in pieces] + ["[DONE]"]
    read = [chunk for event in events for chunk in reading.read(_event(event))]
    return join(read, provider="lab", model="m")


def _event(data: str) -> ServerSentEvent:
    return ServerSentEvent(data=data)


@settings(max_examples=50)
@given(responses())
def test_a_streamed_answer_adds_up_to_the_same(response: Response) -> None:
    """However it was cut into pieces."""
    same(streamed(list(chunks_of(response))), response)


# ---- over the wire -------------------------------------------------------------------------------------------


def lab(folder: Path, url: str) -> ModelRegistry:
    """A registry whose model `far` is the server's `toy/m`."""
    return registry_of(
        folder,
        f"defaults: {{retry: {{max_attempts: 1}}}}\n"
        f"providers: {{lab: {{kind: openai, base_url: '{url}/v1'}}}}\n"
        f"models: {{far: {{provider: lab, model_id: toy/m}}, vectors: {{provider: lab, model_id: toy/m}}}}\n",
    )


async def test_our_client_asks_our_server(tmp_path: Path) -> None:
    """Whole, streamed, with tools that run, for vectors, and for the list of models."""
    call = ToolCall.parse("c1", "add", '{"a": 2, "b": 3}')
    script: list[Any] = ["Hello.", "One two.", Response((call,), "m", "toy"), "It is 5."]
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    toy = ScriptedProvider(script)

    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    async with running(registry_of(there, toy=toy), "toy/m") as server:
        registry = lab(here, server.url)
        model = AgentFlow.model("far", registry=registry)
        reply = await model.prompt("Hi").execute_full()
        assert (reply.text, reply.model, reply.finish_reason) == ("Hello.", "toy/m", "stop")
        async with model.prompt("Hi").execute_streaming() as stream:
            assert [chunk.content async for chunk in stream if chunk.content] == ["One ", "two."]
            assert (await stream.collect()).usage == Usage(1, 2)
        assert await model.tools(add).prompt("2 + 3?").execute() == "It is 5."
        assert [len(vector) for vector in await AgentFlow.model("vectors", registry=registry).embed(["a", "b"])] == [
            26
        ] * 2
        await registry.aclose()
    assert toy.requests[-1].messages[-1].parts == (ToolResult("c1", "5"),)


@pytest.mark.parametrize("kind", [ContextLengthError, QuotaExceededError, ServerError], ids=lambda kind: kind.__name__)
async def test_our_client_raises_what_the_model_raised(tmp_path: Path, kind: type[ModelError]) -> None:
    """The kind of the failure survives the wire, from before an answer and from the middle of one."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    toy = ScriptedProvider([kind("because"), ["One ", kind("because")]])
    once = "defaults: {retry: {max_attempts: 1}}\n"
    async with running(registry_of(there, once, toy=toy), "toy/m") as server:
        registry = lab(here, server.url)
        model = AgentFlow.model("far", registry=registry).prompt("Hi")
        with pytest.raises(kind):
            await model.execute()
        with pytest.raises(kind) as broken:
            await model.execute_streaming().collect()
        await registry.aclose()
    assert broken.value.partial == "One "
