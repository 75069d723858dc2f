"""Lets a module register types without anybody else noticing: an example that is loaded twice, under two names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agentflow.core.durability.type_registry import registry

__all__ = ["types_apart"]


@contextmanager
def types_apart() -> Iterator[None]:
    """What is registered within is forgotten afterwards."""
    tables = (registry.by_type, registry.by_tag, registry._owners)
    before = [dict(table) for table in tables]  # type: ignore[call-overload]
    try:
        yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)  # type: ignore[arg-type]
