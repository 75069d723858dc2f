"""One answer as it is kept: what was said, how it came, until when it holds; packed, and sealed by its tenant's key.

    Kept ──pack(key, name)──▶  seal · msgpack  ──unpack──▶  the same Kept, or None for what is not whole

The seal is a MAC over the name and the text: what is damaged, cut off, moved to another name or written by another
tenant is not read. Nothing is pickled, so a file that somebody else has written can say wrong things and run nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agentflow.llm.content import plain
from agentflow.llm.messages import Response, StreamChunk, Usage
from agentflow.llm.streaming.join import chunks_of, join

__all__ = ["Kept", "Piece", "Times", "kept_answer", "kept_stream", "pack", "unpack"]

_SEAL: Final = 16  # bytes

_encoder: Final = msgspec.msgpack.Encoder(enc_hook=plain)


class Piece(Struct, frozen=True, array_like=True):
    """A chunk, and how many seconds after the stream's beginning it came."""

    at: float
    chunk: StreamChunk


class Kept(Struct, frozen=True, array_like=True):
    """`expires` is when the answer is too old, `gone` until when it may be given although it is; both, and `created`,
    are seconds since 1970. `cost` is what it has cost, USD. `labels` are what it is purged by. A streamed answer is
    kept as its `pieces`, any other as `whole`; a text's vector is kept as 64-bit floats."""

    created: float
    expires: float
    gone: float
    provider: str
    model: str
    cost: float | None
    labels: tuple[str, ...]
    whole: Response | None = None
    pieces: tuple[Piece, ...] = ()
    vector: bytes = b""

    def answer(self, tier: str) -> Response:
        """The answer as a hit: it costs nothing."""
        whole = self.whole
        if whole is None:
            whole = join([piece.chunk for piece in self.pieces], provider=self.provider, model=self.model)
        return replace(whole, cost=0.0, cache_hit=tier)

    def chunks(self, tier: str) -> Sequence[Piece]:
        """The same in pieces; one that did not come in pieces comes at once."""
        if not self.pieces:
            return [Piece(0.0, chunk) for chunk in chunks_of(self.answer(tier))]
        last = self.pieces[-1]
        return [*self.pieces[:-1], Piece(last.at, replace(last.chunk, cost=0.0, cache_hit=tier))]

    @property
    def usage(self) -> Usage | None:
        """What it once took."""
        if self.whole is not None:
            return self.whole.usage
        return next((piece.chunk.usage for piece in reversed(self.pieces) if piece.chunk.usage is not None), None)

    @property
    def is_plain(self) -> bool:
        """Whether nothing in it could be changed by whoever gets it, so that all may get the same object."""
        whole = self.whole
        if whole is not None:
            return isinstance(whole.content, str) and not (whole.opaque or whole.alternatives)
        return all(_is_plain(piece.chunk) for piece in self.pieces)


def _is_plain(chunk: StreamChunk) -> bool:
    return not (chunk.opaque or chunk.tool_calls or chunk.part)


class Times(Struct, frozen=True):
    """When an answer was given, when it is too old, and until when it may be given all the same."""

    created: float
    expires: float
    gone: float


_decoder: Final = msgspec.msgpack.Decoder(Kept)


def kept_answer(answer: Response, times: Times, labels: tuple[str, ...]) -> Kept:
    """What is kept of a whole answer. Where its time went and which run it was part of is no part of it."""
    bare = replace(answer, timing=None, run_id=None, cost=None, cache_hit=None)
    return _kept(answer, times, labels, bare, ())


def kept_stream(pieces: Sequence[Piece], answer: Response, times: Times, labels: tuple[str, ...]) -> Kept:
    """What is kept of a stream whose chunks add up to `answer`. One that was begun anew is kept as what it became."""
    if any(piece.chunk.restart or piece.chunk.round or piece.chunk.turn is not None for piece in pieces):
        return kept_answer(answer, times, labels)
    return _kept(answer, times, labels, None, tuple([Piece(round(each.at, 4), _unpaid(each.chunk)) for each in pieces]))


def _kept(
    answer: Response, times: Times, labels: tuple[str, ...], whole: Response | None, pieces: tuple[Piece, ...]
) -> Kept:
    return Kept(
        times.created, times.expires, times.gone, answer.provider, answer.model, answer.cost, labels, whole, pieces
    )


def _unpaid(chunk: StreamChunk) -> StreamChunk:
    if chunk.cost is None and chunk.cache_hit is None:
        return chunk
    return replace(chunk, cost=None, cache_hit=None)


def pack(kept: Kept, key: bytes, name: str) -> bytes | None:
    """None for what msgpack cannot hold, such as a number of more than 64 bits."""
    try:
        text = _encoder.encode(kept)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return _seal(text, key, name) + text


def unpack(packed: bytes, key: bytes, name: str) -> Kept | None:
    """None for what is damaged, of another form, or not this tenant's."""
    seal, text = packed[:_SEAL], packed[_SEAL:]
    if not hmac.compare_digest(seal, _seal(text, key, name)):
        return None
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _seal(text: bytes, key: bytes, name: str) -> bytes:
    """BLAKE2b with a key is a MAC by itself (RFC 7693). The name comes first, and always has the same length."""
    made = hashlib.blake2b(name.encode(), key=key, digest_size=_SEAL, person=b"agentflow-cache")
    made.update(text)
    return made.digest()
