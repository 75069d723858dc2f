"""Every fault that a server or the network may commit, and what is expected then: data, written before it was tested.

    FAULTS      what tests/llm/test_faults.py drives through the client, for each API, whole and streamed
    SCENARIOS   what needs a test of its own: time that jumps, callers that leave
    filled()    a page with both as tables: docs/faults.md

The groups are those of a call's life: connect, body, status, time, cancel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.faults import acts
from tests.support.faults.outcomes import (
    AT_ONCE,
    ATTEMPTS,
    CONNECT,
    FIRST,
    FIRST_BYTE,
    IDLE,
    TEXT,
    TOTAL,
    Outcome,
    fails,
    recovers,
)
from tests.support.faults.server import Act

__all__ = ["FAULTS", "KINDS", "SCENARIOS", "Fault", "Scenario", "filled"]

KINDS: Final = {"chat": "OpenAI", "anthropic": "Anthropic", "google": "Google", "moonshot": "Moonshot"}


@dataclass(frozen=True)
class Fault:
    """One fault: where the client is sent (`place`), what is done there, and what comes of it.

    `streamed` is the outcome of a stream where it differs from `whole`; a way in which there is no such fault is None.
    `before` is done with an earlier call, on the same connection. `waits` is how many seconds are waited between the
    attempts. `only` names the APIs that the fault is of; with `scaled` the limits on sizes are 250 times smaller;
    `late`: something still comes when the call is over. `later` is the error by which a guard refuses the calls behind
    it, until its time has come; without one they work.
    """

    name: str
    act: Act
    whole: Outcome | None
    streamed: Outcome | None = None
    one_way: bool = False
    place: str = "server"
    before: Act | None = None
    waits: float | None = None
    only: tuple[str, ...] = tuple(KINDS)
    but: Mapping[str, Outcome] = field(default_factory=dict)
    scaled: bool = False
    late: bool = False
    later: str = ""

    def outcome(self, kind: str, way: str) -> Outcome | None:
        if kind not in self.only:
            return None
        usual = self.whole if way == "whole" or not (self.one_way or self.streamed) else self.streamed
        return self.but.get(kind, usual) if usual is not None else None


@dataclass(frozen=True)
class Scenario:
    """What a test of its own proves: in its own words, as it needs them."""

    name: str
    outcome: str
    attempts: str
    bound: str


_GONE: Final = fails("ModelConnectionError", ATTEMPTS)
_CUT: Final = fails("StreamInterruptedError", said=FIRST)
_NONSENSE: Final = fails("ProtocolError")
_SERVER: Final = fails("ServerError", ATTEMPTS)
_BUSY: Final = fails("OverloadedError", ATTEMPTS)
_AGAIN: Final = recovers(2)
_NO_CONNECTION: Final = fails("ModelTimeoutError", ATTEMPTS, CONNECT)
_NO_BYTE: Final = fails("ModelTimeoutError", ATTEMPTS, FIRST_BYTE)
_SILENT: Final = fails("ModelTimeoutError", ATTEMPTS, IDLE)
_TOO_LONG: Final = fails("ModelTimeoutError", 1, TOTAL)
_NOT_SAFE: Final = fails("ModelConnectionError")


def _either(name: str, act: Act, outcome: Outcome, **more: Any) -> Fault:
    return Fault(name, act, outcome, **more)


def _whole(name: str, act: Act, outcome: Outcome, **more: Any) -> Fault:
    return Fault(name, act, outcome, one_way=True, **more)


def _stream(name: str, act: Act, outcome: Outcome, **more: Any) -> Fault:
    return Fault(name, act, None, outcome, one_way=True, **more)


_HUGE_HEAD: Final = b"HTTP/1.1 200 OK\r\nx-huge: " + b"x" * 40_000 + b"\r\n\r\n"
_MANY_HEADERS: Final = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: 1\r\n" % at for at in range(5000)) + b"\r\n"
_EARLY: Final = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"

_CONNECT: Final = (
    _either("the host has no address (NXDOMAIN)", acts.works, _GONE, place="no such host"),
    _either("the resolver does not answer", acts.works, _NO_CONNECTION, place="slow names"),
    _either("IPv6 leads nowhere, IPv4 works", acts.works, recovers(), place="dead IPv6"),
    _either("nobody listens (refused)", acts.works, _GONE, place="refused"),
    _either("black hole: no answer to SYN", acts.works, _NO_CONNECTION, place="full"),
    _either("black hole: connects, then says nothing", acts.silence, _NO_BYTE),
    _either("TLS: the handshake never ends", acts.works, _NO_CONNECTION, place="no handshake"),
    _either("TLS: the server speaks none", acts.works, _GONE, place="no TLS"),
    _either("TLS: the certificate has expired", acts.works, _NOT_SAFE, place="expired"),
    _either("TLS: the certificate is for another host", acts.works, _NOT_SAFE, place="wrong host"),
    _either("TLS: an unknown authority, or self-signed", acts.works, _NOT_SAFE, place="unknown authority"),
    _either("HTTPS redirects to HTTP; the key is not sent there", acts.redirects(307), _NONSENSE,
            place="TLS and plain"),
    _either("a redirect to another host; the key is not sent there", acts.redirects(308), _NONSENSE,
            place="two servers"),
    _either("a redirect that would turn POST into GET (302)", acts.redirects(302), _NONSENSE, place="two servers"),
    _either("the proxy wants a password (407) for a tunnel", acts.status(407, b""), _NOT_SAFE, place="proxy"),
    _either("the proxy wants a password (407), without TLS", acts.status(407, b""), fails("BadRequestError"),
            place="plain proxy"),
)  # fmt: skip

_BODY: Final = (
    _either("RST before the headers", acts.resets, _GONE),
    _either("RST within the headers", acts.then(acts.raw(b"HTTP/1.1 200 OK\r\nx-"), acts.resets), _GONE),
    _either("RST before the body", acts.then(acts.headers, acts.resets), _GONE),
    Fault("RST in the middle", acts.then(acts.begins, acts.resets), _GONE, _CUT),
    _either("FIN before the headers", acts.closes, _GONE),
    _either("FIN before the body", acts.then(acts.headers, acts.closes), _GONE),
    Fault("FIN in the middle", acts.then(acts.begins, acts.closes), _GONE, _CUT),
    Fault("half-close in the middle", acts.then(acts.begins, lambda e: e.half_close(), acts.silence), _GONE, _CUT),
    _stream("the stream ends without a reason and end mark", acts.ends_without("reason"),
            fails("StreamInterruptedError", said=TEXT)),
    _stream("the stream ends without its end mark alone", acts.ends_without("mark"), recovers()),
    _either("one RST, then a good answer", acts.in_turn(acts.resets, acts.works), _AGAIN),
    _either("silence behind the headers", acts.then(acts.headers, acts.silence), _NO_BYTE),
    Fault("silence in the middle", acts.then(acts.begins, acts.silence), _SILENT,
          fails("ModelTimeoutError", 1, IDLE, said=FIRST)),
    _either("slow loris: a byte now and then", acts.slow_loris, _TOO_LONG),
    _stream("pings, and never a word", acts.pings, _TOO_LONG),
    _whole("blanks for a while, then the answer", acts.at_last_says, recovers()),
    _either("cut anywhere: 3 bytes at a time", acts.cut(3), recovers()),
    _either("cut anywhere: 1 byte at a time", acts.cut(1), recovers()),
    _stream("lines end with CR LF", acts.line_ends(b"\r\n"), recovers()),
    _stream("lines end with CR", acts.line_ends(b"\r"), recovers()),
    Fault("invalid UTF-8 (read as U+FFFD in a stream)", acts.invalid_utf8, _NONSENSE,
          recovers(said=TEXT.replace("å", "\ufffd"))),
    _either("a byte order mark", acts.byte_order_mark, recovers()),
    _either("a line, or a body, longer than any answer", acts.long_line(2 * acts.LONG), _NONSENSE, scaled=True),
    _either("a line of 100 MB, at the real limits", acts.long_line(100 * 1024 * 1024), _NONSENSE, only=("chat",)),
    _either("a gzip bomb", acts.bomb, _NONSENSE, scaled=True),
    _whole("Content-Length is too large, then FIN", acts.then(acts.content_length(9), acts.closes), _GONE),
    _whole("Content-Length is too large, then silence", acts.then(acts.content_length(9), acts.silence), _SILENT),
    _whole("Content-Length is too small", acts.content_length(-9), _NONSENSE),
    _stream("Content-Length covers the first words alone", acts.ends_early, _CUT, late=True),
    _either("a second answer behind it, which nobody asked for", acts.unasked(0), recovers(), late=True),
    _either("a second answer later, while the connection lies idle", acts.unasked(0.02), recovers(), late=True),
    _either("HTML with status 200", acts.html, _NONSENSE),
    _either("an empty body with status 200", acts.status(200, b""), _NONSENSE),
    _stream("a stream without an event", lambda e: e.stream(), _NONSENSE),
    _either("an error with status 200, before the first word", acts.error_event(late=False), _BUSY,
            but={"chat": _SERVER}),
    _stream("an error in the middle of a stream", acts.error_event(late=True), fails("OverloadedError", said=FIRST),
            but={"chat": fails("ServerError", said=FIRST)}),
    _either("usage is missing", acts.bare_usage, recovers()),
    Fault("NaN in the JSON", acts.not_a_number, _NONSENSE, fails("ProtocolError", said=FIRST)),
    _either("a header of 40,000 bytes", acts.then(acts.raw(_HUGE_HEAD), acts.silence), _NONSENSE),
    _either("5,000 headers", acts.then(acts.raw(_MANY_HEADERS), acts.silence), _NONSENSE),
    _either("early hints (103) before the answer", acts.then(acts.raw(_EARLY), acts.works), recovers()),
    _either("no HTTP at all", acts.then(acts.raw(b"220 mail ready\r\n\r\n"), acts.closes), _NONSENSE),
)  # fmt: skip


def _flaps(name: str, act: Act, waits: float, **more: Any) -> Fault:
    return _either(name, acts.in_turn(act, acts.works), _AGAIN, waits=waits, **more)


_GOOGLES_WISH: Final = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "No.",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.7s"}],
    }
}

_STATUS: Final = (
    _flaps("429, Retry-After in seconds", acts.status(429, retry_after="1"), 1),
    _flaps("429, retry-after-ms, which wins", acts.status(429, retry_after_ms="700", retry_after="30"), 0.7),
    _flaps("429, Retry-After as a date", acts.dated(429, 1), 1),
    _flaps("429, a date, and our clock is 1 h late", acts.dated(429, 1, wrong=3600), 1),
    _flaps("429, a date, and our clock is 1 h early", acts.dated(429, 1, wrong=-3600), 1),
    _flaps("429, a date that has passed", acts.dated(429, -3600), 0),
    _flaps("429, Retry-After is garbage", acts.status(429, retry_after="soon"), 0),
    _flaps("429, Retry-After is negative", acts.status(429, retry_after="-5"), 0),
    _flaps("429, Retry-After is NaN", acts.status(429, retry_after="nan"), 0),
    _flaps("429, the body says when", acts.status(429, _GOOGLES_WISH), 0.7, only=("google",)),
    _either("429, Retry-After is longer than the deadline", acts.status(429, retry_after="3600"),
            fails("RateLimitError"), later="LimiterError"),
    _either("429, Retry-After is beyond reason (read as garbage)", acts.status(429, retry_after="9" * 30),
            fails("RateLimitError", ATTEMPTS)),
    _either("429 again and again", acts.status(429, retry_after="0"), fails("RateLimitError", ATTEMPTS)),
    _either("429, the quota is used up", acts.refuses("QuotaExceededError"), fails("QuotaExceededError")),
    _either("500 storm", acts.status(500), _SERVER),
    _either("502 storm, in HTML", acts.status(502, acts.HTML, content_type="text/html"), _SERVER),
    _either("503 storm", acts.status(503), _BUSY),
    _either("504 storm", acts.status(504, b""), _SERVER),
    _either("529 storm", acts.status(529), _BUSY),
    _either("the API's own overload", acts.refuses("OverloadedError"), _BUSY),
    _either("flapping: 500, 529, then an answer", acts.in_turn(acts.status(500), acts.status(529), acts.works),
            recovers(3)),
    _flaps("503 with Retry-After", acts.status(503, retry_after="1"), 1),
    _either("500 that says not to retry (x-should-retry)", acts.status(500, x_should_retry="false"),
            fails("ServerError")),
    _either("408", acts.status(408), _SERVER),
    _either("409", acts.status(409), _SERVER),
    _either("400", acts.status(400), fails("BadRequestError")),
    _either("404", acts.status(404), fails("NotFoundError")),
    _either("401 in the middle of a run", acts.refuses("AuthenticationError"),
            fails("AuthenticationError"), before=acts.works),
    _either("keep-alive: closed while it lay idle", acts.works, recovers(), before=acts.closes_after_answer),
    _either("keep-alive: dropped as the next request comes", acts.goes_stale, _AGAIN, before=acts.works),
)  # fmt: skip

FAULTS: Final[Mapping[str, tuple[Fault, ...]]] = {"connect": _CONNECT, "body": _BODY, "status": _STATUS}

SCENARIOS: Final[Mapping[str, tuple[Scenario, ...]]] = {
    "body": (
        Scenario("a tool call is opened twice", "one call", "1", AT_ONCE),
        Scenario("a tool call comes without its arguments", "one call, with no arguments", "1", AT_ONCE),
    ),
    "status": (
        Scenario("a storm goes on, call after call", "`CircuitOpenError` for a while, then a probe", "10 to 12 in all",
                 AT_ONCE),
    ),
    "time": (
        Scenario("the deadline has passed when the call begins", "`ModelTimeoutError`", "none arrives", AT_ONCE),
        Scenario("the caller's own time is up when the call begins", "the caller's `TimeoutError`",
                 "none arrives", AT_ONCE),
        Scenario("the loop is blocked while the answer comes", "recovers", "1", "the block"),
        Scenario("the loop is blocked in the middle of an answer", "recovers", "1", "the block"),
        Scenario("the loop is blocked, and no answer comes", "`ModelTimeoutError`", "3", "the block + 3 × first byte"),
        Scenario("the clock jumps an hour ahead (suspend)", "`ModelTimeoutError`", "1", AT_ONCE),
        Scenario("the answer comes just as the limit ends", "the answer, or `ModelTimeoutError`: never both",
                 "1", TOTAL),
    ),
    "cancel": (
        Scenario("at each place where the call waits", "`CancelledError`", "as many as were begun", AT_ONCE),
        Scenario("at each place, as what it waits for has come", "`CancelledError`", "as many as were begun", AT_ONCE),
        Scenario("between two attempts", "`CancelledError`", "1", AT_ONCE),
        Scenario("twice", "`CancelledError`", "1", AT_ONCE),
        Scenario("in its cleanup", "`CancelledError`", "1", AT_ONCE),
        Scenario("a sibling in a TaskGroup fails", "the sibling's error", "1", AT_ONCE),
        Scenario("a stream is left and forgotten (garbage collected)", "nothing", "1", AT_ONCE),
        Scenario("the event loop ends in the middle", "`CancelledError`; the next loop works", "1 each", AT_ONCE),
        Scenario("the event loop is closed in the middle", "nothing; the next loop works", "1 each", AT_ONCE),
        Scenario("SIGTERM, which cancels the program's main task", "it ends, with nothing on stderr", "1", AT_ONCE),
    ),
}  # fmt: skip


# ---- the page ------------------------------------------------------------------------------------------------


BEGIN: Final = "<!-- faults: begin -->"
END: Final = "<!-- faults: end -->"


def filled(text: str) -> str:
    """A page with these tables between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{page()}\n\n{END}{after}"


