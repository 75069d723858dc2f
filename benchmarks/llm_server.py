"""A server that answers model calls as fast as asyncio can, so that what is measured is the client.

    python benchmarks/llm_server.py       prints its port, serves on loopback until its standard input ends
    {"do": "peak"}                        on its standard input: the most that was open, and held back, since last asked

It knows one answer, in the formats of OpenAI, Anthropic and Google, which it tells apart by the path. The prompt says
what it does with it: `"stream": true` in an OpenAI request gets it in as many pieces as `pieces=50` says, all in one
write, and `delay=1000` holds an answer back for so many milliseconds, as a model does. Nothing is parsed beyond the
length of the body, and every byte sent was made before.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from functools import lru_cache

ANSWER = "The tide is the rise and fall of the sea that the moon and the sun cause together"
WORDS = ANSWER.split()
USAGE = {"prompt_tokens": 12, "completion_tokens": 19, "total_tokens": 31}
BACKLOG = 10_000


def openai() -> dict[str, object]:
    """A whole answer, with the fields that OpenAI's has; Moonshot's is the same."""
    message: dict[str, object] = {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []}
    return {
        "id": "chatcmpl-BenchmarkBenchmarkBenchmark",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_0000000000",
    }


def anthropic() -> dict[str, object]:
    return {
        "id": "msg_BenchmarkBenchmark",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": ANSWER}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 19},
    }


def anthropic_stream() -> bytes:
    """The same in events, because some clients always stream from there."""
    message = anthropic()
    text = {"type": "text", "text": ANSWER}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {**text, "type": "text_delta"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": message["usage"]},
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    return head("text/event-stream", f"content-length: {len(body)}") + body


def google() -> dict[str, object]:
    content = {"role": "model", "parts": [{"text": ANSWER}]}
    return {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 19, "totalTokenCount": 31},
        "modelVersion": "gemini-2.5-flash",
        "responseId": "BenchmarkBenchmark",
    }


def whole(answer: Mapping[str, object]) -> bytes:
    text = json.dumps(answer).encode()
    return head("application/json", f"content-length: {len(text)}") + text


@lru_cache
def stream(pieces: int) -> bytes:
    """A streamed answer: `pieces` chunks with text, one with the finish reason, one with usage, and the end mark."""
    deltas = [{"content": f" {WORDS[index % len(WORDS)]}"} for index in range(pieces)]
    choices: list[list[dict[str, object]]] = [
        [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}] for delta in deltas
    ]
    choices.append([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    events = [chunk(choice) for choice in choices] + [chunk([], USAGE), "[DONE]"]
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    return head("text/event-stream", "transfer-encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def chunk(choices: list[dict[str, object]], usage: object = None) -> str:
    chunk = {
        "id": "chatcmpl-BenchmarkBenchmarkBenchmark",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "system_fingerprint": "fp_0000000000",
        "choices": choices,
        "usage": usage,
    }
    return json.dumps(chunk)


def head(kind: str, length: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nx-request-id: req_benchmark\r\n{length}\r\n\r\n".encode()


OPENAI, ANTHROPIC, GOOGLE = whole(openai()), whole(anthropic()), whole(google())
ANTHROPIC_STREAM = anthropic_stream()


class Peak:
    """How many connections are open and how many answers held back, and the most there were."""

    connections = requests = 0
    most: tuple[int, int] = (0, 0)

    def count(self, *, connections: int = 0, requests: int = 0) -> None:
        self.connections += connections
        self.requests += requests
        self.most = (max(self.most[0], self.connections), max(self.most[1], self.requests))

    def told(self) -> dict[str, int]:
        """The most since the last time."""
        connections, requests = self.most
        self.most = (self.connections, self.requests)
        return {"connections": connections, "requests": requests}


PEAK = Peak()


class Connection(asyncio.Protocol):
    """One keep-alive connection: collects a request, answers it, goes on with what is left."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        PEAK.count(connections=1)

    def connection_lost(self, exc: Exception | None) -> None:
        PEAK.count(connections=-1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            found = re.search(rb"(?i)content-length: *(\d+)", head)
            length = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < length:
                return
            body, self._buffer = self._buffer[end + 4 : length], self._buffer[length:]
            self._answer(head.partition(b"\r\n")[0], body)

    def _answer(self, line: bytes, body: bytes) -> None:
        delay = re.search(rb"delay=(\d+)", body)
        if delay is None:
            self._transport.write(reply(line, body))
            return
        PEAK.count(requests=1)
        asyncio.get_running_loop().call_later(int(delay[1]) / 1e3, self._late, reply(line, body))

    def _late(self, answer: bytes) -> None:
        PEAK.count(requests=-1)
        self._transport.write(answer)


def reply(line: bytes, body: bytes) -> bytes:
    """The bytes for a request line and a body."""
    streamed = re.search(rb'"stream": ?true', body)
    if b"/messages" in line:
        return ANTHROPIC_STREAM if streamed else ANTHROPIC
    if b"generateContent" in line:
        return GOOGLE
    if not streamed:
        return OPENAI
    pieces = re.search(rb"pieces=(\d+)", body)
    return stream(int(pieces[1]) if pieces else 50)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):  # whoever started us has gone when this ends
        print(json.dumps(PEAK.told()), flush=True)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
