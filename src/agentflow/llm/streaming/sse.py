"""Server-sent events: bytes in, events out, no I/O.

    b'data: {"a"'  ─feed─▶ []
    b': 1}\\n\\n'    ─feed─▶ [ServerSentEvent(data='{"a": 1}')]

Follows the WHATWG HTML standard, section 9.2 "Server-sent events", for parsing; what it says of reconnecting is not
used for model streams. The pieces may be cut anywhere, also inside a character or between CR and LF.
"""

from __future__ import annotations

import msgspec

from agentflow.errors import ProtocolError

__all__ = ["SSEParser", "ServerSentEvent"]

_BOM = b"\xef\xbb\xbf"
_MIB = 1024 * 1024


class ServerSentEvent(msgspec.Struct, frozen=True):
    """One event. `event` is "message" where the server named none; `id` is the last one seen in the stream;
    `retry` is the server's wish in milliseconds."""

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None


class SSEParser:
    """Collects bytes and hands out the events they complete.

        parser = SSEParser()
        for data in pieces:
            for event in parser.feed(data): ...
        for event in parser.close(): ...

    Lines end with LF, CRLF or CR, and with nothing else: U+2028, U+2029 and U+0085 stay inside the data. UTF-8 is
    decoded a complete line at a time; bytes that are no UTF-8 become U+FFFD, as the standard asks. Comments and unknown
    fields are ignored. A line longer than `max_line` bytes, or an event with more than `max_event` bytes of data,
    raises ProtocolError; the parser is of no use after that. The work is linear in the bytes, whatever their cut.
    """

    __slots__ = (
        "_data",
        "_event",
        "_id",
        "_line",
        "_line_size",
        "_max_event",
        "_max_line",
        "_retry",
        "_size",
        "_skip_lf",
        "_start",
    )

    def __init__(self, *, max_line: int = 8 * _MIB, max_event: int = 16 * _MIB) -> None:
        self._max_line = max_line
        self._max_event = max_event
        self._line: list[bytes] = []  # the pieces of the line that has not ended yet
        self._line_size = 0
        self._skip_lf = False  # the last piece ended with CR, whose LF may still come
        self._start = True
        self._data: list[bytes] = []  # the data lines of the event that has not ended yet
        self._size = 0
        self._event = b""
        self._id = ""
        self._retry: int | None = None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events that are complete now, most often none or one."""
        events: list[ServerSentEvent] = []
        for line in self._lines(data):
            if line:
                self._field(line)
            elif self._data:
                events.append(self._dispatch())
            else:  # a blank line without data dispatches nothing and forgets the event's name
                self._event = b""
        return events

    def close(self) -> list[ServerSentEvent]:
        """Take the end of the stream; return the event that no blank line has ended, if there is one.

        The standard drops that event. Servers of models are met whose last line is `data: [DONE]` and nothing more, so
        it is handed out, and the reader of its data decides whether it is whole. Who wants the standard does not call
        this.
        """
        if self._line:
            line = b"".join(self._line)
            self._line, self._line_size = [], 0
            self._field(self._first(line))
        return [self._dispatch()] if self._data else []

    def _lines(self, data: bytes) -> list[bytes]:
        """The lines that end within `data`, without their ends."""
        if self._skip_lf and data:
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        lines = data.splitlines()  # of bytes: at CR, LF and CRLF alone; never so for str
        if not lines:
            return lines
        ends = data[-1]
        rest = b"" if ends == 10 or ends == 13 else lines.pop()
        if lines:
            lines[0] = self._complete(lines[0])
        if rest:
            self._hold(rest)
        self._skip_lf = ends == 13
        return lines

    def _complete(self, end: bytes) -> bytes:
        """The line that ends with `end`."""
        if self._line:
            self._hold(end)
            end = b"".join(self._line)
            self._line, self._line_size = [], 0
        return self._first(end) if self._start else end

    def _first(self, line: bytes) -> bytes:
        """A byte order mark is ignored at the very start, and only there."""
        if self._start:
            self._start = False
            return line.removeprefix(_BOM)
        return line

    def _hold(self, piece: bytes) -> None:
        self._line_size += len(piece)
        self._check_line(self._line_size - len(_BOM))  # a byte order mark does not count; `_field` is exact
        self._line.append(piece)

    def _check_line(self, size: int) -> None:
        if size > self._max_line:
            raise ProtocolError(
                f"the server sent an event-stream line of more than {self._max_line:,} bytes; "
                f"no model answer is that long, so this is not the stream it should be"
            )

    def _field(self, line: bytes) -> None:
        """Process one line that is not blank."""
        self._check_line(len(line))
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._add(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 19:
            self._retry = int(value)

    def _add(self, value: bytes) -> None:
        self._size += len(value) + 1
        if self._size > self._max_event + 1:
            raise ProtocolError(f"the server sent an event with more than {self._max_event:,} bytes of data")
        self._data.append(value)

    def _dispatch(self) -> ServerSentEvent:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        event = ServerSentEvent(
            data.decode("utf-8", "replace"),
            self._event.decode("utf-8", "replace") if self._event else "message",
            self._id,
            self._retry,
        )
        self._data, self._size, self._event, self._retry = [], 0, b"", None
        return event
