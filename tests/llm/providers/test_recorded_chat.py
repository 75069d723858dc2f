"""Chat Completions on recorded traffic: every answer read as a plain reader would, every request written again.

The recordings are of OpenAI and of whoever speaks its API: whatever was posted to a path that ends so.
"""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Tell
from tests.support.chat_recordings import (
    CHAT,
    api_for,
    as_plain,
    as_request,
    cut_or_failed,
    habits,
    is_chat,
    plain_reading,
)
from tests.support.recordings import Comparison, Recording, Replay, recordings, same_json

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from agentflow.llm.messages import EmbeddingRequest, Message, Request, Response
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.openai import OpenAIProvider
from agentflow.llm.providers.openai.embeddings import write_embeddings
from agentflow.llm.streaming.stream import StreamingResponse

pytestmark = pytest.mark.shared

EMBEDDINGS = "/embeddings"
PIECES = [0, 7, 1]
BY_STATUS: dict[int, type[ModelError] | tuple[type[ModelError], ...]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: RateLimitError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: BadRequestError,
    429: (RateLimitError, OverloadedError),
    503: OverloadedError,
    529: OverloadedError,
}


def provider_for(recording: Recording, transport: Replay, path: str = CHAT) -> OpenAIProvider:
    options = habits(recording.request) if path == CHAT else {}
    base_url = recording.uri.partition(path)[0]
    return OpenAIProvider(ProviderSettings("recorded", "openai", base_url=base_url, options=options), transport)


async def our_reading(recording: Recording, piece: int) -> Response:
    client = provider_for(recording, Replay(recording, piece))
    request = as_request(recording.request, api_for(recording))
    if recording.request.get("stream"):
        return await StreamingResponse(client.execute_streaming(request)).collect()
    return await client.execute(request)


@pytest.mark.parametrize("piece", PIECES, ids=["whole", "7-byte", "1-byte"])
async def test_recorded_answers_are_read_as_a_plain_reader_would(shared: Path, tell: Tell, piece: int) -> None:
    """Text, reasoning, tool calls, finish reason, usage, model, id and tier of every recording with an answer."""
    seen: Counter[tuple[str, str]] = Counter()
    for recording in recordings(shared / "cassettes", CHAT):
        if recording.status != 200:
            continue
        if not is_chat(recording):
            with pytest.raises(ProtocolError, match="not what the API promises"):
                await our_reading(recording, piece)
            continue
        if cut_or_failed(recording):
            with pytest.raises(ModelError):
                await our_reading(recording, piece)
            continue
        plain = plain_reading(recording)
        assert as_plain(await our_reading(recording, piece), plain) == plain, recording.file
        seen[recording.host, "streamed" if recording.streamed else "whole"] += 1
    if not piece:
        tell(["chat completions, answers read alike:"])
        tell([f"    {host:45} {kind:9} {count:4}" for (host, kind), count in sorted(seen.items())])
    assert seen


async def test_recorded_errors_are_of_their_kind(shared: Path) -> None:
    """Every recording with another status raises what its status stands for, and keeps the server's code."""
    for recording in recordings(shared / "cassettes", CHAT, EMBEDDINGS):
        if recording.status == 200:
            continue
        expected = BY_STATUS.get(recording.status, ServerError if recording.status >= 500 else BadRequestError)
        client = provider_for(recording, Replay(recording))
        with pytest.raises(expected) as caught:
            await client.execute(Request("m", (Message("user", "Hi"),)))
        assert caught.value.status == recording.status, recording.file


def test_recorded_requests_are_written_again(shared: Path, tell: Tell) -> None:
    """What a user of ours would have asked goes over the wire as it was recorded, for 95 % of the requests. The second
    line tells how many agree when the recorder's habits are not set as options, but ours are kept."""
    comparison, untuned = Comparison("chat completions, requests written again"), Comparison("without their habits")
    for recording in recordings(shared / "cassettes", CHAT):
        for api, compared in ((api_for(recording), comparison), (api_for(recording, tuned=False), untuned)):
            request = as_request(recording.request, api)
            written = _as_sent(api.write(request, stream=recording.request.get("stream") is True).body)
            compared.note(recording.file, same_json(written, recording.request), _differ(written, recording.request))
    tell([*comparison.lines(), untuned.lines()[0]])
    assert comparison.share >= 0.95


