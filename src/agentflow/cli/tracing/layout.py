"""Where the boxes of a graph stand: layers from left to right, each node as near to its neighbours as there is room.

    boxes with sizes, edges  ──▶  loops turned round ─▶ layers ─▶ order in them ─▶ places, and a line for each edge

The steps are those of Sugiyama, Tagawa and Toda ("Methods for visual understanding of hierarchical system
structures", 1981): the longest path gives the layer, barycentres the order; an edge over several layers gets a place in
each of them, so that no box stands on it. Edges that lead back run below everything. Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

__all__ = ["Edge", "Layout", "Line", "Point", "laid_out"]

_BETWEEN_LAYERS: Final = 56.0
_BETWEEN_BOXES: Final = 18.0
_LANE: Final = 20.0
_BESIDE: Final = 12.0
_SWEEPS: Final = 4

Point = tuple[float, float]
Edge = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Line:
    """An edge's way: through `points`; `back` for one that leads to an earlier layer."""

    points: tuple[Point, ...]
    back: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """`places` are upper left corners; `lines` are in the order of the edges given."""

    width: float
    height: float
    places: Mapping[str, Point]
    lines: Sequence[Line]


def laid_out(sizes: Mapping[str, tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """Place boxes, by name, and draw the edges between them. The first box is where it starts."""
    back = _leading_back(list(sizes), edges)
    forward = [edge for at, edge in enumerate(edges) if at not in back]
    layer = _layers(list(sizes), forward)
    return _Drawing(sizes, edges, back, layer).layout()


def _leading_back(names: Sequence[str], edges: Sequence[Edge]) -> frozenset[int]:
    """The edges that close a loop, walking from the first box in order; and those from a box to itself."""
    following: dict[str, list[tuple[int, str]]] = {name: [] for name in names}
    for at, (source, target) in enumerate(edges):
        following[source].append((at, target))
    found: set[int] = set()
    state: dict[str, int] = {}  # 1: on the way, 2: done
    for name in names:
        if name in state:
            continue
        state[name] = 1
        way = [(name, iter(following[name]))]
        while way:
            at_name, rest = way[-1]
            step = next(rest, None)
            if step is None:
                state[at_name] = 2
                way.pop()
            elif state.get(step[1]) == 1:
                found.add(step[0])
            elif step[1] not in state:
                state[step[1]] = 1
                way.append((step[1], iter(following[step[1]])))
    return frozenset(found)


def _layers(names: Sequence[str], forward: Sequence[Edge]) -> dict[str, int]:
    """The longest way to each box."""
    before: dict[str, int] = dict.fromkeys(names, 0)
    following: dict[str, list[str]] = {name: [] for name in names}
    for source, target in forward:
        before[target] += 1
        following[source].append(target)
    layer = dict.fromkeys(names, 0)
    ready = [name for name in names if not before[name]]
    for name in ready:
        for target in following[name]:
            layer[target] = max(layer[target], layer[name] + 1)
            before[target] -= 1
            if not before[target]:
                ready.append(target)
    return layer


class _Drawing:
    """Boxes and the places of long edges ("knots"), layer by layer."""

    def __init__(
        self,
        sizes: Mapping[str, tuple[float, float]],
        edges: Sequence[Edge],
        back: frozenset[int],
        layer: Mapping[str, int],
    ) -> None:
        self._sizes = dict(sizes)
        self._edges = edges
        self._back = back
        self._columns: list[list[str]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
        for name in sizes:
            self._columns[layer[name]].append(name)
        self._chains: list[list[str]] = [self._chain(at, edge, layer) for at, edge in enumerate(edges)]

    def _chain(self, at: int, edge: Edge, layer: Mapping[str, int]) -> list[str]:
        source, target = edge
        if at in self._back:
            return []
        chain = [source]
        for between in range(layer[source] + 1, layer[target]):
            knot = f"\0{at}/{between}"
            self._sizes[knot] = (0.0, 10.0)
            self._columns[between].append(knot)
            chain.append(knot)
        return [*chain, target]

    def layout(self) -> Layout:
        self._order()
        places, width, height = self._places()
        lines, lanes = [], 0
        for at, edge in enumerate(self._edges):
            if at in self._back:
                lanes += 1
                lines.append(self._way_back(edge, places, height + _LANE * (lanes - 0.5)))
            else:
                lines.append(Line(tuple(self._way(self._chains[at], places))))
        boxes = {name: place for name, place in places.items() if not name.startswith("\0")}
        return Layout(width, height + _LANE * lanes + (4.0 if lanes else 0.0), boxes, lines)

    def _order(self) -> None:
        """Sweep over the layers, to the right and back, and put each box at the mean of its neighbours."""
        left: dict[str, list[str]] = {name: [] for name in self._sizes}
        right: dict[str, list[str]] = {name: [] for name in self._sizes}
        for chain in self._chains:
            for one, two in pairwise(chain):
                right[one].append(two)
                left[two].append(one)
        for sweep in range(_SWEEPS):
            rightwards = sweep % 2 == 0
            near = left if rightwards else right
            columns = self._columns[1:] if rightwards else self._columns[-2::-1]
            for column in columns:
                at = {name: float(row) for each in self._columns for row, name in enumerate(each)}
                column.sort(key=lambda name: _mean([at[each] for each in near[name]], at[name]))

    def _places(self) -> tuple[dict[str, Point], float, float]:
        heights = [sum(self._sizes[name][1] + _BETWEEN_BOXES for name in column) for column in self._columns]
        height = max(heights, default=0.0) - _BETWEEN_BOXES
        places: dict[str, Point] = {}
        x = 0.0
        for column, tall in zip(self._columns, heights, strict=True):
            wide = max((self._sizes[name][0] for name in column), default=0.0)
            y = (height - (tall - _BETWEEN_BOXES)) / 2
            for name in column:
                own, high = self._sizes[name]
                places[name] = (x + (wide - own) / 2, y)
                y += high + _BETWEEN_BOXES
            x += wide + _BETWEEN_LAYERS
        return places, max(0.0, x - _BETWEEN_LAYERS), max(0.0, height)

    def _way(self, chain: Sequence[str], places: Mapping[str, Point]) -> list[Point]:
        points = []
        for at, name in enumerate(chain):
            (x, y), (wide, high) = places[name], self._sizes[name]
            points.append((x + (wide if at == 0 else 0.0), y + high / 2))
        return points

    def _way_back(self, edge: Edge, places: Mapping[str, Point], low: float) -> Line:
        """Out of one box, along below everything, into the other: through the bottom of a box that has nothing below
        it, else through its side and the room between layers."""
        source, target = edge
        apart = 0.15 if source == target else 0.0
        out = self._door(source, places, 0.5 + apart, right=True)
        into = self._door(target, places, 0.5 - apart, right=False)
        return Line((*out, (out[-1][0], low), (into[-1][0], low), *reversed(into)), back=True)

    def _door(self, name: str, places: Mapping[str, Point], share: float, *, right: bool) -> list[Point]:
        (x, y), (wide, high) = places[name], self._sizes[name]
        column = next(column for column in self._columns if name in column)
        if column[-1] == name:
            return [(x + wide * share, y + high)]
        edge = (
            max(places[each][0] + self._sizes[each][0] for each in column)
            if right
            else min(places[each][0] for each in column)
        )
        aside = edge + _BESIDE if right else edge - _BESIDE
        return [(x + wide if right else x, y + high / 2), (aside, y + high / 2)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
