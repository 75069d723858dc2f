"""Reads what a browser writes: a PNG of eight bits a channel, without interlacing, as rows of (red, green, blue)."""

from __future__ import annotations

import struct
import zlib

__all__ = ["Picture"]


class Picture:
    """`picture.at(x, y)` is a colour; `width` and `height` are in pixels."""

    def __init__(self, data: bytes) -> None:
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        at, packed = 8, b""
        while at < len(data):
            [size], name = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
            body = data[at + 8 : at + 8 + size]
            if name == b"IHDR":
                self.width, self.height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", body)
                assert (depth, interlaced) == (8, 0)
                self._channels = {2: 3, 6: 4}[kind]
            elif name == b"IDAT":
                packed += body
            at += 12 + size
        self._rows = self._unfiltered(zlib.decompress(packed))

    def at(self, x: float, y: float) -> tuple[int, int, int]:
        row = self._rows[int(y)]
        start = int(x) * self._channels
        return row[start], row[start + 1], row[start + 2]

    def colours(self, step: int = 7) -> set[tuple[int, int, int]]:
        """Those of a grid over all of it."""
        return {self.at(x, y) for y in range(0, self.height, step) for x in range(0, self.width, step)}

    def _unfiltered(self, data: bytes) -> list[bytearray]:
        wide, ahead = self.width * self._channels, self._channels
        rows: list[bytearray] = []
        above = bytearray(wide)
        for start in range(0, len(data), wide + 1):
            kind, row = data[start], bytearray(data[start + 1 : start + 1 + wide])
            if kind == 1:
                for i in range(ahead, wide):
                    row[i] = (row[i] + row[i - ahead]) & 255
            elif kind == 2:
                row = bytearray((one + two) & 255 for one, two in zip(row, above, strict=True))
            elif kind == 3:
                for i in range(wide):
                    left = row[i - ahead] if i >= ahead else 0
                    row[i] = (row[i] + (left + above[i]) // 2) & 255
            elif kind == 4:
                for i in range(wide):
                    left = row[i - ahead] if i >= ahead else 0
                    corner = above[i - ahead] if i >= ahead else 0
                    row[i] = (row[i] + _nearest(left, above[i], corner)) & 255
            rows.append(row)
            above = row
        return rows


def _nearest(left: int, above: int, corner: int) -> int:
    """Paeth's predictor."""
    guess = left + above - corner
    by_left, by_above, by_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
    if by_left <= by_above and by_left <= by_corner:
        return left
    return above if by_above <= by_corner else corner
