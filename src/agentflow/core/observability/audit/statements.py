"""What is said beside the records, and signed: heads, tombstones, the log's name, an export's manifest.

signed("head", {...}, key)      ──▶  b'{"key_id":"…","mac":"…","seq":17,…}'       canonical JSON, one line
read_statement("head", line, keys)   ──▶  the facts, or None where none of the keys has signed them
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from agentflow.core.observability.audit.canonical import canonical
from agentflow.core.observability.audit.keys import AuditKey, AuditKeys
from agentflow.core.observability.plain import Plain

__all__ = ["Head", "Tombstone", "read_statement", "signed"]

_SIGNATURE: Final = ("key_id", "mac")


def signed(kind: str, facts: Mapping[str, Plain], key: AuditKey) -> bytes:
    """The facts with the key's id and signature, on one line."""
    full = {**facts, "key_id": key.id}
    return canonical({**full, "mac": key.sign(kind, canonical(full))})


def read_statement(kind: str, line: bytes, keys: AuditKeys) -> dict[str, Plain] | None:
    """The facts without the signature; None where it is not the one that one of the keys would give."""
    try:
        facts = json.loads(line)
        if not isinstance(facts, dict) or canonical(facts) != line:
            return None
        mac, key = facts.pop("mac", None), keys.find(str(facts.get("key_id")))
    except (ValueError, RecursionError):
        return None
    if key is None or not isinstance(mac, str):
        return None
    if not hmac.compare_digest(mac.encode(), key.sign(kind, canonical(facts)).encode()):
        return None
    del facts["key_id"]
    return facts


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain had come at `time`: its last record's number and hash, and the segment that holds it.

    `chains` is the highest number of a chain that the log had then, `settings` the digest of the log's settings.
    """

    log: str
    chain: str
    chains: int
    segment: int
    seq: int
    hash: str
    time: str
    settings: str

    def signed(self, key: AuditKey) -> bytes:
        return signed("head", asdict(self), key)

    @classmethod
    def read(cls, line: bytes, keys: AuditKeys) -> Head | None:
        facts = read_statement("head", line, keys)
        return None if facts is None else cls(**facts)  # type: ignore[arg-type]  # what was signed has the right types


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What stood in a segment that retention removed: its records, from when to when, and the digest of its file."""

    log: str
    chain: str
    segment: int
    first: int
    last: int
    first_time: str
    last_time: str
    last_hash: str
    chains: int
    file_digest: str
    removed: str
    reason: str

    def signed(self, key: AuditKey) -> bytes:
        return signed("tombstone", asdict(self), key)

    @classmethod
    def read(cls, line: bytes, keys: AuditKeys) -> Tombstone | None:
        facts = read_statement("tombstone", line, keys)
        return None if facts is None else cls(**facts)  # type: ignore[arg-type]  # what was signed has the right types
