"""Keys that only their tenant can make: a cache's secret, a key for each tenant, and what is kept under which name.

    secret ──HMAC(tenant)──▶ the tenant's key ──HMAC(canonical question)──▶ the name that an answer is kept under
       └─────HMAC(tag)─────▶ a label, by which answers are purged

HMAC-SHA-256 (RFC 2104). Whoever reads the file finds no question in it, and cannot tell whether two tenants have asked
the same, or whether anybody has asked what he guesses: for that he would need the secret.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from agentflow.errors import ConfigurationError

__all__ = ["LEAST", "Keyring", "model_label", "secret_from_file", "secret_from_text"]

LEAST: Final = 16
"""Bytes, or characters, that a secret has at least."""

_FRESH: Final = 32  # bytes of a secret that is made here
_MOST_TENANTS: Final = 10_000  # whose keys are remembered


class Keyring:
    """`secret` is what all processes that share answers have in common, or a function that gives it when it is first
    needed; without one it is this keyring's alone. With `shared`, all tenants are one."""

    __slots__ = ("_given", "_secret", "_shared", "_tenants")

    def __init__(self, secret: bytes | Callable[[], bytes] | None = None, *, shared: bool = False) -> None:
        self._given = partial(os.urandom, _FRESH) if secret is None else secret
        self._secret = b""
        self._shared = shared
        self._tenants: dict[str | None, bytes] = {}
        if isinstance(secret, bytes):
            self._secret = _long_enough(secret)

    @property
    def secret(self) -> bytes:
        if not self._secret:
            given = self._given
            self._secret = _long_enough(given if isinstance(given, bytes) else given())
        return self._secret

    def scope(self, tenant: str | None) -> str | None:
        """Whose answers a tenant finds: its own, or everybody's."""
        return None if self._shared else tenant

    def of(self, tenant: str | None) -> bytes:
        """The tenant's key."""
        scope = None if self._shared else tenant
        key = self._tenants.get(scope)
        if key is None:
            if len(self._tenants) >= _MOST_TENANTS:
                self._tenants.clear()
            said = b"nobody" if scope is None else b"tenant:" + scope.encode("utf-8", "surrogatepass")
            key = self._tenants[scope] = hmac.digest(self.secret, said, "sha256")
        return key

    def name(self, tenant: str | None, canonical: bytes) -> str:
        """The name that the answer to this question is kept under: 64 hexadecimal digits."""
        return hmac.digest(self.of(tenant), canonical, "sha256").hex()

    def labels(self, *, models: Sequence[str], prompt: str, tags: Sequence[str], tenant: str | None) -> tuple[str, ...]:
        """What an answer is purged by. Models' names are no secret; the rest cannot be read."""
        return (
            *[model_label(model) for model in dict.fromkeys(models)],
            self.tenant_label(tenant),
            self.prompt_label(tenant, prompt),
            *[self.tag_label(tag) for tag in tags],
        )

    def tenant_label(self, tenant: str | None) -> str:
        return "tenant:" + hmac.digest(self.of(tenant), b"label", "sha256").hex()[:32]

    def prompt_label(self, tenant: str | None, prompt: str) -> str:
        said = b"prompt:" + prompt.encode("utf-8", "surrogatepass")
        return "prompt:" + hmac.digest(self.of(tenant), said, "sha256").hex()[:32]

    def tag_label(self, tag: str) -> str:
        return "tag:" + hmac.digest(self.secret, b"tag:" + tag.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]


def _long_enough(secret: bytes) -> bytes:
    if len(secret) < LEAST:
        raise ConfigurationError(f"the secret of a cache has at least {LEAST} bytes: make one with a random source")
    return secret


def model_label(model: str) -> str:
    return "model:" + model


def secret_from_text(text: str, where: str) -> bytes:
    """A secret that is given as text. Raises ConfigurationError, which does not repeat it."""
    if len(text) < LEAST:
        raise ConfigurationError(f"{where}: the secret of a cache has at least {LEAST} characters")
    return hmac.digest(b"agentflow cache", text.encode("utf-8", "surrogatepass"), "sha256")


def secret_from_file(path: Path) -> bytes:
    """The secret in a file, which is made, for its owner alone, where it is missing. Raises ConfigurationError.

    Processes that start at the same time agree: the file appears whole, and the first one stays.
    """
    try:
        with suppress(FileNotFoundError):
            return _read(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(os.urandom(_FRESH).hex().encode() + b"\n")
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        return _read(path)
    except OSError as error:
        raise ConfigurationError(
            f"the secret of the cache cannot be kept in {path}: {error.strerror or error}; name another file, or give "
            "the secret in an environment variable"
        ) from error


def _read(path: Path) -> bytes:
    text = path.read_bytes().strip()
    if len(text) < LEAST:
        raise ConfigurationError(
            f"{path} is no secret of a cache: it has less than {LEAST} bytes; remove it for a new one"
        )
    return hmac.digest(b"agentflow cache", text, "sha256")
