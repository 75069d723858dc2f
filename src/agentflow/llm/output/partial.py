"""What an unfinished JSON text says so far, for answers that are shown while they are written.

    '{"title": "Tides", "tags": ["sea", "mo'  ──partial_json──▶  {"title": "Tides", "tags": ["sea", "mo"]}

What is open is closed: texts, arrays, objects. What cannot be told yet is left out: a key without a value, half an
escape, half a `true`, and a number that may go on. Each value is therefore a beginning of the next one.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from agentflow.llm.content import Json

__all__ = ["PartialJson", "partial_json"]


def partial_json(text: str) -> Json | None:
    """The value of the JSON text so far; None where nothing of it can be told. It never raises.

    What follows a finished value, or the first fault, is not looked at.
    """
    return PartialJson().feed(text)


class _Expect(Enum):
    """What may come next."""

    VALUE = auto()
    VALUE_OR_END = auto()  # after `[`
    KEY = auto()
    KEY_OR_END = auto()  # after `{`
    COLON = auto()
    COMMA_OR_END = auto()
    TEXT = auto()  # inside a text or a key
    NUMBER = auto()
    NOTHING = auto()  # the value is whole, or what came is no JSON


class PartialJson:
    """The same for a text that comes in pieces.

        partial = PartialJson()
        async for chunk in answer:
            show(partial.feed(chunk.content))

    No piece is read twice. The values given out are never changed afterwards: they share what is finished, and only
    the containers and the text that are still open are copied, so a call costs the length of its piece and the size of
    these. More than 200 containers in each other are a fault. With `prose`, whatever stands before the first `{` or `[`
    is skipped, such as a greeting or a fence.
    """

    __slots__ = ("_expect", "_is_key", "_keys", "_open", "_pieces", "_prose", "_root", "_tail", "complete")

    def __init__(self, *, prose: bool = False) -> None:
        self.complete = False
        """Whether the value is whole."""
        self._expect = _Expect.VALUE
        self._open: list[list[Json] | dict[str, Json]] = []  # containers that hold what is finished in them
        self._keys: list[str] = []  # for each open container the key that is being filled
        self._pieces: list[str] = []  # of the text or the number that is being read
        self._is_key = False
        self._tail = ""  # too little to tell what it is: half an escape, half a literal; never more than 11 characters
        self._root: Json = None
        self._prose = prose

    def feed(self, text: str) -> Json | None:
        """Add a piece and get the value so far, as from `partial_json`."""
        text, self._tail = self._tail + text, ""
        at = self._start_of_value(text)
        while at < len(text) and self._expect is not _Expect.NOTHING:
            if self._expect is _Expect.TEXT:
                at = self._read_text(text, at)
            elif self._expect is _Expect.NUMBER:
                at = self._read_number(text, at)
            else:
                at = self._read_token(text, at)
        return self.value

    @property
    def value(self) -> Json | None:
        """The value so far."""
        found, something = self._leaf()
        for container, key in zip(reversed(self._open), reversed(self._keys), strict=True):
            if isinstance(container, list):
                found = [*container, found] if something else container.copy()
            else:
                found = {**container, key: found} if something else container.copy()
            something = True
        return found

    def _leaf(self) -> tuple[Json, bool]:
        """What is being read below the innermost container, and whether there is something."""
        if self._expect is _Expect.TEXT and not self._is_key:
            self._pieces = ["".join(self._pieces)]  # or every call would join all the pieces again
            return self._pieces[0], True
        if self._open:
            return None, False
        # A number at the top has no end but the end of the text.
        if self._expect is _Expect.NUMBER:
            return _number("".join(self._pieces)), True
        return self._root, True

    def _start_of_value(self, text: str) -> int:
        if not self._prose:
            return 0
        found = _BRACKET.search(text)
        self._prose = found is None
        return len(text) if found is None else found.start()

    def _read_text(self, text: str, at: int) -> int:
        run = _PLAIN.match(text, at)
        if run is not None:
            self._pieces.append(run.group())
            return run.end()
        if text[at] == '"':
            self._end_text()
            return at + 1
        return self._read_escape(text, at)

    def _read_escape(self, text: str, at: int) -> int:
        escape = text[at : at + 12]  # two of `\uXXXX` may make one character
        if _HALF_ESCAPE.fullmatch(escape):
            return self._wait(escape, at)
        if (pair := _PAIR.match(escape)) is not None:
            high, low = int(pair[1], 16), int(pair[2], 16)
            self._pieces.append(chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)))
            return at + 12
        if (code := _UNICODE.match(escape)) is not None:
            self._pieces.append(chr(int(code[1], 16)))
            return at + 6
        if (short := _ESCAPES.get(escape[1])) is None:
            return self._give_up(text)
        self._pieces.append(short)
        return at + 2

    def _end_text(self) -> None:
        found = "".join(self._pieces)
        self._pieces.clear()
        if self._is_key:
            self._keys[-1] = found
            self._expect = _Expect.COLON
        else:
            self._finish(found)

    def _read_number(self, text: str, at: int) -> int:
        run = _NUMERIC.match(text, at)
        if run is not None:
            self._pieces.append(run.group())
            return run.end()
        found = _number("".join(self._pieces))
        self._pieces.clear()
        if found is None:
            return self._give_up(text)
        self._finish(found)
        return at

    def _read_token(self, text: str, at: int) -> int:
        """Whatever stands between texts and numbers; white space is passed over."""
        start = _SPACE.match(text, at)
        at = start.end() if start is not None else at
        if at == len(text):
            return at
        match self._expect, text[at]:
            case _Expect.COMMA_OR_END, ",":
                self._expect = _Expect.VALUE if isinstance(self._open[-1], list) else _Expect.KEY
            case (_Expect.COMMA_OR_END | _Expect.VALUE_OR_END, "]") if isinstance(self._open[-1], list):
                self._close()
            case (_Expect.COMMA_OR_END | _Expect.KEY_OR_END, "}") if isinstance(self._open[-1], dict):
                self._close()
            case _Expect.COLON, ":":
                self._expect = _Expect.VALUE
            case _Expect.KEY | _Expect.KEY_OR_END, '"':
                self._begin_text(is_key=True)
            case _Expect.VALUE | _Expect.VALUE_OR_END, _:
                return self._begin_value(text, at)
            case _:
                return self._give_up(text)
        return at + 1

    def _begin_value(self, text: str, at: int) -> int:
        match text[at]:
            case '"':
                self._begin_text(is_key=False)
            case "{" | "[" if len(self._open) == _DEEPEST:
                return self._give_up(text)
            case "{":
                self._begin({}, _Expect.KEY_OR_END)
            case "[":
                self._begin([], _Expect.VALUE_OR_END)
            case "-" | "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9":
                self._expect = _Expect.NUMBER
                return at
            case _:
                return self._read_literal(text, at)
        return at + 1

    def _read_literal(self, text: str, at: int) -> int:
        for word, value in _LITERALS:
            if text.startswith(word, at):
                self._finish(value)
                return at + len(word)
            if word.startswith(text[at:]):
                return self._wait(text[at:], at)
        return self._give_up(text)

    def _begin_text(self, *, is_key: bool) -> None:
        self._is_key = is_key
        self._expect = _Expect.TEXT

    def _begin(self, container: list[Json] | dict[str, Json], expect: _Expect) -> None:
        self._open.append(container)
        self._keys.append("")
        self._expect = expect

    def _close(self) -> None:
        self._keys.pop()
        self._finish(self._open.pop())

    def _finish(self, value: Json) -> None:
        if not self._open:
            self._root = value
            self.complete = True
            self._expect = _Expect.NOTHING
            return
        parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
        else:
            parent[self._keys[-1]] = value
        self._expect = _Expect.COMMA_OR_END

    def _wait(self, tail: str, at: int) -> int:
        self._tail = tail
        return at + len(tail)

    def _give_up(self, text: str) -> int:
        self._pieces.clear()
        self._expect = _Expect.NOTHING
        return len(text)


_DEEPEST: Final = 200  # each call copies what is open, and no answer that somebody wants to see has more
_SPACE: Final = re.compile(r"[ \t\n\r]+")
_BRACKET: Final = re.compile(r"[\[{]")
_PLAIN: Final = re.compile(r'[^"\\]+')
_NUMERIC: Final = re.compile(r"[-+.eE0-9]+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)")
_UNICODE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_PAIR: Final = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
# A backslash that something may follow, and half of a pair of which the other half may come.
_HALF_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(\\(u[0-9a-fA-F]{0,3})?)?)?")
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS: Final[tuple[tuple[str, Json], ...]] = (("true", True), ("false", False), ("null", None))


def _number(text: str) -> int | float | None:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    try:
        return float(text) if found["fraction"] else int(text)
    except ValueError:  # an int of more digits than Python reads
        return None
