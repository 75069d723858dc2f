"""A provider for the Parrot API, which answers `{"say": "Hello"}` with `{"said": "Hello", "words": [1, 1]}`.

Streamed, it sends `data: {"said": "Hel"}`, `data: {"said": "lo"}`, and `data: {"words": [1, 1]}` at the end.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from agentflow.llm.messages import Request, Response, StreamChunk, Usage
from agentflow.llm.providers.api import Auth, HTTPProvider, Wire, decoded, merged
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.failures import Source, no_answer, wire_error
from agentflow.llm.providers.http import Transport
from agentflow.llm.streaming.sse import ServerSentEvent


class Said(Struct):
    """What the API sends, whole or in pieces. A field counts only when it is there."""

    said: str | None = None
    words: tuple[int, int] | None = None
    error: object = None


SAID = msgspec.json.Decoder(Said)


class ParrotApi:
    """The wire format: pure functions, no I/O."""

    name = "parrot"

    def write(self, request: Request, *, stream: bool) -> Wire:
        body = merged({"model": request.model, "say": request.prompt, "stream": stream}, request.params)
        return Wire("/say", body)

    def read(self, body: bytes, source: Source) -> Response:
        answer = decoded(SAID, body, source)
        if answer.error is not None:
            raise wire_error(answer.error, source)
        if answer.said is None:
            raise no_answer("it says nothing", body, source)
        return Response(answer.said, source.model, source.provider, usage=usage(answer), finish_reason="stop")

    def reading(self, source: Source) -> "ParrotReading":
        return ParrotReading(source)


class ParrotReading:
    """One stream: it is whole once the words are counted."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.finished = False
        self.done = False

    def read(self, event: ServerSentEvent) -> Iterable[StreamChunk]:
        piece = decoded(SAID, event.data, self.source)
        if piece.error is not None:
            raise wire_error(piece.error, self.source)
        self.finished = self.done = piece.words is not None
        yield StreamChunk(piece.said or "", finish_reason="stop" if self.done else None, usage=usage(piece))

    def end(self) -> Iterable[StreamChunk]:
        return ()


class ParrotProvider(HTTPProvider):
    """`kind: parrot` in models.yml; its key, if any, goes into the header x-parrot-key."""

    def __init__(self, settings: ProviderSettings, transport: Transport | None = None) -> None:
        base_url = settings.base_url or "http://127.0.0.1:7070"
        super().__init__(settings, ParrotApi(), base_url=base_url, auth=Auth("x-parrot-key", ""), transport=transport)


def usage(answer: Said) -> Usage | None:
    return None if answer.words is None else Usage(*answer.words)
