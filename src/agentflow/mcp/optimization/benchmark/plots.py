"""The report's pictures, drawn as SVG: percentiles, a run over time, the load, and the generator's own lag.

    Frame(…)                 axes and grid; from values to places
    percentile_plot(…)       latency over percentile, the tail as wide as the body
    time_plot(…)             every request at its intended moment
    load_plot(…)             arrivals, answers, and requests under way over time

Colours are classes (`m0`, `m1`, …), which the style sheet gives for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agentflow.mcp.optimization.benchmark.amounts import plain, seconds
from agentflow.mcp.optimization.benchmark.markup import Markup, element
from agentflow.mcp.optimization.benchmark.measures import PERCENTILES, Distribution, Measures
from agentflow.mcp.optimization.benchmark.percentiles import quantile
from agentflow.mcp.optimization.benchmark.record import Record

__all__ = ["Line", "load_plot", "percentile_plot", "time_plot"]

WIDE: Final = 640.0
HIGH: Final = 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 12.0, 34.0
_MOST_POINTS: Final = 2_500
_Point = tuple[float | None, Record, int]
_BINS: Final = 60


@dataclass(frozen=True, slots=True)
class Line:
    """A distribution to draw, in the colour of model `number`; dashed for one that is only there to compare."""

    name: str
    number: int
    values: Distribution
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """Places in a picture whose axes run from 0 to `x_end` and from `y_start` to `y_end`."""

    x_end: float
    y_end: float
    y_start: float = 0.0
    log: bool = False

    def x(self, value: float) -> float:
        return _LEFT + (WIDE - _LEFT - _RIGHT) * (value / self.x_end if self.x_end > 0.0 else 0.0)

    def y(self, value: float) -> float:
        return HIGH - _BOTTOM - (HIGH - _TOP - _BOTTOM) * min(1.0, max(0.0, self._share(value)))

    def _share(self, value: float) -> float:
        if not self.log:
            return (value - self.y_start) / (self.y_end - self.y_start) if self.y_end > self.y_start else 0.0
        whole = math.log(self.y_end / self.y_start)
        return math.log(max(value, self.y_start) / self.y_start) / whole if whole > 0.0 else 0.0


def percentile_plot(lines: Sequence[Line], *, bound: float | None = None) -> Markup | None:
    """Latency over percentiles, each nine as wide as the one before. Bars are the intervals."""
    drawn = [line for line in lines if line.values.count]
    if not drawn:
        return None
    ends = [_finite(line.values.ordered) for line in drawn]
    highest = max([values[-1] for values in ends if values] + ([bound] if bound else []), default=0.0)
    lowest = min((values[0] for values in ends if values), default=0.0)
    count = max(line.values.count for line in drawn)
    nines = min(4.0, max(1.0, math.log10(count)))
    frame = _frame(nines, lowest, highest)
    ticks = [(math.log10(1.0 / (1.0 - p)), f"{p * 100:g}%") for p in (0.0, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999)]
    parts = [_grid(frame, [(x, name) for x, name in ticks if x <= nines + 1e-9])]
    if bound is not None:
        parts.append(_bound(frame, bound))
    for line in drawn:
        parts += [_curve(frame, line, nines), *([] if line.dashed else _whiskers(frame, line, nines))]
    return _picture(parts, "latency over percentile")


def _frame(x_end: float, lowest: float, highest: float) -> Frame:
    """Logarithmic where the tail would press everything else to the floor."""
    if lowest > 0.0 and highest / lowest > 30.0:
        return Frame(x_end, highest * 1.1, lowest * 0.9, log=True)
    return Frame(x_end, highest * 1.06 or 1.0)


def _finite(ordered: Sequence[float]) -> list[float]:
    return [value for value in ordered if math.isfinite(value)]


def _curve(frame: Frame, line: Line, nines: float) -> Markup:
    places = []
    for step in range(241):
        x = nines * step / 240.0
        value = quantile(line.values.ordered, 1.0 - 10.0**-x)
        if math.isinf(value):
            break
        places.append(f"{frame.x(x):.1f},{frame.y(value):.1f}")
    kind = f"line m{line.number}" + (" dashed" if line.dashed else "")
    return element("polyline", points=" ".join(places), class_=kind)


def _whiskers(frame: Frame, line: Line, nines: float) -> list[Markup]:
    found = []
    for name, p in PERCENTILES.items():
        estimate, at = line.values.percentiles[name], math.log10(1.0 / (1.0 - p))
        if at > nines or math.isinf(estimate.value):
            continue
        x = frame.x(at)
        low = frame.y(estimate.value if estimate.low is None else estimate.low)
        top = estimate.high is None or math.isinf(estimate.high)
        high = frame.y(frame.y_end if top else estimate.high or 0.0)
        said = element("title", f"{line.name}, {name}: {seconds(estimate.value)}")
        found.append(element("line", x1=x, x2=x, y1=low, y2=high, class_=f"whisker m{line.number}"))
        found.append(element("circle", said, cx=x, cy=frame.y(estimate.value), r=3.2, class_=f"dot m{line.number}"))
    return found


def time_plot(measures: Sequence[Measures]) -> Markup | None:
    """Each request's latency at its intended moment; what failed stands as a cross along the top."""
    points: list[_Point] = [(each.e2e, each, number) for number, one in enumerate(measures) for each in one.records]
    known = [value for value, _, _ in points if value is not None and math.isfinite(value)]
    if not points or not known:
        return None
    end = max(each.intended for _, each, _ in points) or 1.0
    frame = _frame(end, min(known), max(known))
    parts = [_outside(frame, measures[0], end), _grid(frame, _clock(end))]
    for value, each, number in _thinned(points):
        x = frame.x(each.intended)
        if value is None or math.isinf(value):
            parts.append(_cross(x, _TOP + 5.0 + 7.0 * number, number, each.error or ""))
        else:
            parts.append(element("circle", cx=x, cy=frame.y(value), r=1.9, class_=f"point m{number}"))
    return _picture(parts, "latency of each request over time")


