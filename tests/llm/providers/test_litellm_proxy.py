"""The client against the litellm proxy, in the four APIs that it speaks, with aimock behind it.

A question goes by one API to litellm and by the API of the model's provider to aimock; so does the answer, back.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.support.aimock import APIS, DEGREES, MODELS, SUNNY, Aimock, asking
from tests.support.litellm_proxy import Proxy

from agentflow.errors import BadRequestError, ModelError, NotFoundError, RateLimitError
from agentflow.llm.content import ToolResult
from agentflow.llm.messages import EmbeddingRequest, Message, Request, Response, Usage
from agentflow.llm.providers.openai import OpenAIProvider
from agentflow.llm.streaming.join import join

pytestmark = pytest.mark.service
every_api = pytest.mark.parametrize("api", APIS)
both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


async def answer(proxy: Proxy, api: str, request: Request, *, streamed: bool) -> Response:
    client = proxy.client(api)
    try:
        if not streamed:
            return await client.execute(request)
        chunks = [chunk async for chunk in client.execute_streaming(request)]
        return join(chunks, provider="tested", model="")
    finally:
        await client.aclose()


@both_ways
@every_api
async def test_an_answer_has_its_words_its_reason_and_its_usage(litellm: Proxy, api: str, streamed: bool) -> None:
    reply = await answer(litellm, api, asking(api, "How is the weather?"), streamed=streamed)
    assert (reply.text, reply.finish_reason) == (SUNNY, "stop")
    assert reply.usage == Usage(11, 7)
    assert api == "generate" or reply.model == MODELS[api]  # Gemini's aimock does not say which it is


@both_ways
@every_api
async def test_several_tools_are_called_at_once(litellm: Proxy, api: str, streamed: bool) -> None:
    reply = await answer(litellm, api, asking(api, "warmer?", tools=(DEGREES,)), streamed=streamed)
    assert [(call.name, dict(call.arguments)) for call in reply.tool_calls] == [
        ("degrees", {"city": "Oslo"}),
        ("degrees", {"city": "Bergen"}),
    ]
    assert (reply.text, reply.finish_reason) == ("Let me look.", "tool_calls")
    assert len({call.id for call in reply.tool_calls}) == 2


@both_ways
@every_api
async def test_results_of_tools_go_back(litellm: Proxy, aimock: Aimock, api: str, streamed: bool) -> None:
    """The calls as litellm gave them, and each result under its call, arrive at the model."""
    ask = asking(api, "warmer?", tools=(DEGREES,))
    reply = await answer(litellm, api, ask, streamed=streamed)
    results = tuple(ToolResult(call.id, f"{n} °C", call.name) for n, call in enumerate(reply.tool_calls))
    turns = (*ask.messages, reply.message, Message("tool", results))
    last = await answer(litellm, api, replace(ask, messages=turns), streamed=streamed)
    assert last.text == "Oslo is warmer."
    arrived = aimock.asked()[-1]
    assert arrived.calls == [(id, "degrees") for id in arrived.results]
    assert [f"{n} °C" in result for n, result in enumerate(arrived.results.values())] == [True, True]


@both_ways
@every_api
async def test_thoughts_come_through(litellm: Proxy, api: str, streamed: bool) -> None:
    reply = await answer(litellm, api, asking(api, "think"), streamed=streamed)
    assert (reply.text, reply.reasoning) == ("42", "Six times nine?")


@both_ways
@every_api
@pytest.mark.parametrize(("prompt", "expected"), [("busy", RateLimitError), ("lost", NotFoundError)])
async def test_errors_are_typed(
    litellm: Proxy, api: str, prompt: str, expected: type[ModelError], streamed: bool
) -> None:
    """By their status: litellm keeps what it wrote about them, but not how long to wait."""
    with pytest.raises(expected):
        await answer(litellm, api, asking(api, prompt), streamed=streamed)


@every_api
async def test_a_stream_that_breaks_behind_the_proxy_fails_and_keeps_what_came(litellm: Proxy, api: str) -> None:
    """litellm tells it as an error in the stream."""
    with pytest.raises(ModelError) as caught:
        await answer(litellm, api, asking(api, "cut"), streamed=True)
    assert caught.value.partial
    assert caught.value.partial.startswith("This i")


@every_api
async def test_a_model_that_the_proxy_does_not_know_is_told(litellm: Proxy, api: str) -> None:
    with pytest.raises(ModelError) as caught:
        await answer(litellm, api, replace(asking(api, "weather"), model="nobody-1"), streamed=False)
    assert (type(caught.value), "nobody-1" in str(caught.value)) == (BadRequestError, True)


@both_ways
@pytest.mark.parametrize("model", sorted(set(MODELS.values())))
@every_api
async def test_every_model_can_be_asked_by_every_api(litellm: Proxy, api: str, model: str, streamed: bool) -> None:
    """What litellm translates is still of the API: words, calls and reasons are found where they belong."""
    request = replace(asking(api, "warmer?", tools=(DEGREES,)), model=model)
    reply = await answer(litellm, api, request, streamed=streamed)
    assert [(call.name, dict(call.arguments)) for call in reply.tool_calls] == [
        ("degrees", {"city": "Oslo"}),
        ("degrees", {"city": "Bergen"}),
    ]
    assert (reply.text, reply.finish_reason) == ("Let me look.", "tool_calls")
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (20, 9)


async def test_texts_become_vectors(litellm: Proxy) -> None:
    client = litellm.client("chat")
    assert isinstance(client, OpenAIProvider)
    found = await client.embed(EmbeddingRequest("text-embedding-3-small", ("a tree", "two trees")))
    assert found.vectors == ((0.25, -0.5, 1.0), (0.25, -0.5, 1.0))
    await client.aclose()
