"""A model server on loopback whose latencies are known: it draws them by a seed, keeps to them, and remembers them.

    python benchmarks/known_server.py     prints its port, serves until its standard input ends
    {"do": "expect", "seed": 1, "ttft": [-2.3, 0.4], "gap": [-4.6, 0.3], "tokens": 20}     draw anew, forget the past
    {"do": "told"}                     the latencies it meant, and when it said what, in the order of arrival

The first token comes after a time drawn from a log-normal distribution (its mu and sigma), every further one after a
gap drawn from another; a stream ends with its last token. It speaks OpenAI's chat completions, streamed, with usage,
and lists one model. Every moment counts from when a request's last byte was read, and timers are kept by `select`,
which counts microseconds, where epoll alone would round each of them up to whole milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import select
import selectors
import sys
from dataclasses import dataclass, field
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS = json.dumps({"object": "list", "data": [{"id": "known", "object": "model", "created": 0, "owned_by": "us"}]})


class Precise(selectors.EpollSelector):
    """Waits by `select`, which an epoll object can be given to."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0.0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0.0
        return super().select(timeout)


@dataclass
class Meant:
    """What is drawn for the requests to come, and what was drawn for those that came, in seconds."""

    seed: int = 0
    ttft: tuple[float, float] = (-3.0, 0.3)
    gap: tuple[float, float] = (-5.0, 0.3)
    tokens: int = 20
    told: list[dict[str, Any]] = field(default_factory=list)

    def draw(self) -> tuple[float, list[float]]:
        """The same for the same request number, whoever asks."""
        dice = random.Random(f"{self.seed}/{len(self.told)}")
        first = dice.lognormvariate(*self.ttft)
        gaps = [dice.lognormvariate(*self.gap) for _ in range(self.tokens - 1)]
        self.told.append({"ttft": first, "gaps": gaps, "late": 0.0, "said": []})
        return first, gaps


MEANT = Meant()


def event(data: str) -> bytes:
    body = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(body), body)


def chunk(delta: dict[str, str], finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    told = {"id": "chatcmpl-known", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "known"}
    return event(json.dumps({**told, "choices": choices, "usage": usage}))


WORD = chunk({"content": " tide"})
FIRST = chunk({"role": "assistant", "content": "The"})


class Connection(asyncio.Protocol):
    """One keep-alive connection: a request, then its stream, token by token."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            found = re.search(rb"(?i)content-length: *(\d+)", head)
            length = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < length:
                return
            self._buffer = self._buffer[length:]
            self._answer(head.partition(b"\r\n")[0])

    def _answer(self, line: bytes) -> None:
        if b"chat/completions" not in line:
            body = (MODELS if b"/models" in line else "{}").encode()
            kind = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            self._transport.write(kind + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            return
        loop = asyncio.get_running_loop()
        first, gaps = MEANT.draw()
        told = {**MEANT.told[-1], "read": loop.time()}
        MEANT.told[-1] = told
        self._transport.write(HEAD)
        self._say(told, gaps, 0, told["read"] + first, FIRST)

    def _say(self, told: dict[str, Any], gaps: list[float], at: int, due: float, piece: bytes) -> None:
        """Every token has a moment of its own, so that one which is late delays no other."""
        loop = asyncio.get_running_loop()

        def write() -> None:
            if self._transport.is_closing():
                return
            now = loop.time()
            told["late"] = max(told["late"], now - due)
            told["said"].append(now - told["read"])
            if at < len(gaps):
                self._transport.write(piece)
                self._say(told, gaps, at + 1, due + gaps[at], WORD)
                return
            usage = {"prompt_tokens": 12, "completion_tokens": len(gaps) + 1, "total_tokens": len(gaps) + 13}
            end = chunk({}, "stop") + chunk({}, usage=usage) + event("[DONE]") + b"0\r\n\r\n"
            self._transport.write(piece + end)

        loop.call_at(due, write)


def obey(command: dict[str, Any]) -> object:
    global MEANT
    if command["do"] == "told":
        return MEANT.told
    MEANT = Meant(command["seed"], tuple(command["ttft"]), tuple(command["gap"]), command["tokens"])
    return {"median_ttft": math.exp(MEANT.ttft[0])}


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=10_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(obey(json.loads(line))), flush=True)
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Precise())) as runner:
        runner.run(main())
