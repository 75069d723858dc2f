"""The graph of a page: the flow as it was written, with what this run did in each node.

outline + trace  ──▶  boxes (visits, time, cost, what the time went into), boxes in boxes, edges with their actions
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentflow.cli.tracing.amounts import dollars, duration
from agentflow.cli.tracing.categories import in_order
from agentflow.cli.tracing.layout import Layout, Line, Point, laid_out
from agentflow.cli.tracing.markup import Html, element, joined
from agentflow.cli.tracing.page_bars import colour_class
from agentflow.core.observability.attribution import Parts, merged
from agentflow.core.observability.trace.totals import Totals, place_of, totals
from agentflow.core.observability.trace.tree import Trace

__all__ = ["graph_picture"]

_SIGN: Final = 7.6  # pixels that a sign of a box's text takes
_HIGH: Final = 58.0
_PAD: Final = 14.0
_TITLE: Final = 24.0
_DEEPEST: Final = 8
_LONGEST: Final = 28


@dataclass(slots=True)
class _Done:
    """What a run did in one place of the graph."""

    visits: int = 0
    failed: int = 0
    seconds: float = 0.0
    first: int = 0
    breakdown: Parts = field(default_factory=dict)
    used: Totals = field(default_factory=Totals)
    ways: Counter[str] = field(default_factory=Counter)
    """How often it went which way."""


def graph_picture(trace: Trace, shown: frozenset[int]) -> Html | None:
    """None where the run brought no outline. `shown` are the spans that have details on the page."""
    graph = trace.graph
    if graph is None or not _listed(graph, "nodes"):
        return None
    drawn = _Region(graph, trace.name, _done(trace), shown, 0)
    wide, high = drawn.width + 2 * _PAD, drawn.height + 2 * _PAD
    arrow = element("path", d="M0,0 L8,4 L0,8 z")
    marker = element(
        "marker", arrow, id="arrow", viewBox="0 0 8 8", refX=7, refY=4, markerWidth=7, markerHeight=7, orient="auto"
    )
    return element(
        "svg",
        element("title", f"the graph of {trace.name}, with what the run did in each node"),
        element("defs", marker),
        element("g", drawn.picture(), transform=f"translate({_PAD:.0f} {_PAD:.0f})"),
        class_="graph",
        viewBox=f"0 0 {wide:.0f} {high:.0f}",
        width=round(wide),
        height=round(high),
        role="img",
    )


def _done(trace: Trace) -> dict[str, _Done]:
    found: dict[str, _Done] = {}
    for span in trace.walk():
        if span.what not in ("node", "flow") or span.item is not None:
            continue
        done = found.setdefault(place_of(span.path), _Done())
        if span.what == "flow" and done.visits:
            continue  # a nested flow is a node and a flow; it counts once
        done.visits += not span.is_cut_short
        done.failed += span.status == "failed"
        done.seconds += span.duration
        done.first = done.first or span.number
        done.breakdown = merged(done.breakdown, span.breakdown)
        done.used += totals(span.walk())
        if span.status == "done":
            done.ways[str(span.data.get("action") or "default")] += 1
    return found


class _Box:
    """A node: its size, and its picture once it is known where it stands."""

    def __init__(
        self, node: Mapping[str, object], place: str, done: Mapping[str, _Done], shown: frozenset[int], deep: int
    ) -> None:
        self.name = str(node.get("name", "?"))
        self.kind = str(node.get("kind") or "")
        within = place if self.kind in ("parallel", "dataflow") else f"{place}/{self.name}"
        self._done = done.get(f"{place}/{self.name}")
        self._shown = shown
        self._inside: list[_Region] = []
        if deep < _DEEPEST:
            for inner in _listed(node, "inside"):
                base = f"{within}/{inner['name']}" if self.kind == "each" and inner.get("name") else within
                self._inside.append(_Region(inner, base, done, shown, deep + 1, by_key=self.kind == "dataflow"))
        self.width, self.height = self._size()

    def _size(self) -> tuple[float, float]:
        words = max(len(self._title), len(self._said))
        wide = max(96.0, words * _SIGN + 2 * _PAD)
        if not self._inside:
            return wide, _HIGH
        high = sum(each.height + _PAD for each in self._inside)
        return max(wide, max(each.width for each in self._inside) + 2 * _PAD), high + _TITLE + _HIGH * 0.35 + _PAD / 2

    @property
    def _title(self) -> str:
        name = self.name if len(self.name) <= _LONGEST else f"{self.name[:_LONGEST]}…"
        return f"{name} (each)" if self.kind == "each" else name

    @property
    def _said(self) -> str:
        done = self._done
        if done is None:
            return "" if self.kind in ("parallel", "dataflow") else "not visited"
        parts = [f"×{done.visits}" if done.visits > 1 else "", duration(done.seconds)]
        parts.append(dollars(done.used.known_cost) if done.used.calls and done.used.known_cost else "")
        return "  ".join(part for part in parts if part)

    def went(self, action: str, target: _Box | None) -> int:
        """How often a run has gone on from here in that way. Of a section it is known by what it leads to."""
        if self.kind in ("parallel", "dataflow"):
            return 0 if target is None else target.visits
        return 0 if self._done is None else self._done.ways[action]

    @property
    def visits(self) -> int:
        return 0 if self._done is None else self._done.visits

    def picture(self, at: Point) -> Html:
        done = self._done
        visited = done is not None or self.kind in ("parallel", "dataflow")
        classes = ["node", "visited" if visited else "unvisited", "failed" if done and done.failed else ""]
        body = element(
            "g",
            element("title", self._told()),
            element("rect", x=4, y=4, width=self.width, height=self.height, rx=7) if self.kind == "each" else None,
            element("rect", width=self.width, height=self.height, rx=7),
            element("text", self._title, x=_PAD, y=22, class_="title"),
            element("text", self._said, x=_PAD, y=40, class_="said"),
            self._bar(),
            self._stacked(),
            class_=" ".join(
                filter(None, [*classes, self.kind if self.kind in ("parallel", "dataflow", "each", "flow") else ""])
            ),
            transform=f"translate({at[0]:.1f} {at[1]:.1f})",
        )
        if done is not None and done.first in self._shown:
            return element("a", body, href=f"#s{done.first}")
        return body

    def _told(self) -> str:
        done = self._done
        if done is None:
            return f"{self.name}: not visited in this run"
        parts = ", ".join(f"{each.word} {duration(seconds)}" for each, seconds in in_order(done.breakdown))
        return f"{self.name}: {done.visits} visits, {done.failed} failed, {duration(done.seconds)} ({parts})"

    def _bar(self) -> Html | None:
        """What the node's time went into, along its lower edge."""
        done = self._done
        whole = sum(done.breakdown.values()) if done is not None else 0.0
        if done is None or whole <= 0.0 or self._inside:
            return None
        x, pieces = _PAD, []
        room = self.width - 2 * _PAD
        for each, seconds in in_order(done.breakdown):
            wide = seconds / whole * room
            pieces.append(element("rect", class_=f"piece {colour_class(each.name)}", x=x, y=46, width=wide, height=5))
            x += wide
        return element("g", pieces)

    def _stacked(self) -> Html | None:
        y, parts = _TITLE + _HIGH * 0.35, []
        for each in self._inside:
            parts.append(element("g", each.picture(), transform=f"translate({_PAD:.1f} {y:.1f})"))
            y += each.height + _PAD
        return element("g", parts) if parts else None


