"""The address of the database, and what may be said of it.

    checked_url("postgres://me:secret@db/runs")   ──▶  "postgresql://me:secret@db/runs"
    shown_url(…)                                  ──▶  "postgresql://db/runs"

No error here repeats the address, as it may hold a password.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

__all__ = ["checked_url", "shown_url"]

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")


def checked_url(url: str) -> str:
    """As libpq spells it. Raises ValueError."""
    scheme, found, rest = url.partition("://")
    if not found or scheme.lower() not in _SCHEMES:
        raise ValueError("database_url must begin with postgresql://")
    try:
        parts = urlsplit(f"postgresql://{rest}")
        parts.port  # noqa: B018 - a port that is no number raises here
    except ValueError:
        raise ValueError("database_url has a host or port that cannot be read") from None
    if not parts.path.strip("/"):
        raise ValueError("database_url must name a database: postgresql://HOST/DATABASE")
    return f"postgresql://{rest}"


def shown_url(url: str) -> str:
    """Host, port and database: no user, no password, no options."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"postgresql://{host}{port}{parts.path}"
