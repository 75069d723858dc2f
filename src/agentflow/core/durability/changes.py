"""What is different between the flow a run began with and the one it is to go on with, and how its steps move over.

    changes(before, now)     ──▶  ["judge is gone", "review is new", "write now leads to review, not judge", …]
    moved(records, {"judge": "review"})  ──▶  the records under the names of today

Names, edges and nesting count; what a node does inside does not: code that was mended is what one resumes with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from agentflow.core.durability.records import Record

__all__ = ["Migration", "changes", "moved", "moved_id"]

Migration: TypeAlias = Mapping[str, str | None]
"""A step of the old flow, as `inner/write`, to its name in the new one, as `draft`; None forgets what it did."""

_SEGMENT: Final = re.compile(r"(?P<name>.*)#(?P<visit>\d+)", re.DOTALL)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different between two outlines, a line each; empty where nothing is."""
    old, new = dict(_nodes(before)), dict(_nodes(now))
    gone = [f"{name} is gone" for name in old if name not in new]
    added = [f"{name} is new" for name in new if name not in old]
    other = [
        f"{name} was {_kind(old[name])}, and is {_kind(new[name])}"
        for name in old
        if name in new and old[name] != new[name]
    ]
    return [*gone, *added, *other, *_edge_changes(set(_edges(before)), set(_edges(now)), old, new)]


def _edge_changes(
    old: set[tuple[str, str, str]], new: set[tuple[str, str, str]], before: Mapping[str, str], now: Mapping[str, str]
) -> Iterator[str]:
    """Edges of nodes that are gone or new say nothing beyond that."""
    for place, action, target in sorted(old - new):
        if place in now or not place:
            yield f"{_edge(place, action, target)} is gone"
    for place, action, target in sorted(new - old):
        if place in before or not place:
            yield f"{_edge(place, action, target)} is new"


def _edge(place: str, action: str, target: str) -> str:
    return f"{place} ─{action}─▶ {target}" if place else f"the start at {target}"


def _kind(kind: str) -> str:
    return "a plain node" if kind == "node" else f"a {kind}" if kind != "each" else "an Each"


def _nodes(outline: Mapping[str, Any], around: str = "") -> Iterator[tuple[str, str]]:
    """Every node by its path within the flow, and what kind of node it is."""
    for node in outline["nodes"]:
        path = f"{around}{node['name']}"
        kind = node.get("kind", "node")
        yield path, kind
        for inner in node.get("inside", ()):
            yield from _nodes(inner, f"{path}/" if kind in ("flow", "each") else around)


def _edges(outline: Mapping[str, Any], around: str = "") -> Iterator[tuple[str, str, str]]:
    if "start" in outline:
        yield "", around, f"{around}{outline['start']}"
    for source, action, target in outline["edges"]:
        yield f"{around}{source}", action, "END" if target is None else f"{around}{target}"
    for node in outline["nodes"]:
        inside = f"{around}{node['name']}/" if node.get("kind") in ("flow", "each") else around
        for inner in node.get("inside", ()):
            yield from _edges(inner, inside)


# ---- moving over ---------------------------------------------------------------------------------------------


def moved(records: Iterable[Record], migration: Migration) -> Sequence[Record]:
    """The records, under the names that `migration` gives their steps; without those of steps it forgets."""
    found = ((record, moved_id(record.id, migration)) for record in records)
    return [replace(record, id=id) for record, id in found if id is not None]


def moved_id(id: str, migration: Migration) -> str | None:
    """What the record of that id, or what waits under it, is called now; None where it is forgotten."""
    path, mark, rest = id.partition("!")
    flow, *segments = path.split("/")
    names: list[str] = []
    renamed = [flow]
    for segment in segments:
        match = _SEGMENT.fullmatch(segment)
        if match is None:  # an item of an Each
            renamed.append(segment)
            continue
        names.append(match["name"])
        name = migration.get("/".join(names), match["name"])
        if name is None:
            return None
        renamed.append(f"{name}#{match['visit']}")
    return "/".join(renamed) + mark + rest
