"""The public test double: it says what it was told, and fails when it was told."""

from __future__ import annotations

import asyncio

import pytest

from agentflow.errors import ConfigurationError, ModelError, RateLimitError
from agentflow.llm.content import Image, Json, Reasoning, Text, ToolCall
from agentflow.llm.messages import EmbeddingRequest, Message, Request, Response, StreamChunk, ToolCallDelta, Usage
from agentflow.llm.providers.base import LLMProvider, ProviderSettings
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.llm.streaming.join import join
from agentflow.llm.streaming.stream import StreamingResponse

HI = Request("m-1", (Message("system", "Be brief."), Message("user", "Hi there")))


async def streamed(provider: ScriptedProvider) -> list[str]:
    return [chunk.content async for chunk in provider.execute_streaming(HI)]


def test_it_is_a_provider() -> None:
    provider = ScriptedProvider([])
    assert isinstance(provider, LLMProvider)
    assert provider.name == "scripted"


async def test_answers_come_in_order_and_requests_are_recorded() -> None:
    provider = ScriptedProvider(["one", "two"])
    assert [(await provider.execute(HI)).text for _ in range(2)] == ["one", "two"]
    assert provider.requests == [HI, HI]


async def test_a_text_becomes_a_whole_response() -> None:
    reply = await ScriptedProvider(["Hello to you"], name="p").execute(HI)
    assert (reply.model, reply.provider, reply.finish_reason, reply.request_id) == ("m-1", "p", "stop", "scripted-1")
    assert reply.usage == Usage(4, 3), "words are counted as tokens"


async def test_a_response_is_returned_as_it_stands() -> None:
    given = Response("x", "other", "p", finish_reason="length", usage=Usage(1, 2))
    provider = ScriptedProvider([given, given])
    assert await provider.execute(HI) is given
    collected = await StreamingResponse(provider.execute_streaming(HI)).collect()
    assert (collected.text, collected.finish_reason, collected.usage) == ("x", "length", Usage(1, 2))


async def test_an_exception_is_raised_and_the_next_call_goes_on() -> None:
    provider = ScriptedProvider([RateLimitError("too fast"), RateLimitError("again"), "fine"])
    with pytest.raises(RateLimitError, match="too fast"):
        await provider.execute(HI)
    with pytest.raises(RateLimitError, match="again"):
        await streamed(provider)
    assert (await provider.execute(HI)).text == "fine"


@pytest.mark.parametrize("text", ["one two  three\n\nfour ", " lead", "", "   ", "word"])
async def test_a_text_streams_word_by_word_and_loses_nothing(text: str) -> None:
    contents = await streamed(ScriptedProvider([text]))
    assert "".join(contents) == text
    assert all(len(content.split()) <= 1 for content in contents)


async def test_streamed_and_whole_answers_are_equal() -> None:
    whole = await ScriptedProvider(["Hello to you"]).execute(HI)
    provider = ScriptedProvider(["Hello to you"])
    assert await StreamingResponse(provider.execute_streaming(HI), provider="scripted").collect() == whole


async def test_given_pieces_are_streamed_as_they_are() -> None:
    pieces = ["Hel", StreamChunk("lo", reasoning="hm"), StreamChunk(finish_reason="length", usage=Usage(9, 9))]
    provider = ScriptedProvider([pieces, pieces])
    assert await streamed(provider) == ["Hel", "lo", "", ""]
    reply = await provider.execute(HI)
    assert (reply.text, reply.reasoning, reply.finish_reason, reply.usage) == ("Hello", "hm", "length", Usage(9, 9))


async def test_an_exception_among_pieces_fails_in_the_middle() -> None:
    provider = ScriptedProvider([["Hel", ModelError("broke")], ["Hel", ModelError("broke")]])
    stream = provider.execute_streaming(HI)
    assert (await anext(stream)).content == "Hel"
    with pytest.raises(ModelError, match="broke"):
        await anext(stream)
    with pytest.raises(ModelError, match="broke"):
        await provider.execute(HI)


async def test_a_function_answers_from_the_request() -> None:
    provider = ScriptedProvider(lambda request: request.prompt.upper())
    assert (await provider.execute(HI)).text == "HI THERE"
    assert await streamed(provider) == ["HI ", "THERE", ""]


