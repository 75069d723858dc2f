"""Decompression in bounded steps, for servers that compress what nobody asked them to."""

from __future__ import annotations

import zlib

__all__ = ["Unzip"]

_UNZIPPED = 64 * 1024  # bytes that one step of decompression may give


class Unzip:
    """Undoes gzip and deflate in steps of at most 64 KiB, so that few bytes cannot fill the memory.

        unzip.feed(packed)
        while unzip.has_more:
            piece = unzip.next()

    Raises zlib.error for what is not so compressed, and in `end()` when it is not whole.
    """

    __slots__ = ("_packed", "_zlib", "has_more")

    def __init__(self, encoding: str) -> None:
        known = encoding.strip().lower() in ("gzip", "x-gzip", "deflate")
        self._zlib = _new_zlib() if known else None
        self._packed = b""
        self.has_more = False

    def feed(self, packed: bytes) -> None:
        self._packed = packed
        self.has_more = True

    def next(self) -> bytes:
        if self._zlib is None:
            raise zlib.error("only gzip and deflate are understood")
        if self._zlib.eof:
            self._zlib = _new_zlib()  # gzip files may stand one behind the other
        piece = self._zlib.decompress(self._packed, _UNZIPPED)
        self._packed = self._zlib.unconsumed_tail or self._zlib.unused_data
        # A full step may have left bytes inside zlib, without any input that waits.
        self.has_more = bool(self._packed) or (len(piece) == _UNZIPPED and not self._zlib.eof)
        return piece

    def end(self) -> None:
        if self._zlib is not None and not self._zlib.eof:
            raise zlib.error("it ends too early")


def _new_zlib() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, by the first bytes
