"""What a transport is: a request answered by a whole body, or by a stream of bytes.

    provider ──bytes──▶ Transport.post, .get ──▶ Answer(status, headers, body)
                        Transport.stream     ──▶ ByteStream: status, headers, then read() until b""

A transport knows addresses, headers, proxies, certificates, time limits and connections; what the bytes mean is the
provider's business, also when the status says failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from msgspec import Struct

__all__ = ["Answer", "ByteStream", "Transport"]


class Answer(Struct, frozen=True):
    """A whole answer. Header names are looked up in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:  # headers and body may repeat what is secret
        return f"Answer({self.status}, {len(self.body)} bytes)"


class ByteStream(Protocol):
    """An answer whose body arrives piece by piece. Whoever opened it calls `close()`, whatever happens."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header names are looked up in lower case."""
        ...

    async def read(self) -> bytes:
        """The next bytes as they come; b"" at the end. Raises ModelTimeoutError or ModelConnectionError."""
        ...

    async def finish(self) -> None:
        """Read the rest, which nobody needs, so that the connection can serve again."""
        ...

    def close(self) -> None:
        """Free the connection: back to the pool after the end, dropped before it. Never waits, safe to call twice."""
        ...


class Transport(Protocol):
    """Requests to a path below a base address. `model` is for error messages; `total` limits the call in seconds.

    `path` may hold a query (`/models/x:streamGenerateContent?alt=sse`), which is joined with that of the settings; what
    is percent-encoded in it stays as it is. `headers` are for this call and win over all others.
    """

    def get(
        self, path: str, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> Awaitable[Answer]: ...

    def post(
        self, path: str, body: bytes, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> Awaitable[Answer]: ...

    async def stream(
        self, path: str, body: bytes, *, model: str, total: float | None, headers: Mapping[str, str] | None = None
    ) -> ByteStream: ...

    async def aclose(self) -> None: ...
