"""What a request to another system carries along from those who watch: headers such as `traceparent`.

carried([propagator, …], run_id, span)  ──▶  {"traceparent": "00-4bf9…-01"}

Whoever watches changes nothing of what it watches: what is no header, or would change the request itself, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from agentflow.core.observability.observers import Propagator

__all__ = ["carried"]

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LONGEST: Final = 8192  # characters of a value: what W3C Trace Context and Baggage allow at most
_NOT_THEIRS: Final = frozenset(
    {
        *("accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type"),
        *("cookie", "expect", "host", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""What decides where a request goes, whose it is, and where it ends."""


def carried(propagators: Iterable[Propagator], run_id: str, span: int) -> dict[str, str]:
    """The headers that they give for a request made within `span`, by their names in lower case."""
    found: dict[str, str] = {}
    for each in propagators:
        with suppress(Exception):  # somebody else's code, without which the request is made all the same
            found.update(_headers(each.headers(run_id, span)))
    return found


def _headers(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in given.items():
        if isinstance(name, str) and isinstance(value, str) and _fits(name.lower(), value):
            yield name.lower(), value


def _fits(name: str, value: str) -> bool:
    if name in _NOT_THEIRS or not _NAME.fullmatch(name):
        return False
    return len(value) <= _LONGEST and value.isascii() and value.isprintable()
