"""Recorded API traffic for the tests of the adapters: the recordings of one API, and a transport that replays them.

    for recording in recordings(folder, "/chat/completions"):
        transport = Replay(recording, piece=7)      what is sent is kept, what comes back is cut into 7-byte pieces

The recordings lie outside the project; tests that need them skip where they are missing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from agentflow.llm.providers.http import Answer

__all__ = ["Comparison", "Recording", "Replay", "recordings", "same_json"]


@dataclass(frozen=True)
class Recording:
    """One recorded exchange. `request` is the JSON body, `body` the bytes of the answer."""

    file: str
    uri: str
    request: dict[str, Any]
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def host(self) -> str:
        return urlsplit(self.uri).netloc

    @property
    def path(self) -> str:
        return urlsplit(self.uri).path

    @property
    def streamed(self) -> bool:
        """Whether the answer is a stream of events."""
        return "event-stream" in self.headers.get("content-type", "") or self.body[:6] in (b"data: ", b"event:")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[dict[str, Any]]:
        """The JSON of every event, read by splitting text: no code of ours."""
        lines = self.body.decode().replace("\r\n", "\n").split("\n")
        return [json.loads(line[5:]) for line in lines if line.startswith("data:") and line[5:].strip() != "[DONE]"]


@cache
def recordings(folder: Path, *endings: str) -> tuple[Recording, ...]:
    """Every POST with a JSON body whose path ends with one of `endings`, in the order of the files."""
    found = []
    for file in sorted(folder.rglob("*.yaml")):
        text = file.read_text()
        if not any(ending in text for ending in endings):
            continue
        for item in (yaml.load(text, yaml.CSafeLoader) or {}).get("interactions", []):
            if item["request"]["method"].upper() == "POST" and urlsplit(item["request"]["uri"]).path.endswith(endings):
                found.append(_recording(str(file.relative_to(folder)), item))
    return tuple(found)


def _recording(file: str, item: Mapping[str, Any]) -> Recording:
    request, response = item["request"], item["response"]
    return Recording(
        file,
        request["uri"],
        json.loads(_body(request) or "{}"),
        response["status"]["code"],
        {name.lower(): _first(value) for name, value in (response.get("headers") or {}).items()},
        _body(response),
    )


def _body(message: Mapping[str, Any]) -> bytes:
    """What was sent, however the recorder wrote it: parsed, as text, as `{string: …}` or as `{type, content}`."""
    if message.get("parsed_body") is not None:
        return json.dumps(message["parsed_body"]).encode()
    body = message.get("body")
    if isinstance(body, Mapping) and "content" in body:
        body = body["content"]
        return body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return _bytes(body)


def _first(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else value[0]


def _bytes(body: Any) -> bytes:
    body = body.get("string") if isinstance(body, dict) else body
    raw = body.encode() if isinstance(body, str) else body or b""
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


# ---- replaying -----------------------------------------------------------------------------------------------


@dataclass
class Replay:
    """A transport that answers with one recording, its body cut into pieces of `piece` bytes (0: whole)."""

    recording: Recording
    piece: int = 0
    sent: list[tuple[str, Any]] = field(default_factory=list)

    async def post(
        self, path: str, body: bytes, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        self.sent.append((path, json.loads(body)))
        return Answer(self.recording.status, self.recording.headers, self.recording.body)

    async def get(
        self, path: str, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return Answer(self.recording.status, self.recording.headers, self.recording.body)

    async def stream(
        self, path: str, body: bytes, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> ReplayedStream:
        self.sent.append((path, json.loads(body)))
        return ReplayedStream(self.recording, self.piece)

    async def aclose(self) -> None:
        """Nothing is open."""


class ReplayedStream:
    """The pieces of a recorded body."""

    def __init__(self, recording: Recording, piece: int) -> None:
        self.status = recording.status
        self.headers = recording.headers
        self._left = recording.body
        self._piece = piece

    async def read(self) -> bytes:
        piece = self._left[: self._piece] if self._piece else self._left
        self._left = self._left[len(piece) :]
        return piece

    async def finish(self) -> None:
        """The rest is not needed."""

    def close(self) -> None:
        """Nothing is open."""


# ---- comparing -----------------------------------------------------------------------------------------------


def same_json(left: Any, right: Any) -> bool:
    """JSON equality: the order of keys aside; 1 and 1.0 are one number, True is none."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


@dataclass
class Comparison:
    """How many recordings were compared, how many agreed, and why the rest did not."""

    name: str
    compared: int = 0
    agreed: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def note(self, file: str, agrees: bool, reason: str = "") -> None:
        self.compared += 1
        self.agreed += agrees
        if not agrees:
            self.reasons.append((file, reason))

    @property
    def share(self) -> float:
        return self.agreed / self.compared if self.compared else 1.0

    def lines(self) -> list[str]:
        return [
            f"{self.name}: {self.agreed} of {self.compared} agree ({self.share:.1%})",
            *(f"    {file}: {reason}" for file, reason in self.reasons),
        ]