class _Region:
    """A stretch of graph: boxes and the edges between them; a dot stands for the end. With `by_key` an edge is a key
    that the one writes and the other reads."""

    _END: Final = "\1end"

    def __init__(
        self,
        graph: Mapping[str, object],
        place: str,
        done: Mapping[str, _Done],
        shown: frozenset[int],
        deep: int,
        *,
        by_key: bool = False,
    ) -> None:
        self._by_key = by_key
        self._boxes = {
            box.name: box for box in (_Box(node, place, done, shown, deep) for node in _listed(graph, "nodes"))
        }
        start = str(graph.get("start") or "")
        if start in self._boxes:
            self._boxes = {start: self._boxes[start], **self._boxes}
        self._edges = list(self._read(graph))
        sizes = {name: (box.width, box.height) for name, box in self._boxes.items()}
        if any(target == self._END for _, _, target in self._edges):
            sizes[self._END] = (14.0, 14.0)
        self._layout: Layout = laid_out(sizes, [(source, target) for source, _, target in self._edges])
        self.width, self.height = self._layout.width, self._layout.height

    def _read(self, graph: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
        found = graph.get("edges")
        for edge in found if isinstance(found, Sequence) and not isinstance(found, str) else ():
            if not isinstance(edge, Sequence) or isinstance(edge, str) or len(edge) != 3:
                continue
            source, action, target = edge
            ends = self._END if target is None else str(target)
            if str(source) in self._boxes and (target is None or ends in self._boxes):
                yield str(source), str(action), ends

    def picture(self) -> Html:
        lines = [self._drawn(line, *edge) for line, edge in zip(self._layout.lines, self._edges, strict=True)]
        boxes = [box.picture(self._layout.places[name]) for name, box in self._boxes.items()]
        end = self._layout.places.get(self._END)
        dot = (
            None
            if end is None
            else element("circle", element("title", "the end"), class_="end", cx=end[0] + 7, cy=end[1] + 7, r=6)
        )
        return joined(*lines, *boxes, dot)

    def _drawn(self, line: Line, source: str, action: str, target: str) -> Html:
        after = self._boxes.get(target)
        went = after.visits if self._by_key and after is not None else self._boxes[source].went(action, after)
        path = element("path", d=_way_back(line.points) if line.back else _way(line.points), marker_end="url(#arrow)")
        at = _middle(line)
        word = (
            None
            if action == "default"
            else element("text", action[:_LONGEST], x=at[0], y=at[1] - 5, text_anchor="middle")
        )
        times = "not taken" if not went else "taken once" if went == 1 else f"taken {went} times"
        classes = ["edge", "back" if line.back else "", "" if went else "idle"]
        return element("g", element("title", f"{action}: {times}"), path, word, class_=" ".join(filter(None, classes)))


def _way(points: Sequence[Point]) -> str:
    """Curves from point to point, level at each."""
    x, y = points[0]
    steps = [f"M{x:.1f},{y:.1f}"]
    for to_x, to_y in points[1:]:
        half = (to_x - x) / 2
        steps.append(f"C{x + half:.1f},{y:.1f} {to_x - half:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f}")
        x, y = to_x, to_y
    return " ".join(steps)


def _way_back(points: Sequence[Point]) -> str:
    """Straight lines with round corners."""
    steps = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for before, at, after in zip(points, points[1:], points[2:], strict=False):
        one, two = _towards(at, before), _towards(at, after)
        steps.append(f"L{one[0]:.1f},{one[1]:.1f} Q{at[0]:.1f},{at[1]:.1f} {two[0]:.1f},{two[1]:.1f}")
    return " ".join([*steps, f"L{points[-1][0]:.1f},{points[-1][1]:.1f}"])


def _towards(at: Point, other: Point) -> Point:
    """A little way from one point to another, at most half of it."""
    far = abs(other[0] - at[0]) + abs(other[1] - at[1])
    share = min(9.0, far / 2) / far if far else 0.0
    return at[0] + (other[0] - at[0]) * share, at[1] + (other[1] - at[1]) * share


def _middle(line: Line) -> Point:
    if line.back:
        low = max(y for _, y in line.points)
        along = [x for x, y in line.points if y == low]
        return (along[0] + along[-1]) / 2, low
    at = len(line.points) // 2
    one, two = line.points[at - 1], line.points[at]
    return (one[0] + two[0]) / 2, (one[1] + two[1]) / 2


def _listed(graph: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    found = graph.get(name)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, Sequence) else []
