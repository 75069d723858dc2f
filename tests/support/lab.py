"""A model server on loopback that says the same to the same question, and keeps a diary of who asked and was answered.

    async with Lab(seed=3) as lab:
        lab.models_yml(life=0)                a models.yml by which `lab/…` is asked in that life of a process
        await lab.until(life=0, lines=7)      that life has so many lines in the diary
        lab.diary                             [Line(0, "asked", key, prompt), Line(0, "answered", key, prompt), …]

It speaks OpenAI's chat completions, whole and streamed. How long an answer takes is drawn by the seed; what is said
follows from the prompt alone, and keeps to the number of words that it names only now and then.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from tests.support.speakers import SPEAKERS, Answer, Spent

__all__ = ["KEY", "LIFE", "MODEL", "Lab", "Line"]

LIFE, KEY = "x-life", "Idempotency-Key"
MODEL = "parrot-1"
STREAM = {"content-type": "text/event-stream"}
SLOWEST = 0.06  # seconds that an answer takes
PRICE = {"input": 1.0, "output": 2.0}  # USD for a million tokens


@dataclass(frozen=True, slots=True)
class Line:
    """Of the diary. `key` is the request's idempotency key: the same whenever the same step asks it."""

    life: int
    what: Literal["asked", "answered"]
    key: str
    prompt: str


class Lab:
    def __init__(self, seed: int) -> None:
        self.diary: list[Line] = []
        self._dice = random.Random(seed)
        self._more = asyncio.Condition()
        self._speaker = SPEAKERS["chat"]
        self._address = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Lab:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self._address = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def models_yml(self, life: int) -> str:
        lab = {"kind": "openai", "base_url": self._address, "api_key_env": None, "idempotency_header": KEY}
        lab["headers"] = {LIFE: str(life)}
        parrot = {"provider": "lab", "model_id": MODEL, "price": PRICE}
        return json.dumps({"providers": {"lab": lab}, "models": {MODEL: parrot}})  # JSON is YAML

    async def until(self, life: int, lines: int) -> None:
        async with self._more:
            await self._more.wait_for(lambda: sum(line.life == life for line in self.diary) >= lines)

    # ---- answering

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = self._speaker.asked(request.path, body).turns[-1][1]
        life, key = int(request.headers[LIFE]), request.headers[KEY]
        await self._note(Line(life, "asked", key, prompt))
        await asyncio.sleep(self._dice.random() * SLOWEST)
        text = said(prompt)
        answer = Answer(text, spent=Spent(len(prompt.split()), output=len(text.split())))
        events = self._speaker.events(answer, body) if body.get("stream") else None
        whole = web.json_response(self._speaker.whole(answer))
        response = whole if events is None else web.StreamResponse(headers=STREAM)
        with suppress(ConnectionResetError):  # whoever has asked was killed
            await self._send(request, response, events or ())
            await self._note(Line(life, "answered", key, prompt))
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, events: Iterable[bytes]) -> None:
        await response.prepare(request)
        for event in events:
            await response.write(event)
            await asyncio.sleep(self._dice.random() * SLOWEST / 4)
        await response.write_eof()

    async def _note(self, line: Line) -> None:
        async with self._more:
            self.diary.append(line)
            self._more.notify_all()


def said(prompt: str) -> str:
    """Words of the prompt, as many as it names; by every other prompt half as many again."""
    number = int(hashlib.sha256(prompt.encode()).hexdigest(), 16)
    asked, dice = [int(words) for words in re.findall(r"(\d+) words", prompt[:200])], random.Random(number)
    count = min(asked, default=20) * (3 if number % 2 else 2) // 2
    words = [dice.choice(re.findall(r"[a-z]{3,}", prompt)) for _ in range(count)]
    return " ".join(f"{word}." if at % 8 == 7 else word for at, word in enumerate(words))
