"""Who may ask: the server is open, the host is ours, the key is right, the body is JSON.

    request  ──check──▶  503 closing · 403 host · 401 key · 415 media type · or nothing, and it goes on

A page in a browser can reach what listens on loopback. It cannot send JSON to another origin without asking first, and
nobody here answers that question; and a name that it has rebound to 127.0.0.1 stands in `Host`, where it is none of
ours.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from agentflow.llm.providers.base import Secret
from agentflow.server.wire.refusal import Refusal

__all__ = ["Access", "is_loopback"]

_OURS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN: Final = "/health"


class Access:
    """`key` None lets everybody in. `hosts` are further names by which this machine is called, as by a proxy on it."""

    __slots__ = ("_hosts", "_key", "closing")

    def __init__(self, *, key: Secret | None = None, hosts: Collection[str] = ()) -> None:
        self.closing = False
        self._key = key
        self._hosts = _OURS | {host.lower() for host in hosts}

    def check(self, request: web.BaseRequest) -> None:
        """Raises Refusal."""
        self._check_host(request)
        if self.closing:
            raise Refusal(503, "the server is closing", code="closing", retry_after=1.0)
        if request.path == _OPEN:
            return
        self._check_key(request.headers.get("Authorization", ""))
        if request.method == "POST":
            _check_body(request)

    def _check_host(self, request: web.BaseRequest) -> None:
        if not _came_by_loopback(request):
            return
        host = _host(request.headers.get("Host", ""))
        if host not in self._hosts:
            raise Refusal(403, "Host names another machine than this one", code="host_not_allowed")

    def _check_key(self, header: str) -> None:
        if self._key is None:
            return
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer" or not _same(given.strip(), self._key.reveal()):
            message = "the API key is wrong" if given else "an API key is needed: Authorization: Bearer …"
            raise Refusal(401, message, code="invalid_api_key", retryable=False)


def _same(given: str, right: str) -> bool:
    """Takes as long for a wrong key as for the right one, whatever their lengths."""
    hashes = [hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest() for key in (given, right)]
    return hmac.compare_digest(*hashes)


def _check_body(request: web.BaseRequest) -> None:
    if request.content_type != "application/json":
        raise Refusal(415, "Content-Type must be application/json", code="unsupported_media_type")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "a compressed body is not taken", code="unsupported_content_encoding")


def _came_by_loopback(request: web.BaseRequest) -> bool:
    transport = request.transport
    name = None if transport is None else transport.get_extra_info("sockname")
    return isinstance(name, tuple) and is_loopback(str(name[0]))


def is_loopback(host: str) -> bool:
    """Whether a name or an address is reached from this machine alone."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(header: str) -> str:
    """The name in a Host header, without its port; empty for what is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
