"""The adapter on recorded traffic of OpenAI and compatible servers, the bodies cut into pieces.

Every recording is asked for again: the recorded request is taken apart into a `Request`, the adapter must write the
same JSON, and what it reads must equal a plain reading of the recorded body that shares no code with it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from agentflow.errors import ProtocolError
from agentflow.llm.messages import Message, Request, Response
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.providers.http import AiohttpTransport, Answer, ByteStream
from agentflow.llm.providers.openai import OpenAIProvider
from agentflow.llm.streaming.stream import StreamingResponse

pytestmark = pytest.mark.shared

PATH = "/chat/completions"


@dataclass(frozen=True)
class Recording:
    file: str
    uri: str
    request: dict[str, Any]
    status: int
    body: bytes

    @property
    def streamed(self) -> bool:
        return bool(self.request.get("stream"))

    @property
    def prefix(self) -> str:
        """The path before the adapter's own."""
        return urlsplit(self.uri).path.removesuffix(PATH)


@dataclass(frozen=True)
class Reading:
    """What an answer says, as far as both readings can tell."""

    text: str
    reasoning: str
    finish: str | None
    usage: tuple[int, int, int, int] | None
    model: str | None


# ---- the recordings ------------------------------------------------------------------------------------------


@cache
def recordings(folder: Path) -> list[Recording]:
    """Every Chat Completions call with an answer of status 200."""
    found = []
    for file in sorted(folder.rglob("*.yaml")):
        text = file.read_text()
        if PATH not in text:
            continue
        for item in yaml.load(text, yaml.CSafeLoader)["interactions"]:
            recording = as_recording(str(file.relative_to(folder)), item)
            if urlsplit(recording.uri).path.endswith(PATH) and recording.status == 200:
                found.append(recording)
    return found


def as_recording(file: str, item: Mapping[str, Any]) -> Recording:
    request, response = item["request"], item["response"]
    sent = request.get("parsed_body", request.get("body"))
    body = response.get("parsed_body")
    raw = json.dumps(body).encode() if body is not None else as_bytes(response.get("body"))
    return Recording(
        file,
        request["uri"],
        sent if isinstance(sent, dict) else json.loads(sent or "{}"),
        response["status"]["code"],
        raw,
    )


def as_bytes(body: Any) -> bytes:
    body = body.get("string") if isinstance(body, dict) else body
    raw = body.encode() if isinstance(body, str) else body or b""
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


# ---- the independent reading ---------------------------------------------------------------------------------


def plain_reading(recording: Recording) -> Reading:
    """Only json and string operations: what anyone would write who looks at the recorded body."""
    text = recording.body.decode()
    if not recording.streamed:
        return reading_of([json.loads(text)], "message")
    events = [part for part in text.replace("\r\n", "\n").split("\n\n") if part.startswith("data: ")]
    return reading_of([json.loads(event[6:]) for event in events if event != "data: [DONE]"], "delta")


def reading_of(bodies: list[dict[str, Any]], key: str) -> Reading:
    texts, thoughts, refusals, finish, usage, model = [], [], [], None, None, None
    for body in bodies:
        model = body.get("model") or model
        usage = body.get("usage") or usage
        for choice in body.get("choices") or []:
            if choice.get("index", 0):
                continue
            said = choice.get(key) or {}
            texts.append(said.get("content") or "")
            thoughts.append(said.get("reasoning_content") or said.get("reasoning") or "")
            refusals.append(said.get("refusal") or "")
            finish = choice.get("finish_reason") or finish
            usage = choice.get("usage") or usage
    return Reading(
        "".join(texts) or "".join(refusals),
        "".join(thoughts),
        finish,
        usage_of(usage) if usage else None,
        model,
    )


def usage_of(usage: Mapping[str, Any]) -> tuple[int, int, int, int]:
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return (
        usage["prompt_tokens"],
        usage["completion_tokens"],
        prompt.get("cached_tokens") or usage.get("cached_tokens") or 0,
        completion.get("reasoning_tokens") or 0,
    )


# ---- asking again --------------------------------------------------------------------------------------------


class Faithful:
    """A transport that compares what the adapter writes with what was recorded, and sends the recorded bytes.

    The adapter asks for usage in every stream and says nothing of streaming elsewhere; recordings differ in that alone.
    """

    def __init__(self, recording: Recording, url: str) -> None:
        settings = ProviderSettings(
            "recorded", "openai", api_key=Secret("recorded-key"), headers={"x-replay-cassette": recording.file}
        )
        self.recorded = recording.request
        self.inner = AiohttpTransport(settings, base_url=url + recording.prefix, headers={})

    def sending(self, body: bytes) -> bytes:
        assert comparable(json.loads(body)) == comparable(self.recorded)
        return json.dumps(self.recorded).encode()

    async def post(self, path: str, body: bytes, *, model: str, total: float | None) -> Answer:
        return checked(await self.inner.post(path, self.sending(body), model=model, total=total))

    async def stream(self, path: str, body: bytes, *, model: str, total: float | None) -> ByteStream:
        return checked(await self.inner.stream(path, self.sending(body), model=model, total=total))

    async def aclose(self) -> None:
        await self.inner.aclose()


