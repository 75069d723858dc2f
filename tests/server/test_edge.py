"""A real model in this process, asked by OpenAI's own client as if it were OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.support.edge_models import onnx_of
from tests.support.served import Running, registry_of, running
from tests.support.tiny_encoders import LABELS, encoder
from tests.support.trained import texts

from agentflow.mcp.performance.edge.deployment import EdgeDeployment
from agentflow.mcp.performance.edge.opening import open_embedder
from agentflow.mcp.performance.edge.provider import EdgeProvider
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "def main("}]


@dataclass(frozen=True)
class Edge:
    server: Running
    client: openai.AsyncOpenAI
    provider: EdgeProvider


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """The trained model as `edge/small`, one thread, open already."""
    registry = registry_of(tmp_path)
    with EdgeDeployment(onnx_of("trained", "int4"), threads=1).register("edge/small", registry=registry) as deployment:
        await deployment.warm()
        provider = registry.provider("edge/small")
        assert isinstance(provider, EdgeProvider)
        async with running(registry, "edge/small") as server, server.client() as client:
            yield Edge(server, client, provider)


async def test_a_chat_whole_and_streamed_is_the_same(edge: Edge) -> None:
    """Words, the reason of the end, and as many tokens as were asked for."""
    whole = await edge.client.chat.completions.create(model="edge/small", messages=HI, max_tokens=24)
    stream = await edge.client.chat.completions.create(
        model="edge/small", messages=HI, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    words = "".join([chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices])
    assert whole.choices[0].message.content == words
    assert len(chunks) > 10
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24
    assert chunks[-1].usage == whole.usage


async def test_what_is_drawn_is_drawn_again_by_its_seed(edge: Edge) -> None:
    """And another seed draws another answer."""
    first, again, other = [
        (
            await edge.client.chat.completions.create(
                model="edge/small", messages=HI, max_tokens=16, temperature=1.0, top_p=0.95, seed=seed
            )
        )
        .choices[0]
        .message.content
        for seed in (1, 1, 2)
    ]
    assert first == again != other


async def test_a_stop_ends_the_answer_before_it(edge: Edge) -> None:
    """The words that stop it are not in it."""
    free = await edge.client.completions.create(model="edge/small", prompt="def main(", max_tokens=24)
    mark = free.choices[0].text[5:8]
    held = await edge.client.completions.create(model="edge/small", prompt="def main(", max_tokens=24, stop=mark)
    assert held.choices[0].text == free.choices[0].text[: free.choices[0].text.index(mark)]
    assert held.choices[0].finish_reason == "stop"


class Answer(pydantic.BaseModel):
    yes: bool
    count: int = pydantic.Field(ge=0, le=9)


async def test_parse_gets_an_object_from_a_model_that_knows_no_json(edge: Edge) -> None:
    """It is held to the schema token by token; the training texts have little of such answers."""
    reply = await edge.client.chat.completions.parse(
        model="edge/small", messages=HI, response_format=Answer, max_tokens=64
    )
    assert isinstance(reply.choices[0].message.parsed, Answer)


async def test_a_stream_that_is_left_stops_the_decoding(edge: Edge) -> None:
    """Within a step: the model writes no more tokens for nobody."""
    stream = await edge.client.chat.completions.create(
        model="edge/small", messages=HI, max_tokens=400, stream=True, extra_body={"top_k": 50}, temperature=1.5
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    await edge.client.completions.create(model="edge/small", prompt="a", max_tokens=1)
    written = edge.provider.decoded
    await edge.client.completions.create(model="edge/small", prompt="a", max_tokens=3)
    assert edge.provider.decoded <= written + 3
    assert written < 400


async def test_32_at_once_get_what_each_alone_would(edge: Edge) -> None:
    """Decoded together, answered apart: half of them streamed."""
    text = texts("held_out")[0]
    prompts = [text[at : at + 60] for at in range(0, 960, 60)]

    async def call(prompt: str) -> str:
        reply = await edge.client.completions.create(model="edge/small", prompt=prompt, max_tokens=6)
        return reply.choices[0].text

    async def stream(prompt: str) -> str:
        chunks = await edge.client.completions.create(model="edge/small", prompt=prompt, max_tokens=6, stream=True)
        return "".join([chunk.choices[0].text async for chunk in chunks])

    together = await asyncio.gather(*map(call, prompts), *map(stream, prompts))
    assert len(together) == 32
    assert together[:16] == together[16:]
    assert together[3] == await call(prompts[3])


async def test_what_it_cannot_do_is_a_bad_request(edge: Edge) -> None:
    """Tools, a picture, a prompt that is too long: 400, in words."""
    tool = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(openai.BadRequestError, match="call tools") as refused:
        await edge.client.chat.completions.create(model="edge/small", messages=HI, tools=[tool])  # type: ignore[list-item]
    assert "gpt" not in refused.value.message  # what else there is in the registry is nobody's business
    with pytest.raises(openai.BadRequestError) as raised:
        await edge.client.completions.create(model="edge/small", prompt="x " * 2000)
    assert raised.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="logit_bias"):
        await edge.client.chat.completions.create(model="edge/small", messages=HI, logit_bias={"5": 3})


async def test_a_model_of_vectors_embeds_and_answers_no_prompt(tmp_path: Path) -> None:
    """Its vectors are those of the runtime, packed as the client asks by itself."""
    model = encoder(tmp_path / "model", "embed")
    registry = registry_of(tmp_path)
    with EdgeDeployment(model, threads=1).register("edge/vectors", registry=registry):
        async with running(registry, "edge/vectors") as server, server.client() as client:
            reply = await client.embeddings.create(model="edge/vectors", input=["Hello there", "x " * 100])
            with pytest.raises(openai.BadRequestError, match="answers no prompt"):
                await client.chat.completions.create(model="edge/vectors", messages=HI)
    embedder, tokenizer = open_embedder(model), EdgeTokenizer(model)
    here = embedder.vectors([tokenizer.encode_within(text, 16) for text in ("Hello there", "x " * 100)])
    embedder.close()
    assert np.allclose([each.embedding for each in reply.data], here, atol=1e-6)
    assert reply.usage.prompt_tokens > 16


async def test_a_classifier_says_its_label(tmp_path: Path) -> None:
    """As the words of an answer, whole and streamed."""
    registry = registry_of(tmp_path)
    model = encoder(tmp_path / "model", "classify")
    with EdgeDeployment(model, threads=1).register("edge/labels", registry=registry):
        async with running(registry, "edge/labels") as server, server.client() as client:
            reply = await client.chat.completions.create(model="edge/labels", messages=HI)
            stream = await client.chat.completions.create(model="edge/labels", messages=HI, stream=True)
            words = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert reply.choices[0].message.content == words
    assert words in LABELS
