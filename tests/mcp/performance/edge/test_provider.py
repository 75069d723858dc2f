"""A model in this process, called like any other: alone or in a crowd, whole or in pieces, to its end or not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing

import jsonschema
import pytest
from tests.support.edge_models import onnx_of

from agentflow.errors import BadRequestError, ContextLengthError, ModelError, ModelTimeoutError, UnsupportedError
from agentflow.llm.messages import EmbeddingRequest, Message, OutputFormat, Request, StreamChunk, Thinking, Tool
from agentflow.llm.providers.base import LLMProvider, TokenCounter
from agentflow.llm.streaming.join import join
from agentflow.mcp.performance.edge.provider import EdgeProvider

CODE = "def read(self, size):\n    "


def ask(text: str = CODE, **wishes: object) -> Request:
    return Request("m", (Message("user", text),), **wishes)  # type: ignore[arg-type]


@pytest.fixture
async def model() -> AsyncIterator[EdgeProvider]:
    provider = EdgeProvider(onnx_of("trained"), threads=1)
    yield provider
    await provider.aclose()


async def test_an_answer_says_what_it_took(model: EdgeProvider) -> None:
    response = await model.execute(ask(max_tokens=12))
    assert isinstance(model, LLMProvider)
    assert isinstance(model, TokenCounter)
    assert response.usage is not None
    assert response.usage.input_tokens == await model.count_tokens(ask())
    assert response.usage.output_tokens == 12
    assert (response.finish_reason, response.raw_finish_reason) == ("length", "max_tokens")


async def test_a_stream_adds_up_to_the_answer(model: EdgeProvider) -> None:
    request = ask(max_tokens=30, logprobs=3)
    whole = await model.execute(request)
    chunks = [chunk async for chunk in model.execute_streaming(request)]
    assert join(chunks, provider="edge", model="m") == whole
    assert len(chunks) == 31
    assert len(whole.logprobs) == 30
    for told in whole.logprobs:  # greedy takes the likeliest
        assert told.alternatives[0] == (told.token, told.logprob)
        assert len(told.alternatives) == 3


async def test_stop_strings_end_it_and_are_not_shown(model: EdgeProvider) -> None:
    free = (await model.execute(ask(max_tokens=40))).text
    stop = free[9:14]
    response = await model.execute(ask(max_tokens=40, stop=(stop,)))
    assert response.text == free[: free.index(stop)]
    assert response.finish_reason == "stop"


async def test_a_seed_gives_the_same_text_alone_and_in_a_crowd(model: EdgeProvider) -> None:
    wishes = {"temperature": 1.0, "top_p": 0.9, "max_tokens": 25}
    alone = [(await model.execute(ask(seed=seed, **wishes))).text for seed in range(6)]
    crowd = await asyncio.gather(*[model.execute(ask(seed=seed, **wishes)) for seed in range(6)])
    assert [each.text for each in crowd] == alone
    assert len(set(alone)) == 6
    several = await model.execute(ask(seed=0, n=3, **wishes))
    assert [several.text, *(each.text for each in several.alternatives)] == alone[:3]


async def test_fifty_at_once_get_what_each_gets_alone(model: EdgeProvider) -> None:
    requests = [ask(f"class C{n % 10}:\n" * (1 + n % 3), max_tokens=5 + n % 7) for n in range(50)]
    alone = [(await model.execute(request)).text for request in requests]
    crowd = await asyncio.gather(*map(model.execute, requests))
    assert [each.text for each in crowd] == alone


async def test_leaving_a_stream_stops_the_model(model: EdgeProvider) -> None:
    await model.warm()
    before = model.decoded
    async with aclosing(model.execute_streaming(ask(max_tokens=450))) as stream:
        async for _ in stream:
            break
    seen = model.decoded
    await model.execute(ask(max_tokens=1))  # had the other gone on, it would have been decoded meanwhile
    await model.execute(ask(max_tokens=10))
    assert model.decoded - seen <= 1 + 11
    assert seen - before < 100


async def test_a_cancelled_call_stops_the_model(model: EdgeProvider) -> None:
    await model.warm()
    task = asyncio.create_task(model.execute(ask(max_tokens=450)))
    while model.decoded < 5:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    seen = model.decoded
    await model.execute(ask(max_tokens=5))
    assert model.decoded - seen <= 1 + 5


async def test_time_that_is_over_stops_the_model(model: EdgeProvider) -> None:
    await model.warm()
    with pytest.raises(ModelTimeoutError) as caught:
        await model.execute(ask(max_tokens=450, timeout=0.001))
    assert (caught.value.provider, caught.value.model) == ("edge", "m")
    seen = model.decoded
    await model.execute(ask(max_tokens=5))
    assert model.decoded - seen <= 1 + 5


async def test_closing_while_busy_ends_every_call() -> None:
    provider = EdgeProvider(onnx_of("trained"), threads=1, rows=4)
    calls = [asyncio.create_task(provider.execute(ask(max_tokens=400))) for _ in range(8)]
    while provider.decoded < 5:
        await asyncio.sleep(0)
    await provider.aclose()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, ModelError) and "closed" in str(each) for each in ended)
    await provider.aclose()


async def test_the_event_loop_goes_on_between_two_tokens(model: EdgeProvider) -> None:
    """Counted, not timed: while the model reads 500 tokens, the loop turns many times."""
    await model.warm()
    turns = 0
    call = asyncio.create_task(model.execute(ask("x " * 250, max_tokens=1)))
    while not call.done():
        await asyncio.sleep(0)
        turns += 1
    await call
    assert turns > 100


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (ask(max_tokens=0), BadRequestError, "max_tokens"),
        (ask(temperature=-0.5), BadRequestError, "temperature"),
        (ask(""), BadRequestError, "empty"),
        (ask("a " * 600), ContextLengthError, "512"),
        (ask(params={"mirostat": 2}), BadRequestError, "mirostat"),
        (ask(params={"min_p": "high"}), BadRequestError, "min_p"),
        (ask(params={"regex": 3}), BadRequestError, "regex"),
        (ask(n=0), BadRequestError, "n is 0"),
        (ask(logprobs=1000), BadRequestError, "logprobs"),
        (ask(tools=(Tool("weather"),)), UnsupportedError, "tools"),
        (ask(thinking=Thinking("high")), UnsupportedError, "think"),
        (ask(output=OutputFormat("a", {"type": "nonsense"})), BadRequestError, "kept to"),
        (ask(output=OutputFormat("a"), params={"regex": "a"}), BadRequestError, "not to both"),
    ],
)
async def test_what_cannot_be_done_is_said_and_the_model_goes_on(
    request_: Request, error: type[Exception], says: str, model: EdgeProvider
) -> None:
    with pytest.raises(error, match=says):
        await model.execute(request_)
    assert (await model.execute(ask(max_tokens=2))).text


async def test_the_context_ends_an_answer(model: EdgeProvider) -> None:
    response = await model.execute(ask("x " * 240))
    assert (response.finish_reason, response.raw_finish_reason) == ("length", "context")
    assert response.usage is not None
    assert response.usage.total_tokens == 512


async def test_an_answer_is_held_to_its_schema(model: EdgeProvider) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["bug", "wish"]}, "parts": {"type": "array", "items": {"type": "boolean"}}},
        "required": ["kind", "parts"],
        "additionalProperties": False,
    }
    requests = [
        ask(temperature=1.5, seed=seed, output=OutputFormat("a", schema), max_tokens=400)
        for seed in range(4)  # type: ignore[arg-type]
    ]
    for response in await asyncio.gather(*map(model.execute, requests)):
        if response.finish_reason == "stop":
            jsonschema.validate(json.loads(response.text), schema)
    cut = await model.execute(ask(output=OutputFormat("a", schema), max_tokens=3))  # type: ignore[arg-type]
    assert cut.finish_reason == "length"
    digits = await model.execute(ask(params={"regex": "[0-9]{3}"}))
    assert len(digits.text) == 3
    assert digits.text.isdigit()


async def test_an_hour_of_the_machine_has_its_price() -> None:
    provider = EdgeProvider(onnx_of("tiny"), threads=1, price_per_hour=3600.0)
    chunks: list[StreamChunk] = [chunk async for chunk in provider.execute_streaming(ask("the", max_tokens=3))]
    await provider.aclose()
    assert chunks[-1].cost is not None
    assert 0 < chunks[-1].cost < 60


async def test_a_model_that_writes_makes_no_embeddings(model: EdgeProvider) -> None:
    with pytest.raises(UnsupportedError, match="generate"):
        await model.embed(EmbeddingRequest("m", ("a",)))


def test_one_provider_serves_several_event_loops() -> None:
    provider = EdgeProvider(onnx_of("tiny"), threads=1)
    texts = [asyncio.run(provider.execute(ask("the tide", max_tokens=5))).text for _ in range(3)]
    assert len(set(texts)) == 1
    provider.close()


def test_an_onnx_artifact_runs_without_pytorch() -> None:
    """Nor transformers, nor onnxruntime-genai: a process in which they cannot be imported answers all the same."""
    program = f"""
import sys
for name in ("torch", "transformers", "onnxruntime_genai", "onnx"):
    sys.modules[name] = None
import asyncio
from agentflow.llm.messages import Message, OutputFormat, Request
from agentflow.mcp.performance.edge.provider import EdgeProvider

provider = EdgeProvider({str(onnx_of("tiny"))!r}, threads=1)
request = Request("m", (Message("user", "the"),), output=OutputFormat("a", {{"enum": ["yes", "no"]}}))
print(asyncio.run(provider.execute(request)).text)
provider.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() in ('"yes"', '"no"')
