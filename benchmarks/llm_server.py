"""A server that answers chat completions as fast as asyncio can, so that what is measured is the client.

    python benchmarks/llm_server.py            prints its port, serves on loopback until its standard input ends

It knows one answer. A request with `"stream": true` gets it in pieces: as many as the prompt says (`pieces=50`), all in
one write. Nothing is parsed beyond the length of the body, and every byte sent was made before.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from functools import lru_cache

ANSWER = "The tide is the rise and fall of the sea that the moon and the sun cause together"
WORDS = ANSWER.split()
USAGE = {"prompt_tokens": 12, "completion_tokens": 19, "total_tokens": 31}


def answer() -> bytes:
    """A whole answer, with the fields that OpenAI's has."""
    message: dict[str, object] = {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []}
    body = {
        "id": "chatcmpl-BenchmarkBenchmarkBenchmark",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_0000000000",
    }
    text = json.dumps(body).encode()
    return _head("application/json", f"content-length: {len(text)}") + text


@lru_cache
def stream(pieces: int) -> bytes:
    """A streamed answer: `pieces` chunks with text, one with the finish reason, one with usage, and the end mark."""
    deltas = [{"content": f" {WORDS[index % len(WORDS)]}"} for index in range(pieces)]
    choices: list[list[dict[str, object]]] = [
        [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}] for delta in deltas
    ]
    choices.append([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    events = [_chunk(choice) for choice in choices] + [_chunk([], USAGE), "[DONE]"]
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    return _head("text/event-stream", "transfer-encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _chunk(choices: list[dict[str, object]], usage: object = None) -> str:
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


def _head(kind: str, length: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nx-request-id: req_benchmark\r\n{length}\r\n\r\n".encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection: collects a request, answers it, goes on with what is left."""

    whole = answer()

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = re.search(rb"(?i)content-length: *(\d+)", self._buffer[:end])
            length = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < length:
                return
            request, self._buffer = self._buffer[end + 4 : length], self._buffer[length:]
            self._transport.write(reply(request))


def reply(request: bytes) -> bytes:
    if not re.search(rb'"stream": ?true', request):
        return Connection.whole
    pieces = re.search(rb"pieces=(\d+)", request)
    return stream(int(pieces[1]) if pieces else 50)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=2_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # whoever started us has gone when this ends
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
