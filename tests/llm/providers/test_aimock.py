"""The client against aimock, a model server that this project did not write."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, missing_service

from agentflow.errors import ModelError, NotFoundError, OverloadedError, RateLimitError, StreamInterruptedError
from agentflow.llm.messages import Message, Request, Usage
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.providers.openai import OpenAIProvider
from agentflow.llm.streaming.stream import StreamingResponse

pytestmark = pytest.mark.service

SUNNY = "It is sunny in Oslo – 19 °C, they say. ☀️"
FIXTURES: dict[str, Any] = {
    "fixtures": [
        {"match": {"userMessage": "weather"}, "response": {"content": SUNNY}},
        {"match": {"userMessage": "think"}, "response": {"content": "42", "reasoning": "Six times nine?"}},
        {
            "match": {"userMessage": "busy"},
            "response": {
                "error": {"message": "Slow down.", "type": "rate_limit_error", "code": "rate_limit_exceeded"},
                "status": 429,
                "retryAfter": 7,
            },
        },
        {
            "match": {"userMessage": "overload"},
            "response": {"error": {"message": "Overloaded.", "type": "overloaded_error"}, "status": 529},
        },
        {
            "match": {"userMessage": "cut"},
            "response": {"content": "This is cut off somewhere in the middle."},
            "truncateAfterChunks": 3,
        },
    ]
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Connect until it works, for 30 s at most."""
    for _ in range(300):
        if process.poll() is not None:
            pytest.fail(f"aimock ended with status {process.returncode}: {log.read_text()[-500:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"aimock did not listen within 30 s: {log.read_text()[-500:]}")


@pytest.fixture(scope="module")
def aimock(node_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of a running aimock."""
    program = ROOT / ".tools" / "node_modules" / ".bin" / "llmock"
    if not program.exists():
        missing_service("aimock is not installed: run scripts/install-services")
    folder = tmp_path_factory.mktemp("aimock")
    fixtures, log = folder / "fixtures.json", folder / "log"
    fixtures.write_text(json.dumps(FIXTURES))
    port = free_port()
    command = [node_program, str(program), "-p", str(port), "-f", str(fixtures), "--chunk-size", "6", "--latency", "2"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until_it_listens(port, process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def provider(url: str) -> OpenAIProvider:
    return OpenAIProvider(ProviderSettings("aimock", "openai", base_url=url, api_key=Secret("mock-key")))


def asking(prompt: str) -> Request:
    return Request("gpt-4o", (Message("system", "Be brief."), Message("user", prompt)), max_tokens=100)


async def test_a_whole_answer(aimock: str) -> None:
    client = provider(aimock)
    reply = await client.execute(asking("How is the weather?"))
    assert (reply.text, reply.finish_reason, reply.model, reply.provider) == (SUNNY, "stop", "gpt-4o", "aimock")
    assert reply.usage is not None
    assert reply.usage.output_tokens > 0
    await client.aclose()


async def test_a_streamed_answer_in_pieces_of_six_characters(aimock: str) -> None:
    client = provider(aimock)
    chunks = [chunk async for chunk in client.execute_streaming(asking("How is the weather?"))]
    contents = [chunk.content for chunk in chunks if chunk.content]
    assert "".join(contents) == SUNNY
    assert len(contents) >= len(SUNNY) // 6
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    await client.aclose()


async def test_a_stream_ends_with_usage(aimock: str) -> None:
    client = provider(aimock)
    whole = await client.execute(asking("How is the weather?"))
    streamed = await StreamingResponse(client.execute_streaming(asking("How is the weather?"))).collect()
    assert isinstance(streamed.usage, Usage)
    assert streamed.usage == whole.usage
    await client.aclose()


async def test_reasoning_comes_beside_the_answer(aimock: str) -> None:
    client = provider(aimock)
    reply = await client.execute(asking("think hard"))
    streamed = await StreamingResponse(client.execute_streaming(asking("think hard"))).collect()
    assert (reply.text, reply.reasoning) == ("42", "Six times nine?")
    assert (streamed.text, streamed.reasoning) == ("42", "Six times nine?")
    await client.aclose()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("prompt", "expected", "status", "retry_after"),
    [("busy", RateLimitError, 429, 7.0), ("overload", OverloadedError, 529, None)],
)
async def test_errors_are_typed(
    aimock: str, prompt: str, streamed: bool, expected: type[ModelError], status: int, retry_after: float | None
) -> None:
    client = provider(aimock)
    with pytest.raises(expected) as caught:
        await (
            StreamingResponse(client.execute_streaming(asking(prompt))).collect()
            if streamed
            else client.execute(asking(prompt))
        )
    assert (caught.value.status, caught.value.retry_after) == (status, retry_after)
    await client.aclose()


async def test_a_stream_that_is_cut_keeps_what_came(aimock: str) -> None:
    client = provider(aimock)
    with pytest.raises(StreamInterruptedError) as caught:
        await StreamingResponse(client.execute_streaming(asking("cut"))).collect()
    assert caught.value.partial
    assert "This is cut off somewhere in the middle.".startswith(caught.value.partial)
    await client.aclose()


async def test_a_wrong_path_is_not_found(aimock: str) -> None:
    client = provider(aimock + "/nowhere")
    with pytest.raises(NotFoundError, match="check the model id and base_url"):
        await client.execute(asking("How is the weather?"))
    await client.aclose()
