"""A graph as a Mermaid flowchart: actions on the edges, sections and nested flows as subgraphs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentflow.core.graph import DEFAULT, Dataflow, End, Graph, Parallel, Region, Vertex

__all__ = ["mermaid"]

_SPECIAL: Final = re.compile(r"""["#&<>`\\\r\n]""")


def mermaid(graph: Graph) -> str:
    """The text of a Mermaid flowchart, top down. The same graph always gives the same text."""
    return "\n".join(["flowchart TD", *_indent(_Drawing().whole(graph)), ""])


class _Drawing:
    """Gives every vertex an id of its own: names may repeat between nested flows, ids may not."""

    def __init__(self) -> None:
        self._count = 0

    def whole(self, graph: Graph) -> Iterator[str]:
        ids = self._ids(graph)
        yield f"{self._new_id()}(( )) --> {ids[graph.start]}"
        yield from self._region(graph.flow, graph, ids)

    def _nested(self, graph: Graph) -> Iterator[str]:
        yield from self._region(graph.flow, graph, self._ids(graph))

    def _ids(self, graph: Graph) -> dict[Vertex, str]:
        return {vertex: self._new_id() for vertex in graph.vertices()}

    def _new_id(self) -> str:
        self._count += 1
        return f"n{self._count}"

    def _region(self, region: Region, graph: Graph, ids: dict[Vertex, str]) -> Iterator[str]:
        for vertex in region.vertices:
            yield from self._vertex(vertex, graph, ids)
        for vertex in region.vertices:
            for action, target in graph.edges[vertex].items():
                if isinstance(target, End):
                    if action == DEFAULT and vertex is region.last:
                        continue  # the implied way to the join: leaving the subgraph shows it
                    end = self._new_id()
                    yield f"{end}([END])"
                    yield f"{ids[vertex]} {_arrow(action)} {end}"
                else:
                    yield f"{ids[vertex]} {_arrow(action)} {ids[target]}"

    def _vertex(self, vertex: Vertex, graph: Graph, ids: dict[Vertex, str]) -> Iterator[str]:
        if isinstance(vertex, Parallel):
            yield from self._subgraph(ids[vertex], _parallel_title(vertex), self._branches(vertex, graph, ids))
        elif isinstance(vertex, Dataflow):
            yield from self._subgraph(ids[vertex], "dataflow", self._dataflow(vertex, graph, ids))
        elif (inner := _inner(vertex)) is not None:
            title = f"{vertex.name}, for each item" if vertex.maps_items else vertex.name
            yield from self._subgraph(ids[vertex], title, self._nested(inner))
        else:
            yield f"{ids[vertex]}{_box(vertex)}"

    def _branches(self, section: Parallel, graph: Graph, ids: dict[Vertex, str]) -> Iterator[str]:
        for region in graph.branches[section]:
            yield from self._region(region, graph, ids)

    def _dataflow(self, section: Dataflow, graph: Graph, ids: dict[Vertex, str]) -> Iterator[str]:
        for node in section.nodes:
            yield from self._vertex(node, graph, ids)
        for node in section.nodes:
            for key in node.keys_read():
                if key in section.writer:
                    yield f"{ids[section.writer[key]]} -. {_text(key)} .-> {ids[node]}"

    def _subgraph(self, name: str, title: str, lines: Iterator[str]) -> Iterator[str]:
        yield f"subgraph {name}[{_text(title)}]"
        yield from _indent(lines)
        yield "end"


def _inner(vertex: Vertex) -> Graph | None:
    """The graph drawn inside a vertex: a nested flow's, or the one that each item of an Each runs through."""
    return vertex.inner_graph() or vertex.item_graph()


def _parallel_title(section: Parallel) -> str:
    name = section.name if section.named_by_user else "parallel"
    return name if section.need is None else f"{name}: first {section.need} of {len(section.branches)}"


def _box(vertex: Vertex) -> str:
    return f"[[{_text(vertex.name)}]]" if vertex.maps_items else f"[{_text(vertex.name)}]"


def _arrow(action: str) -> str:
    return "-->" if action == DEFAULT else f"-- {_text(action)} -->"


def _text(words: str) -> str:
    """Quoted for Mermaid. Its escapes are character codes between # and ;"""
    return f'"{_SPECIAL.sub(lambda found: f"#{ord(found[0])};", words)}"'


def _indent(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)
