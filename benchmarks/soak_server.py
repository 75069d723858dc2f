"""A model server that fails one request in twenty, in every way there is, and knows exactly what it did.

    python benchmarks/soak_server.py [--faults 0.05] [--delay 50] [--seed 7]
    prints its port, serves on loopback until its standard input ends; any line gets what it did so far, as JSON

An answer takes `delay` seconds, give or take half of it: a whole one comes at once then, a stream its first piece after
half of that and the others on the way. What goes wrong is drawn by chance, from a seed:

    500, 529      an error
    reset         half of the body of a whole answer, or of a piece of a stream, and then RST
    cut           a stream ends after its last piece, without a word; a whole answer is reset
    stall         nothing at all, until the caller hangs up
    429           with a Retry-After, but at most once in `calm` seconds: it closes the limiter for all

It goes wrong when an answer would have been whole. Were failures faster, the first thing that a breaker sees of ten
thousand calls that begin together would be failures alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import struct
import sys
from collections import Counter
from random import Random

from llm_server import BACKLOG, OPENAI, USAGE, WORDS, chunk, head

PIECES = 5
FAULTS = ("500", "529", "reset", "cut")
STALLS = 0.1
"""The share of faults that are stalls: each of them keeps a caller waiting for as long as it lets itself."""
RST = struct.pack("ii", 1, 0)
_PIECE = [{"index": 0, "delta": {"content": f" {WORDS[0]}"}, "logprobs": None, "finish_reason": None}]
_STOP = [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]


def _framed(*events: str) -> bytes:
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    return b"%x\r\n%b\r\n" % (len(body), body)


HEAD = head("text/event-stream", "transfer-encoding: chunked")
PIECE = _framed(chunk(_PIECE))
LAST = _framed(chunk(_STOP), chunk([], USAGE), "[DONE]") + b"0\r\n\r\n"


def refusal(status: str, *headers: str) -> bytes:
    """An error in OpenAI's format."""
    body = json.dumps({"error": {"message": f"soak {status}", "type": "server_error", "code": None}})
    lines = [f"HTTP/1.1 {status} Soak", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class Model:
    """Decides what happens to each request, and keeps the books: every request is in `did` once, when it is over."""

    def __init__(self, faults: float, delay: float, seed: int) -> None:
        self.chance = Random(seed)
        self.faults = faults
        self.delay = delay
        self.calm = delay * 3  # seconds between two 429, so that the limiter is open most of the time
        self.retry_after = max(0.1, delay / 10)
        self.did: Counter[str] = Counter()
        self.requests = self.open = self.answering = self.most = 0
        self._next_429 = 0.0

    def outcome(self, now: float) -> str:
        if self.chance.random() >= self.faults:
            return "answered"
        if now >= self._next_429:
            self._next_429 = now + self.calm
            return "429"
        return "stall" if self.chance.random() < STALLS else self.chance.choice(FAULTS)

    def begin(self) -> None:
        self.requests += 1
        self.answering += 1
        self.most = max(self.most, self.answering)

    def end(self, what: str) -> None:
        self.answering -= 1
        self.did[what] += 1

    def told(self) -> dict[str, object]:
        most, self.most = self.most, self.answering
        did = dict(sorted(self.did.items()))
        return {"requests": self.requests, "did": did, "open": self.open, "answering": self.answering, "most": most}


class Connection(asyncio.Protocol):
    """One keep-alive connection, with at most one request on it at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._buffer = b""
        self._outcome: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._model.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._model.open -= 1
        if self._timer is not None:
            self._timer.cancel()
        if self._outcome is not None:
            self._end(self._outcome if self._outcome == "stall" else "left")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        found = re.search(rb"(?i)content-length: *(\d+)", self._buffer[:end])
        length = end + 4 + (int(found[1]) if found else 0)
        if len(self._buffer) < length:
            return
        streamed = re.search(rb'"stream": ?true', self._buffer[end + 4 : length]) is not None
        self._buffer = self._buffer[length:]
        self._begin(streamed)

    def _begin(self, streamed: bool) -> None:
        model = self._model
        model.begin()
        self._outcome = outcome = model.outcome(asyncio.get_running_loop().time())
        took = model.delay * (0.5 + model.chance.random())
        if outcome in ("500", "529"):
            self._later(took, self._write, refusal(outcome))
        elif outcome == "429":
            self._later(took, self._write, refusal(outcome, f"retry-after: {model.retry_after:g}"))
        elif outcome == "stall":
            return
        elif streamed:
            self._later(took / 2, self._piece, 1, took / 2 / PIECES)
        else:
            self._later(took, self._whole)

    def _whole(self) -> None:
        if self._outcome == "answered":
            self._write(OPENAI)
        else:
            self._outcome = "reset"
            self._break(OPENAI[: len(OPENAI) // 2])

    def _piece(self, number: int, pause: float) -> None:
        """One piece of a stream, and the next after a pause."""
        if number > PIECES:
            self._last()
        else:
            self._transport.write(HEAD + PIECE if number == 1 else PIECE)
            self._later(pause, self._piece, number + 1, pause)

    def _last(self) -> None:
        if self._outcome == "reset":
            self._break(PIECE[: len(PIECE) // 2])
        elif self._outcome == "cut":
            self._end("cut")
            self._transport.close()
        else:
            self._write(LAST)

    def _later(self, seconds: float, call: object, *arguments: object) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, call, *arguments)  # type: ignore[arg-type]

    def _write(self, answer: bytes) -> None:
        self._end(self._outcome or "")
        self._transport.write(answer)

    def _break(self, part: bytes) -> None:
        """Send this much, and reset the connection once it is on its way."""
        self._end("reset")
        self._transport.write(part)
        self._later(0.01, self._reset)

    def _reset(self) -> None:
        peer: socket.socket = self._transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self._transport.abort()

    def _end(self, what: str) -> None:
        self._outcome = self._timer = None
        self._model.end(what)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=float, default=0.05, help="the share of requests that go wrong (%(default)s)")
    parser.add_argument("--delay", type=float, default=50.0, help="seconds that an answer takes (%(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    said = parser.parse_args()
    model = Model(said.faults, said.delay, said.seed)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(model), "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):  # whoever started us has gone when this ends
        print(json.dumps(model.told()), flush=True)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
