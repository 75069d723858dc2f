"""What is answered to whoever asks for metrics, over whichever server: pure, from request to reply.

    Request("GET", "/metrics", accept="application/openmetrics-text") ──▶ Reply(200, headers, body)

    404 another path          405 neither GET nor HEAD          500 the metrics could not be rendered

The format is the one of the two that the Accept header likes best; who likes neither gets the text format. The body is
compressed for who can read that.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from agentflow.integrations.prometheus.exposition import OPEN_METRICS, TEXT, Collects, open_metrics, text

__all__ = ["Reply", "Request", "answer"]

_log: Final = logging.getLogger("agentflow.prometheus")
_WORTH: Final = 1024  # bytes: less is not worth compressing
_VERSIONS: Final = {"application/openmetrics-text": ("", "0.0.1", "1.0.0"), "text/plain": ("", "0.0.4")}
_RENDERERS: Final[Mapping[str, tuple[str, Callable[[Collects], bytes]]]] = {
    "application/openmetrics-text": (OPEN_METRICS, open_metrics),
    "text/plain": (TEXT, text),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What matters of a request. `path` is without the query."""

    method: str
    path: str
    accept: str = ""
    accept_encoding: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `body` is empty for HEAD, whose headers still tell its length."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes


def answer(metrics: Collects, request: Request, paths: tuple[str, ...] = ("/metrics",)) -> Reply:
    """The reply. It never raises: what goes wrong is a reply, too, and a line in the log."""
    if request.path not in paths:
        return _refusal(request, HTTPStatus.NOT_FOUND, f"metrics are at {paths[-1]}")
    if request.method not in ("GET", "HEAD"):
        return _refusal(request, HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", ("Allow", "GET, HEAD"))
    content_type, render = _RENDERERS[_liked(request.accept)]
    try:
        body = render(metrics)
    except Exception as error:  # noqa: BLE001 - the server goes on; the error's text may quote what is no one's business
        _log.error("metrics could not be rendered: %s", type(error).__name__)
        return _refusal(request, HTTPStatus.INTERNAL_SERVER_ERROR, "metrics could not be rendered")
    headers = [("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding"), ("Cache-Control", "no-store")]
    if len(body) >= _WORTH and _weights(request.accept_encoding).get("gzip", 0.0) > 0.0:
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers.append(("Content-Encoding", "gzip"))
    return _reply(request, HTTPStatus.OK, headers, body)


def _refusal(request: Request, status: HTTPStatus, why: str, *more: tuple[str, str]) -> Reply:
    return _reply(request, status, [("Content-Type", "text/plain; charset=utf-8"), *more], f"{why}\n".encode())


def _reply(request: Request, status: HTTPStatus, headers: list[tuple[str, str]], body: bytes) -> Reply:
    headers.append(("Content-Length", str(len(body))))
    return Reply(status, tuple(headers), b"" if request.method == "HEAD" else body)


def _liked(accept: str) -> str:
    """The format with the largest weight; of equal ones the text."""
    weights = _weights(accept)
    best = max(_RENDERERS, key=lambda name: (weights.get(name, 0.0), name == "text/plain"))
    return best if weights.get(best, 0.0) > 0.0 else "text/plain"


def _weights(header: str) -> dict[str, float]:
    """What a header accepts, with its weight from 0 to 1; without versions of a format that we do not write."""
    found: dict[str, float] = {}
    for entry in header.split(","):
        name, *parameters = [part.strip().lower() for part in entry.split(";")]
        told = {key.strip(): value.strip(' "') for key, _, value in (part.partition("=") for part in parameters)}
        version = told.get("version", "")
        if version in _VERSIONS.get(name, (version,)):
            found[name] = max(found.get(name, 0.0), _weight(told.get("q", "1")))
    return found


def _weight(said: str) -> float:
    try:
        weight = float(said)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
