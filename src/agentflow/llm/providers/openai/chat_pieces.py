"""What of an answer comes in pieces that are more than words: sound, thoughts in parts, and details of thoughts.

    Voice.hear({"transcript": "Hel", "data": "UklG"})        →  "Hel"   … .sound()   →  Audio
    Thought.add({"type": "thinking", "thinking": [{…}]})     →  "Hm"    … .own()     →  what the part has beside words
    Details.add([{"type": "reasoning.text", "text": "Hm"}])             … .whole()   →  [{…}, …]

Pieces are kept as they come and joined once. A whole answer is one piece.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

from agentflow.llm.content import Audio, Json
from agentflow.llm.providers.lenient import mappings, text

__all__ = ["Details", "Thought", "Voice", "details_text"]

_GROWING: Final = ("text", "summary")  # of details
_CIPHER: Final = "reasoning.encrypted"


class Voice:
    """A spoken answer: its words are handed on at once, its sound at the end. When it goes back, its id stands for
    both."""

    __slots__ = ("_api", "_id", "_pieces", "facts", "spoke")

    def __init__(self, api: str) -> None:
        self._api = api
        self._id = ""
        self._pieces: list[str] = []
        self.spoke = False
        self.facts: dict[str, Json] = {}
        """What else is said of it, such as how long it can be referred to."""

    def hear(self, audio: Mapping[str, Any]) -> str:
        """The words of a piece."""
        self._id = text(audio.get("id")) or self._id
        if data := text(audio.get("data")):
            self._pieces.append(data)
        self.facts.update(
            {name: value for name, value in audio.items() if value and name not in ("id", "data", "transcript")}
        )
        words = text(audio.get("transcript"))
        self.spoke = self.spoke or bool(words)
        return words

    @property
    def mark(self) -> Mapping[str, Json]:
        """What the parts of the answer have as opaque data."""
        return {self._api: {"audio": {"id": self._id}}} if self._id else {}

    def sound(self) -> Audio | None:
        return Audio(f"data:;base64,{_base64(self._pieces)}", opaque=self.mark) if self._pieces else None


def _base64(pieces: list[str]) -> str:
    """Each piece of a stream is base64 of its own; where it is not, it was cut anywhere."""
    if len(pieces) == 1:
        return pieces[0]
    try:
        return base64.b64encode(b"".join([base64.b64decode(piece, validate=True) for piece in pieces])).decode()
    except ValueError:
        return "".join(pieces)


class Thought:
    """A thought that is a part of the content (Mistral): a text, or a list of texts and references. Texts one after
    another are one, and where that is all, the words alone say it."""

    __slots__ = ("_fields", "_pieces", "_plain")

    def __init__(self) -> None:
        self._fields: dict[str, Json] = {}
        self._pieces: list[dict[str, Any]] = []
        self._plain = False

    def add(self, item: Mapping[str, Any]) -> str:
        """The words of a piece."""
        thinking = item.get("thinking")
        self._fields.update({name: value for name, value in item.items() if name != "thinking"})
        if isinstance(thinking, str):
            self._plain = True
            return thinking
        pieces = mappings(thinking)
        self._pieces += pieces
        return details_text(pieces)

    def own(self) -> dict[str, Json]:
        """What the part has beside its words: `thinking` is left out, or an empty text where it came as a text."""
        if self._plain:
            return {**self._fields, "thinking": ""}
        whole: list[dict[str, Any]] = []
        for is_text, run in groupby(self._pieces, _is_text):
            pieces = list(run)
            whole += [{"type": "text", "text": "".join([piece["text"] for piece in pieces])}] if is_text else pieces
        return self._fields if len(whole) == 1 and _is_text(whole[0]) else {**self._fields, "thinking": whole}


def _is_text(piece: Mapping[str, Any]) -> bool:
    return piece.keys() == {"type", "text"} and piece["type"] == "text" and isinstance(piece["text"], str)


class Details:
    """Details of thoughts (OpenRouter): pieces of one number and kind are one; a cipher is always one of its own."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: list[tuple[dict[str, Json], dict[str, list[str]]]] = []

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, pieces: object) -> None:
        for piece in mappings(pieces):
            growing = {name: piece[name] for name in _GROWING if isinstance(piece.get(name), str)}
            known = None if piece.get("type") == _CIPHER else self._begun(piece)
            if known is None:
                self._known.append((dict(piece), {name: [words] for name, words in growing.items()}))
                continue
            fields, words_of = known
            fields.update({name: value for name, value in piece.items() if value is not None})
            for name, words in growing.items():
                words_of.setdefault(name, []).append(words)

    def _begun(self, piece: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, list[str]]] | None:
        return next((known for known in reversed(self._known) if _goes_on(known[0], piece)), None)

    def whole(self) -> list[dict[str, Json]]:
        return [
            {**fields, **{name: "".join(words) for name, words in words_of.items()}} for fields, words_of in self._known
        ]


def _goes_on(item: Mapping[str, Json], piece: Mapping[str, Json]) -> bool:
    if item.get("type") != piece.get("type") or item.get("index") != piece.get("index"):
        return False
    return piece.get("id") is None or item.get("id") is None or item["id"] == piece["id"]


def details_text(details: object) -> str:
    """The readable part of a list of thoughts; ciphers have none."""
    return "".join([text(item.get("text") or item.get("summary")) for item in mappings(details)])
