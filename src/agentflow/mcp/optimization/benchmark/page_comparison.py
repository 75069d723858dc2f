"""The report's table of two sides: each metric before and after, and its change with the interval as a bar."""

from __future__ import annotations

import math
from typing import Final

from agentflow.mcp.optimization.benchmark.amounts import of_metric, signed
from agentflow.mcp.optimization.benchmark.comparison import Comparison, Difference
from agentflow.mcp.optimization.benchmark.markup import Markup, element

__all__ = ["comparison_table"]

_WIDE: Final = 200.0
_CLASSES: Final = {"better": "good", "worse": "bad", "same": "soft"}


def comparison_table(comparison: Comparison) -> Markup:
    titles = ["", "before", "after", "change", "", "p", ""]
    numbers = {1, 2, 3, 5}
    head = [element("th", title, class_="number" if at in numbers else None) for at, title in enumerate(titles)]
    reach = _reach(comparison)
    return element(
        "table",
        element("thead", element("tr", head)),
        element("tbody", [_row(each, reach) for each in comparison.differences]),
    )


def _row(each: Difference, reach: float) -> Markup:
    kind = _CLASSES[each.verdict]
    return element(
        "tr",
        element("th", each.metric),
        element("td", of_metric(each.metric, each.before), class_="number"),
        element("td", of_metric(each.metric, each.after), class_="number"),
        element("td", signed(each.relative), class_=f"number {kind}"),
        element("td", _bar(each, reach), class_=kind),
        element("td", "<0.001" if each.holm < 0.001 else f"{each.holm:.3f}", class_="number"),
        element("td", each.verdict, class_=kind),
    )


def _reach(comparison: Comparison) -> float:
    """How far the bars go: the largest relative change, cut where a single one would dwarf the others."""
    ends = [abs(each.share(end)) for each in comparison.differences for end in (each.low, each.high)]
    known = [end for end in ends if math.isfinite(end)]
    return min(2.0, max(known, default=0.0)) or 0.1


def _bar(each: Difference, reach: float) -> Markup:
    low, middle, high = (_place(each.share(value), reach) for value in (each.low, each.change, each.high))
    return element(
        "svg",
        element("line", x1=_WIDE / 2, x2=_WIDE / 2, y1=0, y2=18, class_="zero"),
        element("line", x1=low, x2=max(high, low + 1.0), y1=9, y2=9, class_="span"),
        element("circle", cx=middle, cy=9, r=3.5),
        class_="forest",
        viewBox=f"0 0 {_WIDE:g} 18",
        aria_hidden="true",
    )


def _place(share: float, reach: float) -> float:
    return _WIDE / 2 + (_WIDE / 2 - 6.0) * min(1.0, max(-1.0, share / reach))
