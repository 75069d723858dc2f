"""Whom to trust and who we are, for TLS: read once, checked before the first request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agentflow.errors import (
    ConfigurationError,
)
from agentflow.llm.providers.base import ProviderSettings

if TYPE_CHECKING:
    import ssl

__all__ = ["tls_context"]


def tls_context(settings: ProviderSettings) -> ssl.SSLContext | None:
    """Whom to trust and what to show, read once for all sessions. None is the system's choice, which aiohttp loads."""
    if settings.ca_bundle is None and settings.client_cert is None:
        return None
    import ssl

    context = ssl.create_default_context() if settings.ca_bundle is None else _trusting(settings.ca_bundle, settings)
    context.set_alpn_protocols(("http/1.1",))
    if settings.client_cert is not None:
        _show(settings.client_cert, context, settings)
    return context


def _trusting(ca_bundle: str, settings: ProviderSettings) -> ssl.SSLContext:
    import ssl

    where = f"provider {settings.name!r}: ca_bundle {ca_bundle!r}"
    wanted = "give the path of a PEM file with the authorities to trust (-----BEGIN CERTIFICATE-----)"
    if not ca_bundle.strip():
        raise ConfigurationError(f"{where} is empty: {wanted}, or leave it out to trust the system's")
    try:
        context = ssl.create_default_context(cafile=_path(ca_bundle))
    except ssl.SSLError:
        raise ConfigurationError(f"{where} holds no certificate: {wanted}") from None
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read ({error.strerror}): {wanted}") from None
    if not context.cert_store_stats()["x509"]:
        raise ConfigurationError(f"{where} holds no certificate: {wanted}")
    return context


def _show(client_cert: str | tuple[str, str], context: ssl.SSLContext, settings: ProviderSettings) -> None:
    """Let the context show a certificate to servers that ask for one."""
    import ssl

    certificate, key = (client_cert, None) if isinstance(client_cert, str) else client_cert
    where = f"provider {settings.name!r}: client_cert {client_cert!r}"
    wanted = "give a PEM file with the certificate and its key, or a pair of files"

    def encrypted() -> str:  # without this, OpenSSL would ask for the password on the terminal
        raise ConfigurationError(f"{where} holds an encrypted key: give it decrypted, in a file that only you can read")

    try:
        context.load_cert_chain(_path(certificate), None if key is None else _path(key), password=encrypted)
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise ConfigurationError(f"{where} cannot be used ({reason}): {wanted}") from None
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read ({error.strerror}): {wanted}") from None


def _path(text: str) -> str:
    return os.path.expanduser(text)
