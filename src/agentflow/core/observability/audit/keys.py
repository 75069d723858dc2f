"""The audit log's own key, and what is made of it: seals, signatures, fingerprints.

    AUDIT_KEY ──HKDF (RFC 5869)──▶ one key for the records, one for heads and other statements, one for fingerprints

    keys = AuditKeys(os.environb[b"AUDIT_KEY"])            the first one signs; those behind it only check
    keys.current.fingerprint("sk-proj-…")                  "9f2c4e…": the same key, the same sixteen digits

Seals are HMAC-SHA256 (RFC 2104). A key is a text or bytes of at least 32; it is never printed, pickled or stored. Two
keys are there for a change of key: new segments are sealed with the first, old ones are checked with the other.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from agentflow.errors import ConfigurationError

__all__ = ["AuditKey", "AuditKeys", "Hmac"]

_SHORTEST: Final = 32
_SALT: Final = b"agentflow audit log 1"
_BLOCK: Final = 64  # bytes, SHA-256's


class Hmac:
    """HMAC-SHA256 with its two pads hashed once (RFC 2104, section 4), which halves the time of a short message."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def __call__(self, *message: bytes) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in message:
            inner.update(part)
        outer.update(inner.digest())
        return outer.hexdigest()


class AuditKey:
    """One key. `id` tells keys apart, and gives none away.

    `fingerprint(secret)` is sixteen digits that stand for a provider's key, `subject(name)` thirty-two that stand for a
    person or tenant: both the same at each time, and without a way back for who has not this key.
    """

    __slots__ = ("_fingerprint", "_record", "_statement", "_subject", "fingerprint", "id", "subject")

    def __init__(self, material: str | bytes) -> None:
        raw = material.encode("utf-8") if isinstance(material, str) else bytes(material)
        if len(raw.strip()) < _SHORTEST:
            raise ConfigurationError(
                f"an audit key has at least {_SHORTEST} characters, and this one {len(raw.strip())}; a good one is "
                "what `python -c 'import secrets; print(secrets.token_hex(32))'` prints"
            )
        root = hmac.digest(_SALT, raw.strip(), "sha256")
        self.id = hmac.digest(root, b"id\x01", "sha256").hex()[:16]
        self._record = _derived(root, b"record")
        self._statement = _derived(root, b"statement")
        self._subject = _derived(root, b"subject")
        self._fingerprint = _derived(root, b"fingerprint")
        # The few keys that a process uses; it holds them in memory anyway.
        self.fingerprint = lru_cache(maxsize=256)(self._fingerprint_of)
        self.subject = lru_cache(maxsize=1024)(self._subject_of)

    def seal(self, place: bytes, body: bytes) -> str:
        """What a record bears. `place` names the log and the chain, so that no record fits into another."""
        return self._record(place, body)

    def sign(self, kind: str, body: bytes) -> str:
        """What a statement beside the records bears: a head, a tombstone, a manifest."""
        return self._statement(kind.encode(), b"\0", body)

    def _subject_of(self, name: str) -> str:
        return self._subject(name.encode("utf-8", "replace"))[:32]

    def _fingerprint_of(self, secret: str) -> str:
        return self._fingerprint(secret.encode("utf-8", "replace"))[:16]

    def __repr__(self) -> str:
        return f"<audit key {self.id}>"

    def __reduce__(self) -> str:
        raise TypeError("an audit key is not pickled")


class AuditKeys:
    """The key that signs, and the earlier ones that are needed to check what they have signed."""

    __slots__ = ("_by_id", "current")

    def __init__(self, current: str | bytes, *earlier: str | bytes) -> None:
        self.current = AuditKey(current)
        self._by_id = {key.id: key for key in (*map(AuditKey, earlier), self.current)}

    @classmethod
    def from_environment(cls, name: str, environ: Mapping[str, str]) -> AuditKeys:
        """The keys in the variable `name`: the current one, earlier ones after commas. Raises ConfigurationError."""
        texts = [text for text in environ.get(name, "").split(",") if text.strip()]
        if not texts:
            raise ConfigurationError(f"the audit log needs a key: set {name} to at least {_SHORTEST} random characters")
        return cls(*texts)

    def find(self, key_id: str) -> AuditKey | None:
        return self._by_id.get(key_id)

    def all(self) -> tuple[AuditKey, ...]:
        return tuple(self._by_id.values())

    def __repr__(self) -> str:
        return f"<audit keys {', '.join(self._by_id)}>"

    def __reduce__(self) -> str:
        raise TypeError("audit keys are not pickled")


def _derived(root: bytes, label: bytes) -> Hmac:
    return Hmac(hmac.digest(root, label + b"\x01", "sha256"))