def page() -> str:
    """The tables, group by group."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for group in ("connect", "body", "status", "time", "cancel"):
        yield from (f"\n### {group.capitalize()}", "")
        if faults := FAULTS.get(group):
            yield from ("| fault | a whole answer | a stream |", "| --- | --- | --- |")
            yield from map(_row, faults)
            yield ""
        if scenarios := SCENARIOS.get(group):
            yield from ("| what happens | outcome | attempts | time |", "| --- | --- | --- | --- |")
            yield from (f"| {each.name} | {each.outcome} | {each.attempts} | {each.bound} |" for each in scenarios)


def _row(fault: Fault) -> str:
    whole, streamed = (_cell(fault, way) for way in ("whole", "streamed"))
    return f"| {fault.name} | {whole} | {'the same' if streamed == whole else streamed} |"


def _cell(fault: Fault, way: str) -> str:
    """The outcome, and where another API has another one."""
    usual = fault.outcome(next(kind for kind in fault.only if kind not in fault.but), way)
    if usual is None:
        return "–"
    others = [f"{KINDS[kind]}: {fault.outcome(kind, way)}" for kind in fault.but]
    alone = f" ({', '.join(KINDS[kind] for kind in fault.only)} alone)" if len(fault.only) < len(KINDS) else ""
    waits = f"; waits {fault.waits:g} s" if fault.waits else ""
    later = f"; later calls are not sent until then (`{fault.later}`)" if fault.later else ""
    return "; ".join([f"{usual}{waits}{later}{alone}", *others])
