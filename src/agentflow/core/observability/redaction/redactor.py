"""Takes keys, addresses and card numbers out of what is written down.

    "key sk-proj-4f9a…, ask ada@example.org"   ──redact──▶   "key [redacted:key], ask [redacted:email]"

    redactor = Redactor(patterns={"ticket": r"TCK-\\d+"})
    redactor.redact(text)                 a text
    redactor.redact_json(value)           dictionaries (their keys, too), lists and texts, however nested

Known secrets (`know_secret`) come first, then the user's patterns, then the shapes of keys, then personal data. What
is redacted stays as it is when it is redacted again. Whoever cuts a text cuts it afterwards: half a key is not known
for one. Time grows with the text's length alone; for a pattern of the
user's own that is the user's to see to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agentflow.core.observability.plain import Plain, plain
from agentflow.core.observability.redaction.known_secrets import KNOWN, KnownSecrets
from agentflow.core.observability.redaction.personal_data import CARDS, EMAILS
from agentflow.core.observability.redaction.secret_shapes import SHAPES, Shape, Span, is_secret_field
from agentflow.errors import ConfigurationError

__all__ = ["Redactor", "redact"]

_MARK: Final = re.compile(r"\[redacted:[a-z0-9_\-]+\]")
_NAME: Final = re.compile(r"[a-z0-9_\-]{1,32}")
_ROUNDS: Final = 8  # what a first round leaves side by side may fit a pattern in the second
_DEEPEST: Final = 100
_LONGEST_INTEGER: Final = 1024  # bits; the time to write one grows with their square
_EXACT: Final = 2**53  # from here on some readers round
_SHORT: Final = 64  # characters: names and ids, which come again and again
_REMEMBERED: Final = 2_000  # of them, found clean


class Redactor:
    """Serves any number of threads, and says the same at any time. `keys`, `emails` and `cards` can each be left out.

    `patterns` are regular expressions by the name that stands in the text afterwards; `secrets` are the values that
    are known, those of the process unless others are given. Raises ConfigurationError for a pattern or name that
    cannot be used.
    """

    __slots__ = ("_clean", "_keys", "_secrets", "_shapes")

    def __init__(
        self,
        *,
        keys: bool = True,
        emails: bool = True,
        cards: bool = True,
        patterns: Mapping[str, str] = {},
        secrets: KnownSecrets = KNOWN,
    ) -> None:
        self._keys = keys
        self._secrets = secrets
        own = tuple(_own(name, pattern) for name, pattern in patterns.items())
        personal = (*((EMAILS,) if emails else ()), *((CARDS,) if cards else ()))
        self._shapes = (*own, *(SHAPES if keys else ()), *personal)
        self._clean: tuple[int, dict[str, None]] = (secrets.version, {})

    def redact(self, text: str) -> str:
        """The text, with `[redacted:kind]` for what nobody should read."""
        version, clean = self._clean
        if version != self._secrets.version or len(clean) > _REMEMBERED:
            clean = {}
            self._clean = (self._secrets.version, clean)
        if text in clean:
            return text
        for _ in range(_ROUNDS):
            cleaned = self._once(text)
            if cleaned == text:
                break
            text = cleaned
        if len(text) <= _SHORT:
            clean[text] = None  # of the version that was asked, whatever has become known since
        return text

    def describe(self) -> Plain:
        """What is redacted, by name: what a log says of its own settings."""
        return [*sorted({shape.kind for shape in self._shapes})]

    def redact_json(self, value: object, *, longest: int | None = None) -> Plain:
        """A copy, redacted, that every reader of JSON gives back as it is: numbers beyond 2⁵³ and those that are not
        finite become texts, and what JSON does not know is written as `plain` writes it. Of texts, the first `longest`
        characters are looked at and kept."""
        return _Walk(self, self._keys, longest).copy(value, 0)

    def _once(self, text: str) -> str:
        text = _without(text, "known", self._secrets.find(text)) if len(self._secrets) else text
        lower: str | None = None
        for shape in self._shapes:
            if shape.hints:
                if shape.folded:
                    lower = text.lower() if lower is None else lower
                if not _hinted(shape.hints, lower if shape.folded and lower is not None else text):
                    continue
            text = _without(text, shape.kind, shape.find(text))
        return text


def _hinted(hints: tuple[str, ...], text: str) -> bool:
    for hint in hints:  # noqa: SIM110 - a generator costs more than all of the looks
        if hint in text:
            return True
    return False


def _own(name: str, pattern: str) -> Shape:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"the name of a pattern to redact is small letters, digits, _ and -, not {name!r}")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"the pattern {name!r} is no regular expression: {error}") from None

    def find(text: str) -> Iterator[Span]:
        for match in compiled.finditer(text):
            yield match.span()

    return Shape(name, (), find)


def _without(text: str, kind: str, found: Iterator[Span]) -> str:
    spans = sorted((start, end) for start, end in found if end > start)
    if not spans:
        return text
    marks = [match.span() for match in _MARK.finditer(text)] if "[redacted:" in text else []
    mark = f"[redacted:{kind}]"
    kept: list[str] = []
    at = 0
    for start, end in _around(spans, marks):
        kept += [text[at:start], mark]
        at = end
    return "".join([*kept, text[at:]])


def _around(spans: Sequence[Span], marks: Sequence[Span]) -> Iterator[Span]:
    """The spans in order, none twice, without those parts that are redacted already."""
    at = passed = 0
    for start, end in spans:
        at = max(at, start)
        while passed < len(marks) and marks[passed][1] <= at:
            passed += 1
        for begin, finish in marks[passed:]:
            if begin >= end:
                break
            if at < begin:
                yield at, begin
            at = max(at, finish)
        if at < end:
            yield at, end
            at = end


class _Walk:
    """One copy of nested values. A container that stands in several places is copied once; one inside itself, never."""

    __slots__ = ("_fields", "_longest", "_open", "_redactor")

    def __init__(self, redactor: Redactor, fields: bool, longest: int | None) -> None:
        self._redactor = redactor
        self._longest = longest
        self._fields = fields
        self._open: set[int] = set()

    def copy(self, value: object, depth: int) -> Plain:
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, int):
            return self._number(value)
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._redactor.redact(str(plain(value)))
        if depth >= _DEEPEST or id(value) in self._open:
            return "[redacted:depth]"
        self._open.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, depth)
            return [self.copy(item, depth + 1) for item in value]
        finally:
            self._open.discard(id(value))

    def _number(self, value: int) -> Plain:
        if -(10**11) < value < 10**11:  # too short for a card
            return value
        if abs(value) >= 10**19:
            return str(value) if value.bit_length() <= _LONGEST_INTEGER else str(plain(value))
        digits = str(value)
        cleaned = self._redactor.redact(digits)
        return value if cleaned == digits and -_EXACT < value < _EXACT else cleaned

    def _text(self, text: str) -> str:
        """Redacted, and without halves of characters, which no UTF-8 holds."""
        if self._longest is not None and len(text) > self._longest:
            # Cut before: that a known secret was cut off is seen at the end of a text.
            text = f"{self._redactor.redact(text[: self._longest])}… ({len(text):,} characters)"
        else:
            text = self._redactor.redact(text)
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")

    def _mapping(self, value: Mapping[object, object], depth: int) -> Plain:
        copied: dict[str, Plain] = {}
        seen: dict[str, int] = {}
        for key, item in value.items():
            name = key if isinstance(key, str) else str(key)
            secret = self._fields and isinstance(item, str) and item != "" and is_secret_field(name)
            copied[self._free(self._text(name), copied, seen)] = (
                self._field(item) if secret and isinstance(item, str) else self.copy(item, depth + 1)
            )
        return copied

    def _field(self, item: str) -> str:
        return item if _MARK.fullmatch(item) else "[redacted:field]"

    @staticmethod
    def _free(name: str, taken: Mapping[str, Plain], seen: dict[str, int]) -> str:
        """Two keys that became one after redaction stay two."""
        while name in taken:
            seen[name] = seen.get(name, 1) + 1
            name = f"{name}#{seen[name]}"
        return name


_DEFAULT: Final = Redactor()


def redact(text: str) -> str:
    """What the usual Redactor makes of it: keys, e-mail addresses, card numbers and what is known to be secret."""
    return _DEFAULT.redact(text)
