"""A graph as plain data: nodes, and the edges between them, small enough to travel with a run's first event.

    plan >> judge, judge.on("again") >> plan, judge.on("fine") >> END

    {"start": "plan",
     "nodes": [{"name": "plan"}, {"name": "judge"}],
     "edges": [["plan", "default", "judge"], ["judge", "again", "plan"], ["judge", "fine", None]]}

An edge to None leads to the end. A node that others stand in says its `kind`, and has them `inside`, as outlines of
their own:

| kind | inside |
| --- | --- |
| (none) | nothing: it is a plain node |
| each | nothing, or the flow that each item runs through |
| flow | that flow |
| parallel | one outline a branch |
| dataflow | one outline, whose edges are labelled with the keys that order them |

What is inside a flow (or an `each` of flows) runs under its name in paths; a section adds nothing to them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from agentflow.core.graph import DEFAULT, Dataflow, End, Graph, Parallel, Region, Vertex

__all__ = ["MOST_NODES", "Outline", "outline", "whole_outline"]

Outline: TypeAlias = Mapping[str, object]
"""Made of dicts, lists and texts alone; shared between runs, so nobody may change it."""

MOST_NODES: Final = 500
"""So many nodes are outlined, in the order in which they were written; of a larger graph `left_out` counts the rest."""

_made: WeakKeyDictionary[Graph, Outline] = WeakKeyDictionary()


def outline(graph: Graph) -> Outline:
    """The outline of a flow's graph. It is made once: a graph never changes."""
    found = _made.get(graph)
    if found is None:
        found = _made[graph] = _Outlining().of(graph)
    return found


def whole_outline(graph: Graph) -> Outline:
    """The same with nothing left out, however large."""
    return _Outlining(sys.maxsize).of(graph)


class _Outlining:
    """Counts nodes over all levels, so that the whole stays small."""

    def __init__(self, room: int = MOST_NODES) -> None:
        self._room = room
        self._above: list[Graph] = []

    def of(self, graph: Graph) -> dict[str, object]:
        self._above.append(graph)
        try:
            return self._region(graph.flow, graph)
        finally:
            self._above.pop()

    def _region(self, region: Region, graph: Graph) -> dict[str, object]:
        shown = self._fitting(region.vertices)
        among = set(shown)
        edges = [edge for vertex in shown for edge in self._edges(vertex, region, graph, among)]
        found: dict[str, object] = {"start": region.start.name}
        found |= {"nodes": [self._node(vertex, graph) for vertex in shown], "edges": edges}
        return _honest(found, len(region.vertices) - len(shown))

    def _edges(self, vertex: Vertex, region: Region, graph: Graph, shown: set[Vertex]) -> Iterable[list[str | None]]:
        for action, target in graph.edges[vertex].items():
            if isinstance(target, End):
                implied = action == DEFAULT and vertex is region.last  # the way to the join
                if not implied:
                    yield [vertex.name, action, None]
            elif target in shown:
                yield [vertex.name, action, target.name]

    def _node(self, vertex: Vertex, graph: Graph) -> dict[str, object]:
        if isinstance(vertex, Parallel):
            inside = [self._region(region, graph) for region in graph.branches[vertex]]
            return {"name": vertex.name, "kind": "parallel", "inside": inside}
        if isinstance(vertex, Dataflow):
            return {"name": vertex.name, "kind": "dataflow", "inside": [self._dataflow(vertex, graph)]}
        if vertex.maps_items:
            return {"name": vertex.name, "kind": "each", "inside": self._nested(vertex.item_graph())}
        inner = vertex.inner_graph()
        if inner is not None:
            return {"name": vertex.name, "kind": "flow", "inside": self._nested(inner)}
        return {"name": vertex.name}

    def _nested(self, graph: Graph | None) -> list[dict[str, object]]:
        if graph is None or any(graph is above for above in self._above):
            return []
        return [{"name": graph.name, **self.of(graph)}]

    def _dataflow(self, section: Dataflow, graph: Graph) -> dict[str, object]:
        shown = self._fitting(section.nodes)
        edges = [
            [section.writer[key].name, key, node.name]
            for node in shown
            for key in node.keys_read()
            if section.writer.get(key) in shown
        ]
        nodes = [self._node(node, graph) for node in shown]
        return _honest({"nodes": nodes, "edges": edges}, len(section.nodes) - len(shown))

    def _fitting(self, vertices: Iterable[Vertex]) -> list[Vertex]:
        shown = list(vertices)[: self._room]
        self._room -= len(shown)
        return shown


def _honest(found: dict[str, object], left_out: int) -> dict[str, object]:
    return {**found, "left_out": left_out} if left_out else found
