"""Whatever a client sends, it is answered, or told that it was wrong: never that the server failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.served import registry_of, running

from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.server.wire.chat_request import read_chat
from agentflow.server.wire.completion_request import read_completion
from agentflow.server.wire.embedding_request import read_embedding
from agentflow.server.wire.refusal import Refusal

SOUND: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "toy/m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "4"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "stop": ["a"],
        "temperature": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "metadata": {"a": "b"},
    },
    "/v1/completions": {"model": "toy/m", "prompt": ["a", "b"], "max_tokens": 3, "logprobs": 1},
    "/v1/embeddings": {"model": "toy/m", "input": ["a"], "dimensions": 2, "encoding_format": "float"},
}
READERS: dict[str, Callable[[bytes], object]] = {
    "/v1/chat/completions": read_chat,
    "/v1/completions": read_completion,
    "/v1/embeddings": read_embedding,
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, as the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


def put(value: Any, at: tuple[Any, ...], other: Any, *, take: bool) -> Any:
    """The value with another in that place, or with nothing there."""
    if not at:
        return other
    made = value.copy()
    if take and len(at) == 1:
        del made[at[0]]
    else:
        made[at[0]] = put(value[at[0]], at[1:], other, take=take)
    return made


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a body that was sound before something in it was changed."""
    path = draw(st.sampled_from(sorted(SOUND)))
    body = SOUND[path]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(places(body)))
        body = put(body, at, draw(anything), take=draw(st.booleans()))
        if not isinstance(body, dict):
            break
    if isinstance(body, dict) and draw(st.booleans()):
        body = {**body, draw(st.sampled_from(["stream", "n", "echo", "user", "x"])): draw(anything)}
    data = json.dumps(body).encode()
    return path, draw(st.just(data) | st.just(data[: draw(st.integers(0, len(data)))]))


@given(bodies())
@settings(max_examples=100)
def test_a_body_is_read_or_refused(sent: tuple[str, bytes]) -> None:
    """With a status that says whose mistake it is."""
    path, body = sent
    status = 200
    try:
        READERS[path](body)
    except Refusal as refusal:
        status = refusal.status
    assert status in (200, 400)


@given(st.lists(bodies(), min_size=12, max_size=12))
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
async def test_no_body_makes_the_server_fail(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[str, bytes]]
) -> None:
    """What is sound enough goes to a model, all else is refused."""
    toy = ScriptedProvider(lambda request: "Hello there.")
    registry = registry_of(tmp_path_factory.getbasetemp(), toy=toy)
    async with running(registry, "toy/m") as server, aiohttp.ClientSession() as session:
        for path, body in sent:
            headers = {"content-type": "application/json"}
            async with session.post(server.url + path, data=body, headers=headers) as answer:
                text = await answer.text()
                assert answer.status in (200, 400, 404), text
                assert answer.status == 200 or json.loads(text)["error"]["message"]