async def test_recorded_answers_go_back_as_they_came(shared: Path) -> None:
    """The law of the round trip: what was read, also through JSON, is written as the server had sent it."""
    compared = 0
    for recording in recordings(shared / "cassettes", CHAT):
        if recording.status != 200 or not is_chat(recording) or cut_or_failed(recording):
            continue
        api = api_for(recording)
        reply = await our_reading(recording, 0)
        again = Response.from_json(json.loads(json.dumps(reply.to_json())))
        assert again == reply
        (wire,) = _as_sent(api.write(Request("m", (again.message,)), stream=False).body)["messages"]
        if not recording.streamed:
            wire.pop("partial", None)
            said = _said(recording.json["choices"][0]["message"])
            assert same_json(_said(wire), said), recording.file
        compared += 1
    assert compared


def _said(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what says nothing; arguments may be spaced as they like, their number is not theirs."""
    return {name: value for name, value in message.items() if value not in (None, [], "")}


def _as_sent(body: Any) -> dict[str, Any]:
    from agentflow.llm.providers.api import _ENCODER

    sent: dict[str, Any] = json.loads(_ENCODER.encode(body))
    return sent


def _differ(ours: Any, theirs: Any, path: str = "$") -> str:
    """The first place where two JSON values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            if name not in ours or name not in theirs:
                return f"{path}.{name} is {'missing' if name not in ours else 'too much'}"
            if not same_json(ours[name], theirs[name]):
                return _differ(ours[name], theirs[name], f"{path}.{name}")
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            if not same_json(left, right):
                return _differ(left, right, f"{path}[{at}]")
    return f"{path}: {json.dumps(ours)[:60]} for {json.dumps(theirs)[:60]}"


# ---- embeddings ----------------------------------------------------------------------------------------------


def _vectors(recording: Recording) -> list[list[float]]:
    """A plain reading of the recorded vectors, in the order of their index."""
    data = sorted(recording.json["data"], key=lambda item: item["index"])
    return [_plain_vector(item["embedding"]) for item in data]


def _plain_vector(value: Any) -> list[float]:
    if isinstance(value, list):
        return value
    raw = base64.b64decode(value)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def _embedding_request(wire: dict[str, Any]) -> EmbeddingRequest:
    """One text is recorded as a text, where we send a list; other formats and inputs are parameters."""
    left = {name: value for name, value in wire.items() if name not in ("model", "dimensions")}
    inputs = left.get("input")
    if isinstance(inputs, list) and inputs and all(isinstance(text, str) for text in inputs):
        del left["input"]
    elif isinstance(inputs, str):
        inputs = [inputs]
    else:
        inputs = [""] * max(1, len(inputs or ()))
    if left.get("encoding_format") == "float":
        del left["encoding_format"]
    return EmbeddingRequest(wire["model"], tuple(inputs), dimensions=wire.get("dimensions"), params=left)


async def test_recorded_embeddings_are_read_as_a_plain_reader_would(shared: Path, tell: Tell) -> None:
    compared = 0
    for recording in recordings(shared / "cassettes", EMBEDDINGS):
        if recording.status != 200 or b'"embedding"' not in recording.body:
            continue
        count = len(recording.json["data"])
        client = provider_for(recording, Replay(recording), EMBEDDINGS)
        request = EmbeddingRequest(recording.request.get("model", "m"), ("",) * count)
        reply = await client.embed(request)
        assert [list(vector) for vector in reply.vectors] == _vectors(recording), recording.file
        used = recording.json.get("usage") or {}
        tokens = used.get("prompt_tokens", used.get("total_tokens"))
        assert (reply.usage.input_tokens if reply.usage else None) == tokens, recording.file
        compared += 1
    tell([f"embeddings, answers read alike: {compared}"])


def test_recorded_embedding_requests_are_written_again(shared: Path, tell: Tell) -> None:
    comparison = Comparison("embeddings, requests written again")
    for recording in recordings(shared / "cassettes", EMBEDDINGS):
        if "model" not in recording.request:
            continue
        written = _as_sent(write_embeddings(_embedding_request(recording.request)).body)
        comparison.note(recording.file, same_json(written, recording.request), _differ(written, recording.request))
    tell(comparison.lines())
    assert comparison.share >= 0.95
