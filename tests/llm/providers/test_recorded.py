"""The way over HTTP on recorded traffic: a server that answers with the recordings, their bodies cut into pieces.

What is read of every recording is tested in `test_recorded_chat`, without a server. Here a few of each host are asked
for over a real connection: the request must be the recorded one, or the server knows no answer to it.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.chat_recordings import CHAT, api_for, as_plain, as_request, habits, is_chat, plain_reading
from tests.support.recordings import Recording, recordings

from agentflow.llm.messages import Response
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.providers.http import AiohttpTransport, Answer, ByteStream
from agentflow.llm.providers.openai import OpenAIProvider
from agentflow.llm.streaming.stream import StreamingResponse

pytestmark = pytest.mark.shared

A_FEW = 4  # of each host and kind


def a_few(shared: Path) -> list[Recording]:
    """Some recordings of every host, streamed and whole."""
    found: dict[tuple[str, bool], list[Recording]] = {}
    for recording in recordings(shared / "cassettes", CHAT):
        if recording.status == 200 and is_chat(recording):
            found.setdefault((recording.host, recording.streamed), []).append(recording)
    return [recording for alike in found.values() for recording in alike[:A_FEW]]


class Checked:
    """A transport that lets pass only what the server says is the answer to this very request."""

    def __init__(self, recording: Recording, url: str) -> None:
        settings = ProviderSettings(
            "recorded", "openai", api_key=Secret("recorded-key"), headers={"x-replay-cassette": recording.file}
        )
        prefix = urlsplit(recording.uri).path.removesuffix(CHAT)
        self.recorded = recording.request
        self.inner = AiohttpTransport(settings, base_url=url + prefix, headers={})

    async def get(
        self, path: str, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        raise AssertionError("nothing is only read here")

    async def post(
        self, path: str, body: bytes, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        assert json.loads(body) == self.recorded
        answer = await self.inner.post(path, body, model=model, total=total, headers=headers)
        assert answer.headers["x-replay-match"] == "exact"
        return answer

    async def stream(
        self, path: str, body: bytes, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> ByteStream:
        assert json.loads(body) == self.recorded
        answer = await self.inner.stream(path, body, model=model, total=total, headers=headers)
        assert answer.headers["x-replay-match"] == "exact"
        return answer

    async def aclose(self) -> None:
        await self.inner.aclose()


def provider(recording: Recording, url: str) -> OpenAIProvider:
    options = {**habits(recording.request), "dialect": api_for(recording).name}
    return OpenAIProvider(ProviderSettings("recorded", "openai", options=options), Checked(recording, url))


async def asked_again(recording: Recording, url: str) -> Response:
    client = provider(recording, url)
    request = as_request(recording.request, api_for(recording))
    try:
        if recording.streamed:
            return await StreamingResponse(client.execute_streaming(request)).collect()
        return await client.execute(request)
    finally:
        await client.aclose()


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


async def test_recorded_answers_come_over_a_real_connection(replaying: str, shared: Path) -> None:
    """Text, reasoning, tool calls, finish reason, usage and model, each for its own request."""
    chosen = a_few(shared)
    for recording in chosen:
        plain = plain_reading(recording)
        assert as_plain(await asked_again(recording, replaying), plain) == plain, recording.file
    assert chosen


async def test_recorded_streams_can_be_left_at_any_chunk(replaying: str, shared: Path) -> None:
    """Leaving early frees the connection; the next call on the same provider is not disturbed."""
    recording = next(one for one in a_few(shared) if one.streamed)
    client = provider(recording, replaying)
    for stop in range(3):
        request = as_request(recording.request, api_for(recording))
        async with StreamingResponse(client.execute_streaming(request)) as stream:
            for _ in range(stop):
                await anext(stream)
        await asyncio.sleep(0)
    await client.aclose()
