"""One record of the log: its line, and what is read from it.

    Draft ──line(seq, time, prev)──▶ {"action":"model.call",…,"mac":"9f2c…",…,"prev":"41ab…",…,"seq":17,…}⏎
    line ──read_line(key, place)──▶ AuditRecord, or None where the line is not one that this key has sealed

A line is canonical JSON. `prev` is the SHA-256 of the line before it, `mac` the HMAC of everything else in the line, of
the log's name and of the chain's, so that a line fits in one place only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from agentflow.core.observability.audit.canonical import canonical, quoted
from agentflow.core.observability.audit.keys import AuditKey
from agentflow.core.observability.plain import Plain

__all__ = [
    "FIELDS",
    "LONGEST_LINE",
    "NO_HASH",
    "AuditRecord",
    "Draft",
    "digest_of",
    "read_line",
    "time_of",
    "time_text",
]

NO_HASH: Final = "0" * 64
LONGEST_LINE: Final = 4 * 1024 * 1024  # bytes; what is longer was not written by us
FIELDS: Final = frozenset("action actor content data key mac outcome prev resource run seq tenant time trace".split())


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What one line says. `content` is None, or a mapping of `bytes`, `digest` and `subject`, and of `cipher` and
    `text` where it is kept encrypted. `key` is a fingerprint, never a key."""

    seq: int
    time: str
    action: str
    actor: str | None
    tenant: str | None
    resource: str | None
    outcome: str
    run: str | None
    trace: str | None
    key: str | None
    content: Mapping[str, Plain] | None
    data: Mapping[str, Plain] = field(default_factory=dict)
    prev: str = NO_HASH
    mac: str = ""

    @property
    def seconds(self) -> float:
        """`time` in seconds since 1970."""
        return time_of(self.time)

    def plain(self) -> dict[str, Plain]:
        """As it stands in the log."""
        fields: dict[str, Plain] = {name: getattr(self, name) for name in sorted(FIELDS)}
        fields["data"] = dict(self.data)
        fields["content"] = None if self.content is None else dict(self.content)
        return fields


@dataclass(frozen=True, slots=True)
class Draft:
    """A record without its place in the chain, as ready-made pieces of its line: under the log's lock only the rest is
    added."""

    action: str
    before_mac: str
    outcome: str
    after_prev: str
    tenant: str
    trace: str

    @classmethod
    def of(
        cls,
        action: str,
        outcome: str,
        *,
        actor: str | None = None,
        tenant: str | None = None,
        resource: str | None = None,
        run: str | None = None,
        trace: str | None = None,
        key: str | None = None,
        content: str = "null",
        data: str = "{}",
    ) -> Draft:
        """`content` and `data` are canonical JSON already."""
        return cls(
            action,
            f'{{"action":{quoted(action)},"actor":{_text(actor)},"content":{content},"data":{data},"key":{_text(key)}',
            quoted(outcome),
            f'"resource":{_text(resource)},"run":{_text(run)}',
            _text(tenant),
            _text(trace),
        )

    def line(self, seq: int, time: str, prev: str, key: AuditKey, place: bytes) -> bytes:
        """The whole line, its end included."""
        rest = (
            f'"outcome":{self.outcome},"prev":"{prev}",{self.after_prev},"seq":{seq},'
            f'"tenant":{self.tenant},"time":"{time}","trace":{self.trace}}}'
        )
        mac = key.seal(place, f"{self.before_mac},{rest}".encode())
        return f'{self.before_mac},"mac":"{mac}",{rest}\n'.encode()


def read_line(line: bytes, key: AuditKey, place: bytes) -> AuditRecord | None:
    """The record of a line (without its end); None where it is none that `key` has sealed for this place."""
    fields = _parsed(line)
    if fields is None:
        return None
    mac = fields.pop("mac")
    if not isinstance(mac, str) or not hmac.compare_digest(mac.encode(), key.seal(place, canonical(fields)).encode()):
        return None
    return AuditRecord(mac=mac, **fields)  # type: ignore[arg-type]  # what was sealed has the right types


def _parsed(line: bytes) -> dict[str, Plain] | None:
    """The fields, where these bytes are the one way to write them."""
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict) or fields.keys() != FIELDS or canonical(fields) != line:
            return None
    except (ValueError, RecursionError):
        return None
    return fields


def digest_of(line: bytes) -> str:
    """What the next record says of this line (without its end)."""
    return hashlib.sha256(line).hexdigest()


def time_text(seconds: float) -> str:
    """Seconds since 1970 as `2026-11-30T12:00:00.123456Z`."""
    try:
        whole, micro = divmod(round(seconds * 1_000_000), 1_000_000)
        return f"{_second(whole)}.{micro:06d}Z"
    except (OverflowError, ValueError, OSError):  # a clock that is far off is no reason not to write
        return f"{_second(0)}.000000Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def time_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _text(value: str | None) -> str:
    return "null" if value is None else quoted(value)
