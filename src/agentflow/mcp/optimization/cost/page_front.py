"""The front as a drawing for the page: what every quality costs, each model alone, today, and what is proposed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agentflow.mcp.optimization.cost.advice.money import usd
from agentflow.mcp.optimization.cost.findings import Findings, Front, FrontPoint
from agentflow.mcp.optimization.cost.markup import Html, element

__all__ = ["front_drawings", "labels", "marks_of", "proposed_point"]

_WIDTHS: Final = {"wide": 760.0, "slim": 400.0}
_HIGH: Final = 340.0
_LEFT: Final = 64.0
_BOTTOM: Final = 44.0
_TOP: Final = 30.0
_RIGHT: Final = 24.0
_NAME: Final = 70.0  # how much room a name is given


@dataclass(frozen=True, slots=True)
class _Scale:
    """Amounts to places on the paper."""

    width: float
    most: float
    least_quality: float
    most_quality: float

    def x(self, cost: float) -> float:
        return _LEFT + (self.width - _LEFT - _RIGHT) * cost / self.most

    def y(self, quality: float) -> float:
        share = (quality - self.least_quality) / (self.most_quality - self.least_quality)
        return _HIGH - _BOTTOM - (_HIGH - _BOTTOM - _TOP) * share


def proposed_point(findings: Findings) -> FrontPoint | None:
    """Where the proposed mix lies: at its quality, at what the front costs there."""
    route = next((each for each in findings.proposals if each.kind == "route"), None)
    front = findings.front
    if route is None or route.quality is None or front is None or front.present is None:
        return None
    return FrontPoint(
        "proposed", max(0.0, front.present.cost - route.saves.value), route.quality.after, route.quality.low
    )


def front_drawings(findings: Findings) -> list[Html]:
    """One for broad pages and one for slim ones; the style sheet shows one of them. None where nothing was judged."""
    front = findings.front
    if front is None or len(front.points) < 2:
        return []
    return [_drawing(findings, front, name) for name in _WIDTHS]


def _drawing(findings: Findings, front: Front, name: str) -> Html:
    proposed = proposed_point(findings)
    scale = _scale(_WIDTHS[name], [*front.points, *marks_of(front, proposed)])
    words = f"Cost a day from {usd(0.0)} to {usd(scale.most)}, mean score from {scale.least_quality:.2f} to 1"
    return element(
        "svg",
        *_axes(scale),
        _band(scale, front),
        element("polyline", points=_path(scale, front.points), class_="front"),
        *_marked(scale, front, proposed),
        viewBox=f"0 0 {scale.width:g} {_HIGH:g}",
        role="img",
        aria_label=words,
        class_=f"drawing {name}",
    )


def _scale(width: float, points: list[FrontPoint]) -> _Scale:
    qualities = [value for point in points for value in (point.quality, max(0.0, point.low))]
    least, most = min(qualities), max(point.quality for point in points)
    room = max(0.01, (most - least) * 0.08)
    return _Scale(
        width, max(point.cost for point in points) * 1.12 or 1.0, max(0.0, least - room), min(1.0, most + room)
    )


def _axes(scale: _Scale) -> Iterator[Html]:
    for cost in _ticks(0.0, scale.most):
        x = scale.x(cost)
        yield element("line", x1=x, x2=x, y1=_TOP, y2=_HIGH - _BOTTOM, class_="grid")
        yield element("text", usd(cost), x=x, y=_HIGH - _BOTTOM + 18.0, class_="middle")
    for quality in _ticks(scale.least_quality, scale.most_quality):
        y = scale.y(quality)
        yield element("line", x1=_LEFT, x2=scale.width - _RIGHT, y1=y, y2=y, class_="grid")
        yield element("text", f"{quality:.3g}", x=_LEFT - 8.0, y=y + 4.0, class_="end")
    yield element("text", "US dollars a day", x=(_LEFT + scale.width - _RIGHT) / 2, y=_HIGH - 6.0, class_="middle name")
    yield element("text", "mean score", x=4.0, y=_TOP - 14.0, class_="name")


def _ticks(least: float, most: float) -> list[float]:
    """Some four or five round numbers between."""
    span = most - least
    step = next(
        step
        for power in range(-9, 12)
        for step in (1.0 * 10.0**power, 2.0 * 10.0**power, 5.0 * 10.0**power)
        if span / step <= 5.5
    )
    first = int(least / step) + (least % step > 1e-12)
    return [number * step for number in range(first, int(most / step + 1e-9) + 1)]


def _path(scale: _Scale, points: tuple[FrontPoint, ...]) -> str:
    return " ".join(f"{scale.x(point.cost):.1f},{scale.y(point.quality):.1f}" for point in points)


def _band(scale: _Scale, front: Front) -> Html:
    """From the estimate down to its lower bound."""
    upper = [f"{scale.x(point.cost):.1f},{scale.y(point.quality):.1f}" for point in front.points]
    lower = [f"{scale.x(each.cost):.1f},{scale.y(max(each.low, scale.least_quality)):.1f}" for each in front.points]
    return element("polygon", points=" ".join([*upper, *reversed(lower)]), class_="band")


def _marked(scale: _Scale, front: Front, proposed: FrontPoint | None) -> Iterator[Html]:
    marks = marks_of(front, proposed)
    places = [(scale.x(point.cost), scale.y(point.quality)) for point in marks]
    for point, (x, y), (right, below) in zip(marks, places, labels(places, scale.width), strict=True):
        sort = point.name if point in (front.present, proposed) else "single"
        yield element("circle", cx=x, cy=y, r=5.5, class_=sort)
        yield element(
            "text",
            point.name,
            x=x + (9.0 if right else -9.0),
            y=y + (17.0 if below else -7.0),
            class_=f"mark{'' if right else ' end'}",
        )


def marks_of(front: Front, proposed: FrontPoint | None) -> list[FrontPoint]:
    """Each model alone, today, and what is proposed."""
    return [*front.single, *([front.present] if front.present else []), *([proposed] if proposed else [])]


def labels(places: list[tuple[float, float]], wide: float) -> list[tuple[bool, bool]]:
    """For each point whether its name stands to the right and below, so that no two names lie over each other. Places
    are in points, downwards."""
    found: list[tuple[bool, bool]] = []
    taken = [(x - 6.0, y - 6.0, x + 6.0, y + 6.0) for x, y in places]
    for x, y in places:
        sides = [(True, True), (True, False), (False, False), (False, True)]
        free = [side for side in sides if not any(_over(_box(x, y, *side), other) for other in taken)]
        inside = [side for side in free or sides if _box(x, y, *side)[0] >= 0.0 and _box(x, y, *side)[2] <= wide]
        found.append((inside or free or sides)[0])
        taken.append(_box(x, y, *found[-1]))
    return found


def _box(x: float, y: float, right: bool, below: bool) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a name beside a point."""
    left, top = (x + 7.0 if right else x - 7.0 - _NAME), (y + 6.0 if below else y - 20.0)
    return left, top, left + _NAME, top + 14.0


def _over(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
