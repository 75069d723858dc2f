"""What stands in a cache's file, for people: read without changing it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from agentflow.core.observability.store.database import open_for_reading, version_of
from agentflow.errors import ConfigurationError, RunStoreError, describe
from agentflow.mcp.performance.caching import sqlite_tables as tables

__all__ = ["Contents", "ModelContents", "contents_of"]


class ModelContents(NamedTuple):
    """The answers of one model; `cost` is what they cost when it gave them, US dollars."""

    model: str
    entries: int
    bytes: int
    cost: float


class Contents(NamedTuple):
    """`hits`, `misses` and `saved` (US dollars) are of all processes since the file was made."""

    path: Path
    entries: int
    bytes: int
    hits: int
    misses: int
    saved: float
    models: tuple[ModelContents, ...]


def contents_of(path: Path) -> Contents:
    """Raises ConfigurationError for what is no file of a cache, or cannot be read."""
    try:
        with closing(open_for_reading(path)) as connection:
            if version_of(connection, tables.COMPONENT) == 0:
                raise ConfigurationError(f"{path} holds no cache")
            counts = tables.counts(connection)
            models = tuple([ModelContents(*row) for row in tables.models(connection)])
    except (sqlite3.Error, OSError, RunStoreError) as error:
        raise ConfigurationError(f"{path} cannot be read as a cache: {describe(error)}") from error
    hits, misses = int(counts.get("hits", 0)), int(counts.get("misses", 0))
    return Contents(path, int(counts["entries"]), int(counts["bytes"]), hits, misses, counts.get("saved", 0.0), models)
