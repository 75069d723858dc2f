"""A log record as one line: JSON for machines, text for people; no key in it, and none that fails or has no end.

    JsonLines   {"time":"2026-11-30T09:15:00.125000Z","level":"INFO","logger":"shop","message":"paid","run_id":"…",…}
    TextLines   2026-11-30T09:15:00.125000Z INFO    shop: paid  [018f… article/write#1]
    Redacting   what any other formatter makes of it, without keys

Messages, exceptions and extras are redacted first and cut then, at some 30,000 characters each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from json import dumps
from typing import Final

from agentflow.core.observability.plain import Plain, cut, plain
from agentflow.core.observability.redaction.redactor import Redactor

__all__ = ["BOUND", "JsonLines", "Redacting", "TextLines"]

BOUND: Final = ("run_id", "node", "path", "span", "tenant")
"""What says where in a run a record was written."""

_LONGEST: Final = 32_768  # characters of a message, an exception, a text among the extras
_MARGIN: Final = 4_096  # what is read beyond that, so that no key is cut in two before it is found
_OWN: Final = frozenset(("time", "level", "logger", "message", "exception", "stack"))
_USUAL: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NO_EXTRAS: Final = _USUAL | frozenset(BOUND)
_CONTROLS: Final[Mapping[int, str]] = {n: f"\\x{n:02x}" for n in (*range(9), *range(11, 32), *range(127, 160))}


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, where it was written, exception, and what `extra=` held.

    An extra that bears one of these names is told as `extra.…`.
    """

    def __init__(self, redactor: Redactor | None = None, *, longest: int = _LONGEST) -> None:
        super().__init__()
        self._redactor = redactor or Redactor()
        self._longest = longest

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": self._text(_message(record)),
        }
        held = vars(record)
        beside = {name: held[name] for name in BOUND if held.get(name) not in (None, "", 0)}
        beside |= {_extra(name): value for name, value in held.items() if name not in _NO_EXTRAS}
        line |= self._values(beside)
        if record.exc_info or record.exc_text:
            line["exception"] = self._text(_exception(self, record), end=True)
        if record.stack_info:
            line["stack"] = self._text(record.stack_info, end=True)
        return dumps(plain(line, longest=2 * self._longest), allow_nan=False, separators=(",", ":"))

    def _text(self, text: str, *, end: bool = False) -> str:
        return _bounded(text, self._redactor, self._longest, end)

    def _values(self, values: dict[str, object]) -> dict[str, Plain]:
        copied = plain(values, longest=self._longest + _MARGIN)
        cleaned = plain(self._redactor.redact_json(copied), longest=self._longest)
        return cleaned if isinstance(cleaned, dict) else {}


class TextLines(logging.Formatter):
    """A line for people: time, level, logger, message, and in which run and where.

    What follows a line break is indented and control characters are written out: no message looks like several.
    """

    def __init__(self, redactor: Redactor | None = None, *, longest: int = _LONGEST) -> None:
        super().__init__()
        self._redactor = redactor or Redactor()
        self._longest = longest

    def format(self, record: logging.LogRecord) -> str:
        run, path = (getattr(record, name, "") for name in ("run_id", "path"))
        where = f"  [{run} {path}]" if path else f"  [{run}]" if run else ""
        parts = [f"{_utc(record.created)} {record.levelname:7} {record.name}: {self._text(_message(record))}{where}"]
        if record.exc_info or record.exc_text:
            parts.append(self._text(_exception(self, record), end=True))
        if record.stack_info:
            parts.append(self._text(record.stack_info, end=True))
        return "\n".join(parts).translate(_CONTROLS).replace("\n", "\n    ")

    def _text(self, text: str, *, end: bool = False) -> str:
        return _bounded(text, self._redactor, self._longest, end)


class Redacting(logging.Formatter):
    """Any other formatter, with keys taken out of what it writes."""

    def __init__(self, formatter: logging.Formatter, redactor: Redactor | None = None) -> None:
        super().__init__()
        self._formatter = formatter
        self._redactor = redactor or Redactor()

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.redact(self._formatter.format(record))


def _utc(seconds: float) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # a clock that is beyond all years
        return str(seconds)


def _message(record: logging.LogRecord) -> str:
    """What was to be said; for arguments that do not fit, the text and the arguments beside each other."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong placeholder, or an argument whose `__str__` raises
        return f"{plain(record.msg)} {plain(record.args)}"


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    try:
        if record.exc_info and not record.exc_text:
            return formatter.formatException(record.exc_info)
        return str(record.exc_text)
    except Exception as error:  # noqa: BLE001 - an exception whose `__str__` raises in the traceback's own way
        return f"<an exception that raised {type(error).__name__} when it was written down>"


def _extra(name: str) -> str:
    return f"extra.{name}" if name in _OWN else name


def _bounded(text: str, redactor: Redactor, longest: int, end: bool) -> str:
    """Redacted and cut. Of a traceback the end is kept, which says what went wrong."""
    if len(text) <= longest + _MARGIN:
        redacted = redactor.redact(text)
        return f"…{redacted[-longest:]}" if end and len(redacted) > longest else cut(redacted, longest)
    note = f"({len(text):,} characters)"  # and half a key may stand where it is cut: that much is dropped again
    if end:
        return f"{note} …{redactor.redact(text[-longest - _MARGIN :])[_MARGIN:]}"
    return f"{redactor.redact(text[: longest + _MARGIN])[:-_MARGIN]}… {note}"
