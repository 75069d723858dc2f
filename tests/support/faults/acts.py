"""What a server may do wrong with a request, in each API's words; and what is right. An `Act` takes an `Exchange`."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final

from tests.support.faults.outcomes import FIRST, TEXT
from tests.support.faults.server import Act, Exchange, answer_well
from tests.support.speakers import Answer, Failed

__all__ = [
    "HTML",
    "LONG",
    "SAID",
    "at_last_says",
    "bare_usage",
    "begins",
    "bomb",
    "both",
    "byte_order_mark",
    "closes",
    "closes_after_answer",
    "content_length",
    "cut",
    "dated",
    "ends_early",
    "ends_without",
    "error_event",
    "first_words",
    "goes_stale",
    "headers",
    "html",
    "in_turn",
    "invalid_utf8",
    "line_ends",
    "long_line",
    "not_a_number",
    "pings",
    "raw",
    "redirects",
    "refuses",
    "resets",
    "silence",
    "slow_loris",
    "status",
    "then",
    "unasked",
    "works",
]

SAID: Final = Answer(TEXT)
LONG: Final = 256 * 1024
"""Bytes of a line or a body that are too many, where the test has scaled the limits down."""
HTML: Final = b"<html>\n<body><h1>Bad gateway</h1></body>\n</html>"
_PING: Final = 0.04  # seconds between two signs of life

works: Final = answer_well(SAID)


# ---- acts made of acts ---------------------------------------------------------------------------------------


def both(whole: Act, streamed: Act) -> Act:
    """One for a request that wants the whole answer, and one for a stream."""

    def act(exchange: Exchange) -> None:
        (streamed if exchange.streamed else whole)(exchange)

    return act


def then(*acts: Act) -> Act:
    """One thing after the other, with the same request."""

    def act(exchange: Exchange) -> None:
        for each in acts:
            each(exchange)

    return act


def in_turn(*acts: Act) -> Act:
    """One act for each request; the last one again and again."""

    def act(exchange: Exchange) -> None:
        acts[min(exchange.number, len(acts) - 1)](exchange)

    return act


# ---- ways to leave -------------------------------------------------------------------------------------------


def resets(exchange: Exchange) -> None:
    exchange.reset()


def closes(exchange: Exchange) -> None:
    exchange.close()


def silence(exchange: Exchange) -> None:
    exchange.wait_until_left()


def raw(data: bytes) -> Act:
    def act(exchange: Exchange) -> None:
        exchange.send(data)

    return act


# ---- beginnings ----------------------------------------------------------------------------------------------


def first_words(exchange: Exchange) -> list[bytes]:
    """The events of a stream up to the first half of the text."""
    events = exchange.speaker.begun(SAID)
    place = next(at for at, event in enumerate(events) if FIRST.encode() in event)
    return events[: place + 1]


def _half_a_body(exchange: Exchange) -> None:
    body = exchange.whole(SAID)
    exchange.head(content_type="application/json", content_length=str(len(body)))
    exchange.send(body[: len(body) // 2])


def _first_words(exchange: Exchange) -> None:
    exchange.begin_stream()
    for event in first_words(exchange):
        exchange.piece(event)
    exchange.wait_until_heard()


begins: Final = both(_half_a_body, _first_words)
"""Half of a body, or the first words of a stream, which the client has heard."""


def headers(exchange: Exchange) -> None:
    """All of the head, and nothing of the body."""
    if exchange.streamed:
        exchange.begin_stream()
    else:
        exchange.head(content_type="application/json", content_length="900")


def at_last_says(exchange: Exchange) -> None:
    """A body of blanks for a while, as some servers send to keep a connection open, and then the answer."""
    body = exchange.whole(SAID)
    exchange.head(content_type="application/json", content_length=str(len(body) + 3))
    for _ in range(3):
        exchange.send(b" ")
        exchange.pause(_PING)
    exchange.send(body)


# ---- endings -------------------------------------------------------------------------------------------------


def ends_without(what: str) -> Act:
    """A stream in good order that lacks its "end mark", or its "reason" as well."""

    def act(exchange: Exchange) -> None:
        if what == "reason":
            exchange.stream(*exchange.speaker.begun(SAID))
        else:
            exchange.stream(*[event for event in exchange.events(SAID) if not _is_end_mark(event)])

    return act


def _is_end_mark(event: bytes) -> bool:
    return event.strip() == b"data: [DONE]" or b'"message_stop"' in event


# ---- slowness ------------------------------------------------------------------------------------------------


def slow_loris(exchange: Exchange) -> None:
    """A good answer, byte by byte, so slowly that it never ends."""
    if exchange.streamed:
        exchange.begin_stream()
        for byte in b"".join(exchange.events(SAID)):
            exchange.piece(bytes([byte]))
            exchange.pause(_PING)
    else:
        body = exchange.whole(SAID)
        exchange.head(content_type="application/json", content_length=str(len(body)))
        for byte in body:
            exchange.send(bytes([byte]))
            exchange.pause(_PING)


def pings(exchange: Exchange) -> None:
    """Signs of life, and never a word."""
    exchange.begin_stream()
    sign = b'event: ping\ndata: {"type": "ping"}\n\n' if exchange.speaker.model.startswith("claude") else b": ping\n\n"
    while True:
        exchange.piece(sign)
        exchange.pause(_PING)


# ---- how it is cut -------------------------------------------------------------------------------------------


def cut(size: int) -> Act:
    """A good answer in so many bytes at a time: frames of a stream, characters and numbers are cut anywhere."""

    def act(exchange: Exchange) -> None:
        body = b"".join(exchange.events(SAID)) if exchange.streamed else exchange.whole(SAID)
        kind = "text/event-stream" if exchange.streamed else "application/json"
        exchange.head(content_type=kind, transfer_encoding="chunked")
        frames = [body[at : at + 5] for at in range(0, len(body), 5)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames) + b"0\r\n\r\n"
        for at in range(0, len(sent), size):
            exchange.send(sent[at : at + size])

    return act


def line_ends(end: bytes) -> Act:
    """A good stream, whose lines all end so."""

    def act(exchange: Exchange) -> None:
        exchange.stream(*[event.replace(b"\r\n", b"\n").replace(b"\n", end) for event in exchange.events(SAID)])

    return act


def byte_order_mark(exchange: Exchange) -> None:
    mark = "\ufeff".encode()
    if exchange.streamed:
        exchange.stream(mark, *exchange.events(SAID))
    else:
        exchange.respond(mark + exchange.whole(SAID))


def invalid_utf8(exchange: Exchange) -> None:
    """The letter å as Latin-1 has it."""
    if exchange.streamed:
        exchange.stream(*[event.replace("å".encode(), b"\xe5") for event in exchange.events(SAID)])
    else:
        exchange.respond(exchange.whole(SAID).replace("å".encode(), b"\xe5"))


# ---- lies ----------------------------------------------------------------------------------------------------


def content_length(difference: int) -> Act:
    """A length that is not that of the body."""

    def act(exchange: Exchange) -> None:
        body = b"".join(exchange.events(SAID)) if exchange.streamed else exchange.whole(SAID)
        kind = "text/event-stream" if exchange.streamed else "application/json"
        exchange.respond(body, content_type=kind, content_length=str(len(body) + difference))

    return act


def ends_early(exchange: Exchange) -> None:
    """A length that covers the first words of a stream alone; the rest follows once those were heard."""
    events = exchange.events(SAID)
    told = first_words(exchange)
    exchange.head(content_type="text/event-stream", content_length=str(len(b"".join(told))))
    exchange.send(b"".join(told))
    exchange.wait_until_heard()
    exchange.send(b"".join(events[len(told) :]))


def unasked(seconds: float) -> Act:
    """A second answer that nobody asked for: with the end of the first, or later, when the connection lies idle."""

    def act(exchange: Exchange) -> None:
        body = exchange.whole(Answer("Of somebody else."))
        second = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )
        if exchange.streamed:
            exchange.begin_stream()
            for event in exchange.events(SAID):
                exchange.piece(event)
            last = b"0\r\n\r\n"
        else:
            whole = exchange.whole(SAID)
            exchange.head(content_type="application/json", content_length=str(len(whole)))
            exchange.send(whole[:9])
            last = whole[9:]
        exchange.pause(0.01)  # so that the end comes by itself
        exchange.send(last if seconds else last + second)
        if seconds:
            exchange.pause(seconds)
            exchange.send(second)

    return act


def html(exchange: Exchange) -> None:
    exchange.respond(HTML, content_type="text/html")


# ---- too much ------------------------------------------------------------------------------------------------


def long_line(size: int) -> Act:
    """An answer of one line that goes on for so many bytes."""

    def act(exchange: Exchange) -> None:
        begin = b'data: {"text": "' if exchange.streamed else b'{"text": "'
        kind = "text/event-stream" if exchange.streamed else "application/json"
        exchange.head(content_type=kind, content_length=str(len(begin) + size))
        exchange.send(begin)
        piece = b"x" * min(size, 1024 * 1024)
        for _ in range(0, size, len(piece)):
            exchange.send(piece)

    return act


def bomb(exchange: Exchange) -> None:
    """Four thousand bytes that become four million."""
    packed = gzip.compress(b" " * 16 * LONG)
    kind = "text/event-stream" if exchange.streamed else "application/json"
    exchange.respond(packed, content_type=kind, content_encoding="gzip")


# ---- events --------------------------------------------------------------------------------------------------


def error_event(*, late: bool) -> Act:
    """An error inside a stream that had begun with status 200: before its first word, or behind it."""

    def act(exchange: Exchange) -> None:
        if not exchange.streamed:
            exchange.respond(exchange.speaker.failed("OverloadedError").body)
            return
        exchange.begin_stream()
        for event in first_words(exchange) if late else ():
            exchange.piece(event)
        exchange.piece(exchange.speaker.breaks()[0])
        exchange.end_stream()

    return act


def not_a_number(exchange: Exchange) -> None:
    """NaN, which Python writes and JSON does not have: in the body, or in the event behind the first words."""
    if exchange.streamed:
        exchange.stream(*first_words(exchange), *[_changed(event, _with_nan) for event in exchange.events(SAID)[-3:]])
    else:
        exchange.respond(json.dumps(_with_nan(exchange.speaker.whole(SAID))).encode())


def _with_nan(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "score": float("nan")}


def bare_usage(exchange: Exchange) -> None:
    """A good answer that does not say what it took."""
    if exchange.streamed:
        exchange.stream(*[_changed(event, _without_usage) for event in exchange.events(SAID)])
    else:
        exchange.respond(_without_usage(exchange.speaker.whole(SAID)))


def _without_usage(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: _without_usage(value) for name, value in body.items() if name not in ("usage", "usageMetadata")}
    return [_without_usage(each) for each in body] if isinstance(body, list) else body


def _changed(event: bytes, change: Callable[[Any], Any]) -> bytes:
    """An event with other JSON in it; an end mark stays."""
    head, mark, rest = event.partition(b"data: ")
    if rest.strip() == b"[DONE]":
        return event
    return head + mark + json.dumps(change(json.loads(rest))).encode() + rest[len(rest.rstrip()) :]


# ---- statuses ------------------------------------------------------------------------------------------------


def status(code: int, body: object | None = None, **headers: str) -> Act:
    """An error in nobody's words, so that the status alone tells what it is."""

    def act(exchange: Exchange) -> None:
        exchange.respond({"error": {"message": "No."}} if body is None else body, code, **headers)

    return act


