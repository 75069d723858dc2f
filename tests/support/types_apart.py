"""Lets a module register types without anybody else noticing: an example that is loaded twice, under two names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agentflow.core.durability.put_off import catch_up
from agentflow.core.durability.type_registry import registry

__all__ = ["types_apart"]


@contextmanager
def types_apart(*, only: str | None = None) -> Iterator[None]:
    """What is registered within is forgotten afterwards. With `only` nothing is known there but what that module has
    registered."""
    catch_up()  # or what was put off until then would be forgotten with the rest
    tables = (registry.by_type, registry.by_tag, registry._owners)
    before = [dict(table) for table in tables]  # type: ignore[call-overload]
    if only is not None:
        _forget_all_but(only)
    try:
        yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)  # type: ignore[arg-type]


def _forget_all_but(module: str) -> None:
    for tag, kind in list(registry._owners.items()):
        if kind.__module__ != module:
            del registry._owners[tag], registry.by_tag[tag]
            registry.by_type.pop(kind, None)
