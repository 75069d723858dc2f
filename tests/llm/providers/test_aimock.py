"""The client against aimock, a model server that this project did not write, in the four APIs that it speaks.

What it answers, and where it is not like the real ones, stands in tests/support/aimock.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.aimock import APIS, CUT, DEGREES, MODELS, SUNNY, Aimock, asking
from tests.support.aimock import client as client_for

from agentflow.errors import (
    ModelError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    StreamInterruptedError,
)
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Request, Response, StreamChunk, Usage
from agentflow.llm.streaming.join import join

pytestmark = [pytest.mark.service, pytest.mark.parametrize("api", APIS)]
both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])

CALLS = [("call_oslo", "degrees", {"city": "Oslo"}), ("call_bergen", "degrees", {"city": "Bergen"})]


async def answer(server: Aimock, api: str, request: Request, streamed: bool) -> Response:
    """The answer, put together from its chunks where it is streamed."""
    if streamed:
        return join(await chunks(server, api, request), provider="tested", model="")
    client = server.client(api)
    try:
        return await client.execute(request)
    finally:
        await client.aclose()


async def chunks(server: Aimock, api: str, request: Request) -> list[StreamChunk]:
    client = server.client(api)
    try:
        return [chunk async for chunk in client.execute_streaming(request)]
    finally:
        await client.aclose()


@pytest.fixture
def model(aimock: Aimock, api: str, tmp_path: Path) -> LLMClientBuilder:
    """The front door, with this API behind it."""
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("aimock", lambda _: aimock.client(api))
    registry.register_model("aimock/model", provider="aimock", model_id=MODELS[api])
    return AgentFlow.model("aimock/model", registry=registry)


# ---- answers -------------------------------------------------------------------------------------------------


@both_ways
async def test_an_answer_has_its_words_its_reason_and_its_usage(aimock: Aimock, api: str, streamed: bool) -> None:
    reply = await answer(aimock, api, asking(api, "How is the weather?"), streamed)
    assert (reply.text, reply.finish_reason, reply.provider) == (SUNNY, "stop", "tested")
    assert reply.usage == Usage(11, 7)
    if api != "generate":  # where aimock names neither
        assert reply.model == MODELS[api]
        assert reply.id


async def test_words_come_as_they_are_said(aimock: Aimock, api: str) -> None:
    """Six characters at a time, of which some are longer than a byte."""
    contents = [chunk.content for chunk in await chunks(aimock, api, asking(api, "weather")) if chunk.content]
    assert "".join(contents) == SUNNY
    assert len(contents) >= len(SUNNY) // 6


@both_ways
async def test_thoughts_come_beside_the_answer(aimock: Aimock, api: str, streamed: bool) -> None:
    reply = await answer(aimock, api, asking(api, "think hard"), streamed)
    assert (reply.text, reply.reasoning) == ("42", "Six times nine?")


async def test_a_whole_answer_and_a_streamed_one_are_the_same(aimock: Aimock, api: str) -> None:
    for prompt in ("weather", "think", "which is warmer?"):
        request = asking(api, prompt, tools=(DEGREES,))
        whole, streamed = [await answer(aimock, api, request, way) for way in (False, True)]
        same = [
            (r.text, r.reasoning, r.finish_reason, [(c.id, c.name, c.arguments) for c in r.tool_calls])
            for r in (whole, streamed)
        ]
        assert same[0] == same[1]


# ---- tools ---------------------------------------------------------------------------------------------------


@both_ways
async def test_several_tools_are_called_at_once(aimock: Aimock, api: str, streamed: bool) -> None:
    reply = await answer(aimock, api, asking(api, "Where is it warmer?", tools=(DEGREES,)), streamed)
    assert [(call.id, call.name, dict(call.arguments)) for call in reply.tool_calls] == CALLS
    assert (reply.text, reply.finish_reason) == ("Let me look.", "tool_calls")
    assert reply.usage == Usage(20, 9)


async def test_the_arguments_of_each_call_come_in_pieces_of_their_own(aimock: Aimock, api: str) -> None:
    """Gemini's come whole."""
    deltas = [delta for chunk in await chunks(aimock, api, asking(api, "warmer")) for delta in chunk.tool_calls]
    pieces: dict[int, list[str]] = {}
    for delta in deltas:
        pieces.setdefault(delta.index, []).append(delta.arguments)
    assert ["".join(found).replace(" ", "") for found in pieces.values()] == ['{"city":"Oslo"}', '{"city":"Bergen"}']
    assert all(len(found) > 1 for found in pieces.values()) == (api != "generate")


@both_ways
async def test_results_of_tools_go_back_and_the_answer_is_the_last_one(
    aimock: Aimock, api: str, model: LLMClientBuilder, streamed: bool
) -> None:
    """The second request holds the calls, and each result under its call."""
    before = len(aimock.asked())

    def degrees(city: str) -> str:
        """How warm it is."""
        return {"Oslo": "19 °C", "Bergen": "12 °C"}[city]

    reply = await model.tools(degrees).prompt("Where is it warmer?").streaming(streamed).execute_full()
    first, second = aimock.asked()[before:]
    assert (reply.text, reply.finish_reason) == ("Oslo is warmer.", "stop")
    assert first.tools == second.tools == ["degrees"]
    assert second.calls == [(id, "degrees") for id in second.results]
    assert ["19 °C" in result or "12 °C" in result for result in second.results.values()] == [True, True]


# ---- shapes --------------------------------------------------------------------------------------------------


@dataclass
class Weather:
    city: str
    degrees: int


@both_ways
async def test_an_answer_in_a_shape_is_a_value(model: LLMClientBuilder, api: str, streamed: bool) -> None:
    found = await model.prompt("In which shape is it?").output(Weather).streaming(streamed).execute()
    assert found == Weather("Oslo", 19)


# ---- errors --------------------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    ("prompt", "expected", "status", "retry_after"),
    [
        ("busy", RateLimitError, 429, 7.0),
        ("overload", OverloadedError, 529, None),
        ("lost", NotFoundError, 404, None),
    ],
)
async def test_errors_are_typed(
    aimock: Aimock,
    api: str,
    prompt: str,
    streamed: bool,
    expected: type[ModelError],
    status: int,
    retry_after: float | None,
) -> None:
    with pytest.raises(expected) as caught:
        await answer(aimock, api, asking(api, prompt), streamed)
    error = caught.value
    assert (error.status, error.retry_after, error.model) == (status, retry_after, MODELS[api])


async def test_a_stream_that_is_cut_keeps_what_came(aimock: Aimock, api: str) -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        await chunks(aimock, api, asking(api, "cut"))
    assert caught.value.partial
    assert CUT.startswith(caught.value.partial)


async def test_a_wrong_path_is_not_found(aimock: Aimock, api: str) -> None:
    client = client_for(api, aimock.root, below="/nowhere")
    with pytest.raises(NotFoundError, match="check the model id and base_url"):
        await client.execute(asking(api, "weather"))
    await client.aclose()