async def test_an_async_function_answers_too() -> None:
    async def answer(request: Request) -> str:
        await asyncio.sleep(0)
        return request.model

    assert (await ScriptedProvider(answer).execute(HI)).text == "m-1"


async def test_running_out_of_answers_says_how_many_there_were() -> None:
    provider = ScriptedProvider(["one", "two"])
    for _ in range(2):
        await provider.execute(HI)
    with pytest.raises(ModelError, match=r"call 3 finds no answer: 2 were given") as caught:
        await provider.execute(HI)
    assert not caught.value.retryable


def test_one_text_is_no_list() -> None:
    with pytest.raises(ConfigurationError, match="put it in a list"):
        ScriptedProvider("Hello")


async def test_it_is_built_from_settings() -> None:
    settings = ProviderSettings("fake", "scripted", options={"answers": ["one", ["t", "wo"]]})
    provider = ScriptedProvider.from_settings(settings)
    assert provider.name == "fake"
    assert (await provider.execute(HI)).text == "one"
    assert await streamed(provider) == ["t", "wo", ""]


@pytest.mark.parametrize(
    "answers", [None, "one", 3, [3], [["a", 3]], {"a": 1}, [None], [{"a": 1}], [{"tool_calls": [{}]}], [{"text": 1}]]
)
def test_wrong_settings_are_refused_by_name(answers: Json) -> None:
    with pytest.raises(ConfigurationError, match=r"provider 'fake': answers"):
        ScriptedProvider.from_settings(ProviderSettings("fake", "scripted", options={"answers": answers}))


async def test_a_response_streams_with_everything_it_has() -> None:
    """Words one by one, in their parts; calls, opaque data and facts whole: added up it is the response."""
    given = Response(
        (
            Reasoning("Let me think.", opaque={"p": {"signature": "s"}}),
            Text("One two ", opaque={"p": {"note": 1}}),
            Text("three."),
            ToolCall("call_a", "weather", {"city": "Oslo"}, '{"city":"Oslo"}'),
        ),
        "other",
        "p",
        usage=Usage(1, 2),
        finish_reason="tool_calls",
        raw_finish_reason="tool_calls",
        id="answer-1",
        opaque={"p": {"whole": True}},
    )
    provider = ScriptedProvider([given], name="p")
    chunks = [chunk async for chunk in provider.execute_streaming(HI)]
    assert [chunk.content for chunk in chunks if chunk.content] == ["One ", "two ", "three."]
    assert join(chunks, provider="p", model="m-1") == given


async def test_pieces_may_call_tools() -> None:
    pieces = [
        "Look: ",
        StreamChunk(tool_calls=(ToolCallDelta(0, "call_a", "weather", '{"city":'),)),
        StreamChunk(tool_calls=(ToolCallDelta(0, arguments='"Oslo"}'),)),
    ]
    reply = await ScriptedProvider([pieces]).execute(HI)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("weather", {"city": "Oslo"})]
    assert (reply.text, reply.finish_reason) == ("Look: ", "tool_calls")


async def test_only_words_are_counted_as_tokens() -> None:
    request = Request("m-1", (Message("user", (Text("What is this"), Image("data:image/png;base64,AAAA"))),))
    assert (await ScriptedProvider(["A cat."]).execute(request)).usage == Usage(3, 2)


async def test_settings_can_say_tool_calls() -> None:
    """So that a flow with tools can be tried from the command line, without a key."""
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    settings = ProviderSettings("fake", "scripted", options={"answers": [{"text": "Look.", "tool_calls": [call]}]})
    reply = await ScriptedProvider.from_settings(settings).execute(Request("m", (Message("user", "Hi"),)))
    assert (reply.text, reply.finish_reason) == ("Look.", "tool_calls")
    assert [(made.name, made.arguments) for made in reply.tool_calls] == [("weather", {"city": "Oslo"})]


async def test_texts_have_vectors() -> None:
    provider = ScriptedProvider([], vector=lambda text: [float(len(text)), 0.0])
    found = await provider.embed(EmbeddingRequest("m", ("a", "bcd"), dimensions=1))
    assert (found.vectors, provider.embedded) == (((1.0,), (3.0,)), [("a", "bcd")])
    plain = await ScriptedProvider([]).embed(EmbeddingRequest("m", ("abba", "baab", "xyz")))
    assert plain.vectors[0] == plain.vectors[1] != plain.vectors[2]
