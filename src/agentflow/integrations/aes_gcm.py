"""AES-256-GCM for contents of the audit log, by the `cryptography` package: agentflow[audit].

    AuditLog(path, key, content="encrypted", cipher=AesGcm())
    log.erase("customer/17")          the key is dropped: what was kept of them cannot be read again

A sealed text is its nonce of twelve random bytes, then the ciphertext with its tag. A subject's key seals fewer than
2³² texts, within which random nonces are safe (NIST SP 800-38D); that is a hundred a second for a year and more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from agentflow.errors import ConfigurationError, MissingExtraError

__all__ = ["AesGcm", "from_settings"]

_NONCE: Final = 12


class AesGcm:
    """A ContentCipher. Raises MissingExtraError where the `cryptography` package is not installed."""

    name = "aes-256-gcm"

    def __init__(self) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingExtraError("encrypted content in the audit log", "audit") from None
        self._aead = AESGCM
        self._wrong = InvalidTag

    def encrypt(self, key: bytes, plain: bytes, bound: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._aead(key).encrypt(nonce, plain, bound)

    def decrypt(self, key: bytes, sealed: bytes, bound: bytes) -> bytes:
        """Raises ValueError where key, text or `bound` are not those it was sealed with."""
        try:
            return self._aead(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], bound)
        except (self._wrong, ValueError):
            raise ValueError("the text does not fit its key: it was changed, or the key is another one") from None

    def __repr__(self) -> str:
        return f"<{self.name}>"


def from_settings(settings: Mapping[str, object]) -> AesGcm:
    """The entry point `aes_gcm` of the group `agentflow.integrations`; it takes no settings."""
    if settings:
        raise ConfigurationError(f"aes_gcm: no setting is named {next(iter(settings))!r}; it takes none")
    return AesGcm()
