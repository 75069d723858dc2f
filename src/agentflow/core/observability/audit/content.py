"""What is kept of prompts, answers and arguments: a keyed digest, or the ciphertext as well. Dropping a key erases it.

    content ──redacted, canonical──▶ HMAC with the subject's key  ──▶  {"bytes": 812, "digest": "7be1…", "subject": …}
                                     and ContentCipher.encrypt    ──▶  {…, "cipher": "aes-gcm", "text": "base64…"}

    keys = ContentKeys(path)          one random key a subject (a person, a tenant), each in a file of its own
    keys.drop(subject)                from now on nobody can tell what the digest was of, nor read the ciphertext

The chain is over the digest and the ciphertext, so it stays sound. Whoever keeps copies of the key files keeps what was
erased: leave `keys/` out of backups that live longer than the duty to erase allows. The standard library has no cipher;
`agentflow.integrations.aes_gcm` has one.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from agentflow.core.observability.audit.canonical import canonical
from agentflow.core.observability.audit.folder import settle
from agentflow.core.observability.audit.keys import Hmac
from agentflow.core.observability.plain import Plain

__all__ = ["ContentCipher", "ContentKeys", "ContentMode", "ContentSealer"]

ContentMode: TypeAlias = Literal["none", "digest", "encrypted"]

_SUBJECT: Final = re.compile(r"[0-9a-f]{32}")
_KEY_BYTES: Final = 32
_LARGEST: Final = 1024 * 1024  # bytes of plain text that are kept; of more, the digest alone


class ContentCipher(Protocol):
    """Authenticated encryption. `bound` is not encrypted, but the text opens with it alone. A wrong key is a
    ValueError."""

    name: str

    def encrypt(self, key: bytes, plain: bytes, bound: bytes) -> bytes: ...

    def decrypt(self, key: bytes, sealed: bytes, bound: bytes) -> bytes: ...


class ContentKeys:
    """Keys by subject, as files `<subject>.key` that only their owner may read. Processes may share the folder.

    A subject is named by 32 hexadecimal digits, which the audit key makes of its name. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[str, tuple[tuple[int, int, int], bytes]] = {}

    def get(self, subject: str) -> bytes | None:
        """The subject's key; None where there is none, or none any more."""
        path = self._file(subject)
        try:
            status = path.stat()
            changed = (status.st_mtime_ns, status.st_ino, status.st_size)
            known = self._read.get(subject)
            if known is None or known[0] != changed:
                if len(self._read) >= 10_000:
                    self._read.clear()
                known = self._read[subject] = changed, path.read_bytes()
        except FileNotFoundError:
            self._read.pop(subject, None)
            return None
        return known[1] if len(known[1]) == _KEY_BYTES else None

    def get_or_make(self, subject: str) -> bytes:
        key = self.get(subject)
        if key is not None:
            return key
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._path / f".{secrets.token_hex(8)}"
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            try:
                os.write(handle, secrets.token_bytes(_KEY_BYTES))
                os.fsync(handle)
            finally:
                os.close(handle)
            self._claim(beside, self._file(subject))
        finally:
            beside.unlink(missing_ok=True)
        settle(self._path)
        key = self.get(subject)
        if key is None:
            raise OSError(f"the content key of {subject} cannot be read again")
        return key

    def drop(self, subject: str) -> bool:
        """Overwrite and remove the key. Whether there was one."""
        path = self._file(subject)
        self._read.pop(subject, None)
        try:
            with path.open("r+b") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            return False
        path.unlink(missing_ok=True)
        settle(self._path)
        return True

    @staticmethod
    def _claim(beside: Path, path: Path) -> None:
        """Put a whole file in its place, unless another process was quicker."""
        if path.exists() and path.stat().st_size != _KEY_BYTES:
            path.unlink()  # half a key, of a process that was killed
        try:
            os.link(beside, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not path.exists():
                os.replace(beside, path)

    def _file(self, subject: str) -> Path:
        if not _SUBJECT.fullmatch(subject):
            raise ValueError("a subject is named by 32 hexadecimal digits")
        return self._path / f"{subject}.key"


@dataclass(frozen=True, slots=True)
class ContentSealer:
    """What a log does with contents. `cipher` is needed for "encrypted"."""

    mode: ContentMode
    keys: ContentKeys
    cipher: ContentCipher | None = None

    def seal(self, content: Plain, subject: str) -> dict[str, Plain] | None:
        """What the record says of a content that was redacted already. Raises OSError."""
        if self.mode == "none":
            return None
        plain = canonical(content)
        key = self.keys.get_or_make(subject)
        digest = _digester(key)(plain)
        sealed: dict[str, Plain] = {"bytes": len(plain), "digest": digest, "subject": subject}
        if self.mode == "encrypted" and self.cipher is not None and len(plain) <= _LARGEST:
            text = self.cipher.encrypt(_part(key, b"cipher"), plain, f"{subject}{digest}".encode())
            sealed["cipher"] = self.cipher.name
            sealed["text"] = base64.b64encode(text).decode()
        return sealed

    def open(self, sealed: Mapping[str, Plain]) -> bytes | None:
        """The content as canonical JSON; None where it was not kept, or its key was dropped. Raises ValueError where
        the text does not fit its key."""
        key = self.keys.get(str(sealed.get("subject")))
        text = sealed.get("text")
        if key is None or self.cipher is None or not isinstance(text, str) or sealed.get("cipher") != self.cipher.name:
            return None
        bound = f"{sealed['subject']}{sealed['digest']}".encode()
        return self.cipher.decrypt(_part(key, b"cipher"), base64.b64decode(text, validate=True), bound)

    def matches(self, sealed: Mapping[str, Plain], content: Plain) -> bool | None:
        """Whether this was the content; None where nobody can tell any more."""
        key = self.keys.get(str(sealed.get("subject")))
        if key is None:
            return None
        return hmac.compare_digest(_digester(key)(canonical(content)), str(sealed.get("digest")))


@lru_cache(maxsize=256)  # of keys that `ContentKeys` holds as well
def _digester(key: bytes) -> Hmac:
    return Hmac(_part(key, b"digest"))


def _part(key: bytes, label: bytes) -> bytes:
    """One key for digests, another for the cipher (HKDF-Expand)."""
    return hmac.digest(key, label + b"\x01", "sha256")
