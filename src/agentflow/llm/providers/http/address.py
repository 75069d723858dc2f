"""Where requests go and with which headers: checked once, when a provider is built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, quote, unquote, unquote_plus, urlsplit, urlunsplit

from agentflow.errors import ConfigurationError
from agentflow.llm.providers.base import ProviderSettings, SecretHeaders
from agentflow.llm.providers.http.proxies import Proxy, is_loopback

__all__ = ["checked_address", "checked_connections", "checked_headers", "joined", "own_headers"]

_MAX_CONNECTIONS = 1000
_SHORTEST_SECRET = 16  # a shorter key is a word like "ollama" for a server that wants none, and may stand in a name
_SAFE_IN_PATH = "/:@!$&'()*+,;=-._~%"
_SAFE_IN_QUERY = _SAFE_IN_PATH + "?"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def checked_address(base_url: str, settings: ProviderSettings) -> SplitResult:
    """The parts of `base_url`. Its text is not repeated in an error, because it may hold a password."""
    where = f"provider {settings.name!r}: base_url"
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{where} is not an address like https://host/v1") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{where} is not an address like https://host/v1")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{where} holds a user name or password: give a key by the environment instead")
    if parts.scheme == "http" and not settings.allow_http and not is_loopback(host):
        raise ConfigurationError(
            f"{where} is http:// to {host}, so the key and the prompts would travel unencrypted: "
            f"use https://, or set `allow_http: true` if that network is your own"
        )
    key = "" if settings.api_key is None else settings.api_key.reveal()
    if len(key) >= _SHORTEST_SECRET and any(key in unquote(text) for text in (base_url, *settings.query.values())):
        raise ConfigurationError(f"{where} or query holds the key, and addresses end up in logs: send it in a header")
    return parts._replace(fragment="")


def own_headers(headers: Mapping[str, str], settings: ProviderSettings, proxy: Proxy | None) -> SecretHeaders:
    """The headers of every request; those in models.yml win."""
    merged = {
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",  # a compressed stream would arrive late
        "content-type": "application/json",
        "user-agent": "agentflow",
        **checked_headers(headers, settings.name),
        **checked_headers(settings.headers, settings.name),
    }
    if proxy is not None and not proxy.tunnels:
        merged |= proxy.headers
    return SecretHeaders(merged)


def checked_headers(headers: Mapping[str, str], provider: str) -> SecretHeaders:
    """The headers with names in lower case. No error repeats a value, which may be a key."""
    for name, value in headers.items():
        if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"provider {provider!r}: the header {name!r} holds a character that HTTP cannot carry "
                f"(a line break or a letter beyond ASCII?); if it carries the key, look at how the key was stored"
            )
    return SecretHeaders({name.lower(): value for name, value in headers.items()})


def joined(base: SplitResult, path: str, query: str) -> str:
    """The path and query of a call. A parameter in `path` wins over the settings' `query`, which wins over the base's.

    Nothing that is encoded is encoded again, and nothing is decoded: `%2F` in a model's name is not a slash.
    """
    path, _, own = path.partition("?")
    parameters: list[str] = []
    for more in (base.query, query, own):
        pieces = [piece for piece in more.split("&") if piece]
        names = {_parameter_name(piece) for piece in pieces}
        parameters = [piece for piece in parameters if _parameter_name(piece) not in names] + pieces
    where = quote(base.path.rstrip("/") + path, safe=_SAFE_IN_PATH)
    return urlunsplit(("", "", where, quote("&".join(parameters), safe=_SAFE_IN_QUERY), ""))


def _parameter_name(piece: str) -> str:
    return unquote_plus(piece.partition("=")[0])


def checked_connections(settings: ProviderSettings) -> int:
    value = settings.options.get("max_connections", _MAX_CONNECTIONS)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(
            f"provider {settings.name!r}: max_connections is a number of at least 1, not {value!r}"
        )
    return value
