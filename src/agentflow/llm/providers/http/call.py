"""One request: what is known of it, its time limits, and what its failure means to the caller."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from agentflow.core.robustness.attempt import note_pool_wait
from agentflow.core.robustness.deadline import Deadline, is_bounded_by
from agentflow.errors import (
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    ProtocolError,
)
from agentflow.llm.providers.base import Timeouts
from agentflow.llm.providers.http.proxies import Proxy

if TYPE_CHECKING:
    import aiohttp

__all__ = ["MAX_LINE", "Call", "network_errors"]

MAX_LINE = 16 * 1024  # bytes of the status line, and of one header
_UNKNOWN_ISSUER = (18, 19, 20, 21)  # OpenSSL's codes: signed by itself, or by somebody that cannot be found
_CHECK_ISSUER = "if an authority of your own has issued the certificate, name it in ca_bundle"
_CHECK_TLS = "does the server speak TLS there, and is base_url right?"


_BOUNDED: Final = nullcontext()  # whoever asked keeps the time


class Call:
    """What is known of one request, and the limit on it until its headers have come."""

    __slots__ = ("deadline", "first_by", "limit", "limits", "model", "provider", "proxy", "total", "where")

    def __init__(
        self,
        provider: str,
        model: str,
        where: str,
        proxy: Proxy | None,
        limits: Timeouts,
        total: float | None,
        now: float,
    ) -> None:
        self.provider = provider
        self.model = model
        self.where = where
        self.proxy = proxy
        self.limits = limits
        self.total = total
        self.deadline = None if total is None else now + total
        self.first_by: float | None = None  # when the first byte of the body is due
        own = limits.first_byte is not None or self.deadline is None or not is_bounded_by(self.deadline)
        self.limit = Deadline(total, failure=self._late) if own else None

    async def wait_for_place(self, places: asyncio.Semaphore) -> None:
        """Take one of the places once it is free. Raises ModelTimeoutError where that takes longer than it, or the
        whole call, may."""
        waiting = Deadline(self.limits.pool, failure=lambda *_: self.timeout("pool"))
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            with self.bounds, waiting:
                await places.acquire()
        finally:
            waiting.close()
            note_pool_wait(loop.time() - since)

    @property
    def bounds(self) -> AbstractContextManager[object]:
        """What limits the wait for the head."""
        return self.limit or _BOUNDED

    def close(self) -> None:
        """The head has come, or will not: nothing is cancelled any more."""
        if self.limit is not None:
            self.limit.close()

    def sent(self, now: float) -> None:
        """The request is on its way: from now on the first byte is awaited."""
        if self.limits.first_byte is None:
            return
        self.first_by = now + self.limits.first_byte
        if self.limit is not None:
            self.limit.end_at(earliest(self.deadline, self.first_by))

    def due(self, waiting_since: float, begun: bool) -> tuple[float | None, str]:
        """When the read that began at `waiting_since` is late, and by which limit."""
        if not begun:
            when, phase = self.first_by, "first byte"
        else:
            idle = self.limits.idle
            when, phase = None if idle is None else waiting_since + idle, "idle"
        if self.deadline is not None and (when is None or self.deadline < when):
            return self.deadline, "total"
        return when, phase

    def _late(self, *_: object) -> ModelTimeoutError:
        """The head has not come in time: by the limit that was the nearer one."""
        return self.timeout(self.due(0.0, begun=False)[1])

    def timeout(self, phase: str) -> ModelTimeoutError:
        limits = {
            "pool": self.limits.pool,
            "connect": self.limits.connect,
            "first byte": self.limits.first_byte,
            "idle": self.limits.idle,
            "total": self.total,
        }
        return ModelTimeoutError(phase, limits[phase] or 0.0, provider=self.provider, model=self.model)

    def failure(self, error: BaseException) -> ModelError:
        """What a failure before the answer's headers means to the caller."""
        import aiohttp
        from aiohttp.http_exceptions import LineTooLong

        if isinstance(error, ModelTimeoutError):
            return self.timeout(error.operation)  # anew: behind the one caught stand frames that hold the headers
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self.timeout("connect")
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return self._refused_by_proxy(error.status)
        if isinstance(error, aiohttp.ClientResponseError):
            if isinstance(error.__cause__, LineTooLong):
                return self.nonsense(f"{self.where} answers with a line or header of more than {MAX_LINE:,} bytes")
            return self.nonsense(f"what answers at {self.where} does not speak HTTP: check base_url")
        failure = ModelConnectionError(self._reason(error), provider=self.provider, model=self.model)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            failure.retryable = False  # it will not be another one in a second
        failure.__cause__ = getattr(error, "os_error", None)
        return failure

    def broken(self, error: BaseException) -> ModelConnectionError:
        """What a failure while the body is read means to the caller."""
        return ModelConnectionError(
            f"the connection to {self.where} broke before the answer was whole ({type(error).__name__})",
            provider=self.provider,
            model=self.model,
        )

    def nonsense(self, message: str, status: int | None = None) -> ProtocolError:
        return ProtocolError(message, provider=self.provider, model=self.model, status=status)

    def _refused_by_proxy(self, status: int) -> ModelConnectionError:
        """The proxy answered the wish for a tunnel with a status of its own."""
        remedy = "check the user and the password in its address" if status == 407 else "may it reach that host?"
        failure = ModelConnectionError(
            f"no connection to {self.where}: the proxy {self.proxy} refuses it with HTTP {status}; {remedy}",
            provider=self.provider,
            model=self.model,
        )
        failure.retryable = status >= 500
        return failure

    def _reason(self, error: BaseException) -> str:
        import aiohttp

        # With a proxy, its name is the one that is looked up and its port the one that is opened.
        blame, remedy = ("", "base_url") if self.proxy is None else (f"the proxy {self.proxy}: ", "proxy")
        if trouble := tls_trouble(error):
            return f"no safe connection to {self.where}: TLS failed ({trouble[0]}); {trouble[1]}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return f"no connection to {self.where}: {blame}its host has no address; check {remedy} and the network"
        if isinstance(error, ConnectionRefusedError) or isinstance(
            getattr(error, "os_error", None), ConnectionRefusedError
        ):
            return f"no connection to {self.where}: {blame}the server refuses it; is it running, and is {remedy} right?"
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"no connection to {self.where}: {blame}{os_reason(error)}; check {remedy} and the network"
        return f"{self.where} closed the connection before it answered ({type(error).__name__}); try again"


def network_errors() -> tuple[type[BaseException], ...]:
    """What aiohttp raises when the network fails. A function, so that aiohttp is loaded late."""
    import aiohttp

    return (aiohttp.ClientError, OSError)


def os_reason(error: aiohttp.ClientConnectorError) -> str:
    cause = error.os_error
    return str(cause.strerror or cause or type(error).__name__)


def tls_trouble(error: BaseException) -> tuple[str, str] | None:
    """What TLS complains of, and what helps. It may come late: a server looks at the client's certificate last."""

    import ssl

    import aiohttp

    places = (getattr(error, "certificate_error", None), getattr(error, "os_error", None), error.__cause__, error)
    cause = next((place for place in places if isinstance(place, ssl.SSLError)), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        unknown = cause.verify_code in _UNKNOWN_ISSUER
        return cause.verify_message, _CHECK_ISSUER if unknown else "the server's certificate does not fit base_url"
    if cause is not None:
        reason = (cause.reason or str(cause)).replace("_", " ").lower()
        return reason, "the server wants a client_cert that it knows" if "certificate" in reason else _CHECK_TLS
    return (os_reason(error), _CHECK_TLS) if isinstance(error, aiohttp.ClientSSLError) else None


def earliest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)
