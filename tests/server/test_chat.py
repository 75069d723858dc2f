"""OpenAI's own client asks the server for chats: whole, streamed, with tools, shapes, pictures and several at once."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pydantic
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from tests.support.served import registry_of, running

from agentflow.llm.content import Image, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import Alternative, Message, Request, Response, TokenLogprob, Tool
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}


class Stage:
    """A server with one scripted model, `toy/m`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.provider = ScriptedProvider([])

    def play(self, *answers: ScriptedAnswer) -> object:
        self.provider = ScriptedProvider(list(answers), name="toy")
        return running(registry_of(self._folder, toy=self.provider), "toy/m")

    @property
    def asked(self) -> Request:
        return self.provider.requests[-1]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_chat_is_answered(stage: Stage) -> None:
    """Words, the reason of the end, usage, the model's name as it was asked for."""
    async with stage.play("Hello there.") as server, server.client() as client:
        reply = await client.chat.completions.create(model="toy/m", messages=HI)
    choice = reply.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello there.", "stop")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (1, 2, 3)
    assert (reply.model, reply.object) == ("toy/m", "chat.completion")
    assert reply.id.startswith("chatcmpl-")
    assert str(reply._request_id).startswith("req_")


async def test_every_setting_reaches_the_model(stage: Stage) -> None:
    """What is said by OpenAI's name stands in the request by ours."""
    async with stage.play("Yes.") as server, server.client() as client:
        await client.chat.completions.create(
            model="toy/m",
            messages=[{"role": "developer", "content": "Be brief."}, *HI],
            temperature=0.5,
            top_p=0.9,
            max_completion_tokens=7,
            stop=["END", "\n"],
            seed=3,
            frequency_penalty=0.5,
            presence_penalty=0.0,
            logit_bias={"5": 1},
            reasoning_effort="low",
            metadata={"team": "search"},
            prompt_cache_key="k",
            user="ann",
            store=False,
            extra_body={"top_k": 4},
        )
    request = stage.asked
    assert request.messages == (Message("developer", "Be brief."), Message("user", "Hi"))
    assert (request.temperature, request.top_p, request.max_tokens, request.seed) == (0.5, 0.9, 7, 3)
    assert (request.stop, request.top_k) == (("END", "\n"), 4)
    assert request.params == {"frequency_penalty": 0.5, "logit_bias": {"5": 1.0}}
    assert request.thinking is not None
    assert request.thinking.effort == "low"
    assert request.metadata == {"team": "search"}
    assert request.cache is not None
    assert request.cache.key == "k"


async def test_a_stream_comes_in_pieces_and_ends_with_usage(stage: Stage) -> None:
    """The role first, the words one by one, the reason of the end, then usage in a chunk of its own."""
    async with stage.play("One two three.") as server, server.client() as client:
        stream = await client.chat.completions.create(
            model="toy/m", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert words == ["One ", "two ", "three."]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_without_options_tells_no_usage(stage: Stage) -> None:
    """As at OpenAI, where chunks without choices would surprise old programs."""
    async with stage.play("One two.") as server, server.client() as client:
        stream = await client.chat.completions.create(model="toy/m", messages=HI, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_tools_are_called_and_their_results_come_back(stage: Stage) -> None:
    """The model gets the tool and asks for it; the client runs it and sends the conversation on."""
    call = ToolCall.parse("c1", "weather", '{"city": "Oslo"}')
    async with stage.play(Response((Text("Let me see."), call), "m", "toy"), "It is 4°.") as server:
        async with server.client() as client:
            reply = await client.chat.completions.create(
                model="toy/m", messages=HI, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
            )
            [asked] = reply.choices[0].message.tool_calls or []
            assert reply.choices[0].finish_reason == "tool_calls"
            assert (asked.id, asked.type) == ("c1", "function")
            assert asked.type == "function"
            assert (asked.function.name, asked.function.arguments) == ("weather", '{"city": "Oslo"}')
            first = stage.asked
            history: list[ChatCompletionMessageParam] = [
                *HI,
                reply.choices[0].message.to_dict(),  # type: ignore[list-item]
                {"role": "tool", "tool_call_id": "c1", "content": "4 degrees"},
            ]
            last = await client.chat.completions.create(model="toy/m", messages=history, tools=[WEATHER])
    assert last.choices[0].message.content == "It is 4°."
    schema = WEATHER["function"]["parameters"]
    assert first.tools == (Tool("weather", "The weather in a city.", schema, True),)
    assert (first.tool_choice, first.parallel_tool_calls) == ("required", False)
    assert stage.asked.messages == (
        Message("user", "Hi"),
        Message("assistant", (Text("Let me see."), call)),
        Message("tool", (ToolResult("c1", "4 degrees"),)),
    )


async def test_streamed_tool_calls_add_up(stage: Stage) -> None:
    """The client's own accumulator makes of the pieces what a whole answer has."""
    calls = (ToolCall.parse("c1", "weather", '{"city": "Oslo"}'), ToolCall.parse("c2", "weather", '{"city": "Rome"}'))
    async with stage.play(Response(calls, "m", "toy", finish_reason="tool_calls")) as server, server.client() as client:
        async with client.chat.completions.stream(model="toy/m", messages=HI, tools=[WEATHER]) as stream:
            reply = await stream.get_final_completion()
    found = reply.choices[0].message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in found] == [
        ("c1", "weather", '{"city": "Oslo"}'),
        ("c2", "weather", '{"city": "Rome"}'),
    ]
    assert reply.choices[0].finish_reason == "tool_calls"


class Person(pydantic.BaseModel):
    name: str
    age: int


async def test_parse_gets_an_object_of_the_schema(stage: Stage) -> None:
    """`parse` sends the schema of a pydantic class, and reads the answer as one."""
    async with stage.play('{"name": "Ada", "age": 36}') as server, server.client() as client:
        reply = await client.chat.completions.parse(model="toy/m", messages=HI, response_format=Person)
    assert reply.choices[0].message.parsed == Person(name="Ada", age=36)
    output = stage.asked.output
    assert output is not None
    assert (output.name, output.strict) == ("Person", True)
    assert output.schema is not None
    assert output.schema["required"] == ["name", "age"]


async def test_any_json_object_may_be_asked_for(stage: Stage) -> None:
    """`json_object` is a shape without a schema."""
    async with stage.play("{}") as server, server.client() as client:
        await client.chat.completions.create(model="toy/m", messages=HI, response_format={"type": "json_object"})
    assert stage.asked.output is not None
    assert stage.asked.output.schema is None


async def test_pictures_reach_the_model(stage: Stage) -> None:
    """As bytes, and as an address."""
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    async with stage.play("A cat.") as server, server.client() as client:
        await client.chat.completions.create(
            model="toy/m",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": data, "detail": "low"}},
                        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
                    ],
                }
            ],
        )
    [turn] = stage.asked.messages
    assert turn.parts == (
        Text("What is this?"),
        Image(data, media_type=None, detail="low"),
        Image("https://example.org/cat.png"),
    )


