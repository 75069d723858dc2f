"""A span as a bar of cells: which category had the most of each cell's time. No colours, no I/O.

stretches  ├─ limiter ─┼──── generation ────┤      of a run of 10 s, in 10 cells
cells        l   l   l   g   g   g   g   .   .   .
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from agentflow.cli.tracing.rows import Group
from agentflow.core.observability.trace.critical_path import Stretch, stretches
from agentflow.core.observability.trace.tree import Span

__all__ = ["Share", "axis", "cells_of", "painted"]

Share: TypeAlias = Callable[[float], float]
"""Where on the line, from 0 to 1, a moment of the run stands."""

_TEN: Final = 10.0
_CLOCK_STEPS: Final = (
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
    3600.0,
    7200.0,
    14_400.0,
    21_600.0,
    43_200.0,
    86_400.0,
)
"""Longer times are counted in minutes, hours and days."""
_ENOUGH: Final = 500
"""So many spans of a group show what most of them were doing."""


def cells_of(thing: Span | Group, share: Share, width: int) -> list[str | None]:
    """`width` cells: a category's name, or None where the span was not at work. `share` says where on the line, from 0
    to 1, a moment stands.

    What took any time at all has at least one cell. A group shows what most of its spans were doing.
    """
    if isinstance(thing, Group):
        some = thing.spans[:: max(1, len(thing.spans) // _ENOUGH)]
        return painted((each for span in some for each in stretches(span)), share, width, thing.start)
    return painted(stretches(thing), share, width, thing.start)


def painted(path: Iterable[Stretch], share: Share, width: int, begins: float) -> list[str | None]:
    cells: list[dict[str, float]] = [{} for _ in range(width)]
    for stretch in path:
        _paint(cells, stretch.category, share(stretch.start) * width, share(stretch.end) * width)
    found = [max(cell, key=lambda name: cell[name]) if cell else None for cell in cells]
    if width and not any(found):
        found[min(width - 1, max(0, int(share(begins) * width)))] = "own"
    return found


def _paint(cells: Sequence[dict[str, float]], name: str, begins: float, ends: float) -> None:
    first, last = max(0, int(begins)), min(len(cells) - 1, int(ends))
    for at in range(first, last + 1):
        share = min(ends, at + 1) - max(begins, at)
        if share > 0.0:
            cells[at][name] = cells[at].get(name, 0.0) + share


def axis(seconds: float, width: int) -> list[tuple[int, float]]:
    """Where to write which time along a bar: round steps, as many as leave room for their words."""
    if seconds <= 0.0 or width < 8:
        return [(0, 0.0)]
    step = _round_step(seconds / max(1, width // 8))
    count = int(seconds / step + 1e-9)
    return [(round(number * step / seconds * width), number * step) for number in range(count + 1)]


def _round_step(least: float) -> float:
    found = next((step for step in _CLOCK_STEPS if step >= least), None) if least > _TEN else None
    if found is not None:
        return found
    unit = 1e-6 if least <= _TEN else _CLOCK_STEPS[-1]
    while True:
        for factor in (1, 2, 5):
            if unit * factor >= least:
                return unit * factor
        unit *= 10