def refuses(name: str) -> Act:
    """The API's own error of this class, with its own headers."""

    def act(exchange: Exchange) -> None:
        failed: Failed = exchange.speaker.failed(name)
        told = {key.replace("-", "_"): value for key, value in failed.headers.items()}
        exchange.respond(exchange.speaker.wrapped(failed, streamed=exchange.streamed), failed.status, **told)

    return act


def dated(code: int, seconds: float, *, wrong: float = 0.0) -> Act:
    """`Retry-After` as a date so many seconds after the server's own, whose clock is wrong by `wrong` seconds."""

    def act(exchange: Exchange) -> None:
        now = time.time() + wrong
        retry = {"date": formatdate(now, usegmt=True), "retry_after": formatdate(now + seconds, usegmt=True)}
        exchange.respond({"error": {"message": "No."}}, code, **retry)

    return act


def redirects(code: int) -> Act:
    """To the other server, which is to see nothing of it."""

    def act(exchange: Exchange) -> None:
        assert exchange.server.other is not None
        exchange.respond(b"", code, location=exchange.server.other.url + "/chat/completions")

    return act


# ---- connections that lie idle -------------------------------------------------------------------------------


def goes_stale(exchange: Exchange) -> None:
    """The connection that has served before is dropped as the next request comes; a new one serves."""
    if exchange.number == 0:
        exchange.reset()
    else:
        works(exchange)


def closes_after_answer(exchange: Exchange) -> None:
    works(exchange)
    exchange.close()