async def test_thoughts_and_log_probabilities_are_told(stage: Stage) -> None:
    """Whole and streamed alike."""
    logprobs = (TokenLogprob("Yes", -0.1, (("Yes", -0.1), ("No", -2.5))),)
    answer = Response((Reasoning("Hm."), Text("Yes")), "m", "toy", logprobs=logprobs, finish_reason="length")
    async with stage.play(answer, answer) as server, server.client() as client:
        reply = await client.chat.completions.create(model="toy/m", messages=HI, logprobs=True, top_logprobs=2)
        stream = await client.chat.completions.create(
            model="toy/m", messages=HI, logprobs=True, top_logprobs=2, stream=True
        )
        pieces = [chunk.choices[0] async for chunk in stream]
    assert stage.asked.logprobs == 2
    choice = reply.choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.to_dict()["reasoning_content"] == "Hm."
    assert choice.logprobs is not None
    [token] = choice.logprobs.content or []
    assert (token.token, token.logprob, token.bytes) == ("Yes", -0.1, [89, 101, 115])
    assert [(each.token, each.logprob) for each in token.top_logprobs] == [("Yes", -0.1), ("No", -2.5)]
    assert [
        piece.delta.to_dict()["reasoning_content"] for piece in pieces if "reasoning_content" in piece.delta.to_dict()
    ] == ["Hm."]
    assert [piece.logprobs.to_dict() for piece in pieces if piece.logprobs] == [choice.logprobs.to_dict()]


async def test_several_answers_come_where_the_model_gives_them(stage: Stage) -> None:
    """`n` goes through, and each answer has its place."""
    answer = Response("one", "m", "toy", alternatives=(Alternative("two", "length"),))
    async with stage.play(answer) as server, server.client() as client:
        reply = await client.chat.completions.create(model="toy/m", messages=HI, n=2)
    assert stage.asked.n == 2
    assert [(each.index, each.message.content, each.finish_reason) for each in reply.choices] == [
        (0, "one", "stop"),
        (1, "two", "length"),
    ]


async def test_half_a_character_is_no_failure(stage: Stage) -> None:
    """What no UTF-8 can hold goes as JSON's escape."""
    async with stage.play("a\ud83d") as server, server.client() as client:
        reply = await client.chat.completions.create(model="toy/m", messages=HI)
    assert reply.choices[0].message.content == "a\ud83d"


async def test_32_streams_and_calls_at_once(tmp_path: Path) -> None:
    """All of them are under way before the first ends, and each gets its own answer."""
    waiting, everybody = 0, asyncio.Event()

    async def answer(request: Request) -> str:
        nonlocal waiting
        waiting += 1
        if waiting == 64:
            everybody.set()
        await everybody.wait()
        return f"you said {request.prompt}"

    provider = ScriptedProvider(answer, name="toy")
    async with running(registry_of(tmp_path, toy=provider), "toy/m") as server, server.client() as client:

        async def call(number: int) -> str:
            reply = await client.chat.completions.create(
                model="toy/m", messages=[{"role": "user", "content": f"call {number}"}]
            )
            return str(reply.choices[0].message.content)

        async def stream(number: int) -> str:
            chunks = await client.chat.completions.create(
                model="toy/m", messages=[{"role": "user", "content": f"stream {number}"}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        texts = await asyncio.gather(*map(call, range(32)), *map(stream, range(32)))
    assert texts == [f"you said {kind} {at}" for kind in ("call", "stream") for at in range(32)]


async def test_no_more_than_max_concurrency_are_worked_on(tmp_path: Path) -> None:
    """The others wait, and all are answered."""
    now = most = 0

    async def answer(request: Request) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(20):
            await asyncio.sleep(0)
        now -= 1
        return "ok"

    registry = registry_of(tmp_path, toy=ScriptedProvider(answer, name="toy"))
    async with running(registry, "toy/m", max_concurrency=3) as server, server.client() as client:
        replies = await asyncio.gather(*(client.chat.completions.create(model="toy/m", messages=HI) for _ in range(12)))
    assert len(replies) == 12
    assert most == 3