def comparable(wire: Mapping[str, Any]) -> dict[str, Any]:
    """A request without what may differ: how it asks for a stream, and an empty content, which some leave out."""
    kept = {name: value for name, value in wire.items() if name not in ("stream", "stream_options", "messages")}
    messages = [{name: value for name, value in message.items() if value != ""} for message in wire["messages"]]
    return kept | {"messages": messages}


def checked(answer: Any) -> Any:
    """Only an answer to this very request counts."""
    assert answer.headers["x-replay-match"] == "exact"
    return answer


def as_request(wire: Mapping[str, Any]) -> Request:
    """The request that a recorded body came from, taken apart as a user of the adapter would put it together."""
    named = {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}
    return Request(
        wire["model"],
        tuple(as_message(message) for message in wire["messages"]),
        temperature=wire.get("temperature"),
        top_p=wire.get("top_p"),
        max_tokens=wire.get("max_tokens"),
        seed=wire.get("seed"),
        params={name: value for name, value in wire.items() if name not in named or value is None},
    )


def as_message(wire: Mapping[str, Any]) -> Message:
    content = wire.get("content")
    opaque = {name: value for name, value in wire.items() if name not in ("role", "content", "name")}
    if "content" in wire and not isinstance(content, str):
        opaque["content"] = content
    return Message(wire["role"], content if isinstance(content, str) else "", wire.get("name"), opaque)


async def our_reading(recording: Recording, url: str) -> Reading:
    client = OpenAIProvider(
        ProviderSettings("recorded", "openai", options={"max_tokens_field": "max_tokens"}), Faithful(recording, url)
    )
    request = as_request(recording.request)
    try:
        if recording.streamed:
            reply = await StreamingResponse(client.execute_streaming(request)).collect()
        else:
            reply = await client.execute(request)
    finally:
        await client.aclose()
    return as_reading(reply)


def as_reading(reply: Response) -> Reading:
    used = reply.usage
    return Reading(
        reply.text,
        reply.reasoning,
        reply.raw_finish_reason,
        (used.input_tokens, used.output_tokens, used.cached_tokens, used.reasoning_tokens) if used else None,
        reply.model or None,
    )


@pytest.fixture(scope="module", params=[0, 7, 1], ids=["whole", "7-byte", "1-byte"])
def replaying(request: pytest.FixtureRequest, shared: Path) -> Iterator[str]:
    """The address of a server that answers with the recordings, cut into pieces."""
    program = shared / "tools" / "replay_server.py"
    if not program.is_file():
        pytest.skip("the replay server is not beside the recorded traffic")
    command = [sys.executable, str(program), "0", str(shared / "cassettes"), "--piece", str(request.param)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            found = re.search(r"http://\S+", line)
            assert found, f"the replay server said {line!r}"
            yield found.group()
        finally:
            process.terminate()


async def test_recorded_answers_are_read_as_a_plain_reader_would(replaying: str, shared: Path) -> None:
    """Text, reasoning, finish reason, usage and model of every recording, each for its own request.

    The server answers a request that was recorded several times in the order of the recordings, which is ours.
    """
    seen: Counter[tuple[str, str]] = Counter()
    for recording in recordings(shared / "cassettes"):
        if not (recording.streamed or b'"choices"' in recording.body):
            with pytest.raises(ProtocolError, match="not what the API promises"):
                await our_reading(recording, replaying)
            seen["no answer of this API, and refused as such", ""] += 1
            continue
        assert await our_reading(recording, replaying) == plain_reading(recording), recording.file
        seen[urlsplit(recording.uri).netloc, "streamed" if recording.streamed else "whole"] += 1
    print()
    for (host, kind), count in sorted(seen.items()):
        print(f"{host:45} {kind:9} {count:4}")
    assert sum(count for (_, kind), count in seen.items() if kind == "streamed") >= 30
    assert sum(count for (_, kind), count in seen.items() if kind == "whole") >= 40


async def test_recorded_streams_can_be_left_at_any_chunk(replaying: str, shared: Path) -> None:
    """Leaving early frees the connection; the next call on the same provider is not disturbed."""
    recording = next(one for one in recordings(shared / "cassettes") if one.streamed)
    client = OpenAIProvider(ProviderSettings("recorded", "openai"), Faithful(recording, replaying))
    for stop in range(3):
        async with StreamingResponse(client.execute_streaming(as_request(recording.request))) as stream:
            for _ in range(stop):
                await anext(stream)
        await asyncio.sleep(0)
    await client.aclose()
