"""Sends one HTTP request and reads how it was answered: what a webhook needs of HTTP, cancellable at each place.

    status, headers = await post(Target.of("https://example.org/hook"), {"content-type": "application/json"}, body)

The connection is direct (no proxy), serves one request and is closed. Nothing is read of the answer's body, and no
redirect is followed: a signed message is for one receiver. Time limits are the caller's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from agentflow.errors import ConfigurationError

__all__ = ["Target", "post"]

_LINE = 16_384  # bytes of one line of the answer's head
_LINES = 100


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: taken apart, so that nothing of a URL can pass for a header. Its text shows the host alone, because
    the paths of many webhooks are secret."""

    secure: bool
    host: str
    port: int
    path: str
    authority: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Raises ConfigurationError, which does not repeat the URL."""
        parts = host = port = None
        try:
            parts = urlsplit(url) if url.isprintable() and " " not in url else None
            port = None if parts is None else parts.port
            host = None if parts is None or parts.hostname is None else _ascii(parts.hostname)
        except ValueError:
            host = None
        if parts is None or parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
            allowed = "an address that begins with http:// or https://, without a user or a password"
            raise ConfigurationError(f"url: found something else, allowed is {allowed}")
        secure = parts.scheme == "https"
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
            f"?{quote(parts.query, safe='/%:@!$&()*+,;=?~')}" if parts.query else ""
        )
        shown = f"[{host}]" if ":" in host else host
        return cls(secure, host, port or (443 if secure else 80), path, f"{shown}:{port}" if port else shown)

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    def __repr__(self) -> str:
        return f"Target({self})"


async def post(target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str]]:
    """The answer's status and headers, in lower case. Raises OSError where there is no answer."""
    context = ssl.create_default_context() if target.secure else None
    reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context, limit=_LINE)
    try:
        writer.write(_head(target, headers, len(body)) + body)
        await writer.drain()
        while True:
            status, answer = await _answer(reader)
            if not 100 <= status < 200:
                return status, answer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def _head(target: Target, headers: Mapping[str, str], length: int) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"host: {target.authority}",
        "connection: close",
        f"content-length: {length}",
        *[f"{name}: {value}" for name, value in headers.items()],
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    words = (await _line(reader)).split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not (words[1].isdecimal() and len(words[1]) == 3):
        raise ConnectionError("what answers does not speak HTTP")
    headers: dict[str, str] = {}
    for _ in range(_LINES):
        line = await _line(reader)
        if not line:
            return int(words[1]), headers
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ConnectionError("the answer has too many headers")


async def _line(reader: asyncio.StreamReader) -> str:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        raise ConnectionError("the connection was closed before there was an answer") from None
    except asyncio.LimitOverrunError:
        raise ConnectionError("a line of the answer is too long") from None
    return line.decode("latin-1").rstrip("\r\n")


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode("ascii")
