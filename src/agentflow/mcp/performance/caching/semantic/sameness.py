"""Whether two answers say the same: what makes a label of what the model was asked anew.

    kept = judge.digest(cached answer)    ──  a few bytes, so that no second copy of the answer is held
    await judge.same(kept, fresh answer)  ──▶  True or False

- `SameText` compares texts, letters and digits alone: for short, factual answers, classes, JSON.
- `SameVector` embeds answers and compares directions: for prose, which hardly ever comes in the same words twice.
- `SameBy` asks your function, sync or async: it gets both texts, so these are kept.

A judge that is too lenient makes wrong answers count as right, and no bound on the error can then hold.
"""

from __future__ import annotations

import hashlib
import inspect
import unicodedata
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy as np

from agentflow.llm.messages import Response
from agentflow.mcp.performance.caching.semantic.embedding import Embedder
from agentflow.mcp.performance.caching.semantic.index import unit
from agentflow.mcp.performance.caching.semantic.marks import marks_of

__all__ = ["Judge", "Same", "SameBy", "SameText", "SameVector"]

Same: TypeAlias = Callable[[str, str], bool | Awaitable[bool]]
"""Gets the cached answer's text and the fresh one's."""

_LONGEST: Final = 20_000  # characters of an answer that are kept for a function to compare


@runtime_checkable
class Judge(Protocol):
    """Says whether answers are the same. Both may raise what an embedding service raises."""

    async def digest(self, answer: Response) -> bytes: ...

    async def same(self, kept: bytes, fresh: Response) -> bool: ...


class SameText:
    """The same letters and digits in the same order, whatever their case, spacing and punctuation; and the same calls
    of tools. Signs that mean something between digits (1.5, -3, 10%) count."""

    async def digest(self, answer: Response) -> bytes:
        return hashlib.sha256(_normal(answer).encode("utf-8", "surrogatepass")).digest()[:16]

    async def same(self, kept: bytes, fresh: Response) -> bool:
        return kept == await self.digest(fresh)


class SameVector:
    """A cosine of at least `least` between the answers' embeddings. It does not see a changed number, so those veto."""

    def __init__(self, embedder: Embedder, *, least: float = 0.9) -> None:
        self._embedder = embedder
        self._least = least

    async def digest(self, answer: Response) -> bytes:
        text = answer.text
        vector = unit(await self._embedder.embed(text))
        numbers = marks_of(text).exact[0]
        return b"" if vector is None else numbers.to_bytes(8) + vector.astype(np.float32).tobytes()

    async def same(self, kept: bytes, fresh: Response) -> bool:
        other = await self.digest(fresh)
        if len(kept) != len(other) or kept[:8] != other[:8] or not kept:
            return False
        return float(np.frombuffer(kept[8:], np.float32) @ np.frombuffer(other[8:], np.float32)) >= self._least


class SameBy:
    """What a function says."""

    def __init__(self, same: Same) -> None:
        self._same = same

    async def digest(self, answer: Response) -> bytes:
        return answer.text[:_LONGEST].encode("utf-8", "surrogatepass")

    async def same(self, kept: bytes, fresh: Response) -> bool:
        said = self._same(kept.decode("utf-8", "surrogatepass"), fresh.text[:_LONGEST])
        return bool(await said if inspect.isawaitable(said) else said)


def _normal(answer: Response) -> str:
    """What is compared: words without ornament, then the calls."""
    text = unicodedata.normalize("NFKC", answer.text).casefold()
    kept = [sign if sign.isalnum() or _means(text, place) else " " for place, sign in enumerate(text)]
    calls = [(call.name, call.arguments) for call in answer.tool_calls]
    return " ".join("".join(kept).split()) + (
        "" if not calls else "\x00" + msgspec.json.encode(calls, order="sorted").decode()
    )


def _means(text: str, place: int) -> bool:
    """Whether a sign belongs to a number: 1.5, 1,000, -3, 10%, 3°, or is one of arithmetic or money."""
    sign, before, after = text[place], text[place - 1 : place], text[place + 1 : place + 2]
    if sign in ".,:":
        return before.isdigit() and after.isdigit()
    if sign in "-−":
        return after.isdigit() and not before.isalnum()
    if sign in "*/+":  # not where it marks what is bold, or begins a line of a list
        return text[:place].rstrip()[-1:].isalnum() and text[place + 1 :].lstrip()[:1].isalnum()
    return sign in "%°$€£¥=<>^&|~" or (sign == "!" and after == "=")