def _thinned(points: list[_Point]) -> list[_Point]:
    """All that failed, the slowest, and an even choice of the others."""
    if len(points) <= _MOST_POINTS:
        return points
    slow = sorted(points, key=lambda point: math.inf if point[0] is None else point[0], reverse=True)
    kept = {id(point) for point in slow[: _MOST_POINTS // 5]}
    step = len(points) / (_MOST_POINTS * 0.8)
    kept |= {id(points[int(index * step)]) for index in range(int(_MOST_POINTS * 0.8))}
    return [point for point in points if id(point) in kept]


def load_plot(measures: Sequence[Measures]) -> Markup | None:
    """Requests under way, of each model; behind them the arrivals, the same for all."""
    records = measures[0].records
    if not records:
        return None
    end = max([each.intended for one in measures for each in one.records] + [measures[0].window.end])
    counts = [_under_way(one, end) for one in measures]
    highest = max((count for steps in counts for _, count in steps), default=1)
    frame = Frame(end, max(1.0, highest * 1.08))
    bins = _binned([each.intended for each in records], end)
    tallest = max(bins) or 1
    parts = [_outside(frame, measures[0], end), _grid(frame, _clock(end), plain)]
    for index, count in enumerate(bins):
        x, wide = frame.x(end * index / _BINS), (frame.x(end) - frame.x(0.0)) / _BINS
        high = (HIGH - _TOP - _BOTTOM) * 0.35 * count / tallest
        said = element("title", f"{count / (end / _BINS):.3g} arrivals a second")
        parts.append(element("rect", said, x=x, y=HIGH - _BOTTOM - high, width=wide, height=high, class_="arrivals"))
    for number, steps in enumerate(counts):
        places = " ".join(f"{frame.x(at):.1f},{frame.y(count):.1f}" for at, count in steps)
        parts.append(element("polyline", points=places, class_=f"line m{number}"))
    return _picture(parts, "requests under way over time")


def _binned(moments: Sequence[float], end: float) -> list[int]:
    bins = [0] * _BINS
    for moment in moments:
        bins[min(_BINS - 1, int(moment / end * _BINS))] += 1
    return bins


def _under_way(one: Measures, end: float) -> list[tuple[float, float]]:
    """The most in each of so many stretches of time as the picture has room for."""
    steps = [(each.sent, 1) for each in one.records if each.sent is not None]
    steps += [
        (end if each.ended is None else min(end, each.ended), -1) for each in one.records if each.sent is not None
    ]
    slots = 200
    most, now = [0] * (slots + 1), 0
    last = 0
    for at, step in sorted(steps):
        slot = min(slots, max(0, int(at / end * slots)))
        for between in range(last + 1, slot + 1):
            most[between] = now
        now += step
        most[slot], last = max(most[slot], now), slot
    for between in range(last + 1, slots + 1):
        most[between] = now
    return [(end * slot / slots, float(count)) for slot, count in enumerate(most)]


# ---- axes ----------------------------------------------------------------------------------------------------


def _picture(parts: Sequence[Markup], label: str) -> Markup:
    return element("svg", parts, class_="plot", viewBox=f"0 0 {WIDE:g} {HIGH:g}", role="img", aria_label=label)


def _grid(frame: Frame, ticks: Sequence[tuple[float, str]], said: Callable[[float], str] = seconds) -> Markup:
    floor = HIGH - _BOTTOM
    parts = []
    for value in _levels(frame):
        y = frame.y(value)
        parts.append(element("line", x1=_LEFT, x2=WIDE - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", said(value), x=_LEFT - 8.0, y=y + 4.0, text_anchor="end"))
    for at, name in ticks:
        x = frame.x(at)
        parts.append(element("line", x1=x, x2=x, y1=floor, y2=floor + 4.0, class_="axis"))
        parts.append(element("text", name, x=x, y=floor + 19.0, text_anchor="middle"))
    parts.append(element("line", x1=_LEFT, x2=WIDE - _RIGHT, y1=floor, y2=floor, class_="axis"))
    return element("g", parts)


def _levels(frame: Frame) -> list[float]:
    if frame.log:
        first = math.floor(math.log10(frame.y_start))
        steps = [digit * 10.0**power for power in range(first, first + 12) for digit in (1, 2, 5)]
        inside = [step for step in steps if frame.y_start <= step <= frame.y_end]
        return inside if len(inside) <= 8 else [step for step in inside if f"{step:e}".startswith("1")]
    step = _round_step(frame.y_end / 5.0)
    return [step * index for index in range(int(frame.y_end / step) + 1)]


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least)) if least > 0.0 else 1.0
    return next(power * digit for digit in (1.0, 2.0, 2.5, 5.0, 10.0) if power * digit >= least * 0.999)


def _clock(end: float) -> list[tuple[float, str]]:
    step = _round_step(end / 6.0)
    return [(step * index, f"{step * index:g} s") for index in range(int(end / step) + 1)]


def _outside(frame: Frame, one: Measures, end: float) -> Markup:
    """What is not counted, shaded."""
    high = HIGH - _TOP - _BOTTOM
    edges = [(0.0, min(end, one.window.start)), (min(end, one.window.end), end)]
    places = [(frame.x(start), frame.x(stop)) for start, stop in edges if stop > start]
    shades = [element("rect", x=x, y=_TOP, width=to - x, height=high, class_="outside") for x, to in places]
    return element("g", shades)


def _bound(frame: Frame, value: float) -> Markup:
    y = frame.y(value)
    line = element("line", x1=_LEFT, x2=WIDE - _RIGHT, y1=y, y2=y, class_="bound")
    return element("g", line, element("text", f"allowed: {seconds(value)}", x=_LEFT + 6.0, y=y - 5.0, class_="bound"))


def _cross(x: float, y: float, number: int, why: str) -> Markup:
    path = f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"
    return element("path", element("title", why), d=path, class_=f"cross m{number}")
