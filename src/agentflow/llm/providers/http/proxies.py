"""Which proxy stands between: the settings', else the environment's, and none for this machine."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from agentflow.errors import (
    ConfigurationError,
)
from agentflow.llm.providers.base import ProviderSettings

__all__ = ["Proxy", "chosen_proxy", "is_loopback"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where requests go first. Its text is its address without user and password, which are in `headers`.

    It `tunnels` what is encrypted, and so sees only the host; plain requests it reads and passes on.
    """

    url: str
    tunnels: bool
    headers: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        return self.url


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def chosen_proxy(settings: ProviderSettings, base: SplitResult, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy of the settings, or else that of the environment."""
    tunnels = base.scheme == "https"
    if settings.proxy is not None:
        return _checked_proxy(settings.proxy, f"provider {settings.name!r}: proxy", tunnels)
    found = _environment_proxy(base, environ)
    if found is None:
        return None
    variable, address = found
    return _checked_proxy(address, f"provider {settings.name!r}: the environment variable {variable}", tunnels)


def _checked_proxy(address: str, where: str, tunnels: bool) -> Proxy:
    """No error repeats the address, because it may hold a password."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{where} is not an address like http://host:3128") from None
    if not host or not address.isprintable():
        raise ConfigurationError(f"{where} is not an address like http://host:3128")
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"{where} is of a kind that is not supported: name an HTTP proxy, http://host:3128")
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["proxy-authorization"] = f"Basic {b64encode(login).decode()}"
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"{parts.scheme}://{shown}{f':{port}' if port else ''}", tunnels, headers)


def _environment_proxy(base: SplitResult, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that names the proxy for `base`, and its value. Lower case goes first, as everywhere."""
    host = base.hostname or ""
    port = base.port or (443 if base.scheme == "https" else 80)
    if is_loopback(host) or _is_exempt(host, port, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    for variable in (f"{base.scheme}_proxy", f"{base.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        if variable == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
            continue  # in a CGI program, whoever sends it a `Proxy:` header sets this (httpoxy)
        if address := environ.get(variable, "").strip():
            return variable, address
    return None


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: `*`, a name (with what is below it), an address or a network; maybe a port."""
    return any(_covers(entry.strip().lower(), host, port) for entry in no_proxy.split(","))


def _covers(entry: str, host: str, port: int) -> bool:
    if entry in ("", "*"):
        return entry == "*"
    with suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    name, _, only = entry.partition(":")
    name = name.removeprefix("*").lstrip(".")
    return bool(name) and only in ("", str(port)) and (host == name or host.endswith(f".{name}"))
