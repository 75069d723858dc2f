"""Bars of a page: a span's stretches as a strip of coloured pieces, each with its words.

They are SVG with a thousand units of width, stretched to whatever room there is, so that they need no script and no
inline style, which the page's policy forbids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agentflow.cli.tracing.amounts import duration, per_cent
from agentflow.cli.tracing.bars import cells_of
from agentflow.cli.tracing.categories import category, in_order
from agentflow.cli.tracing.markup import Html, element
from agentflow.cli.tracing.rows import Group
from agentflow.cli.tracing.scale import Scale
from agentflow.core.observability.trace.critical_path import Stretch, stretches
from agentflow.core.observability.trace.tree import Span

__all__ = ["UNITS", "colour_class", "share_bar", "span_bar", "strip"]

UNITS: Final = 1000.0
_LEAST: Final = 1.6  # units that the shortest thing is wide
_PIECES: Final = 160  # more pieces than this in one bar cannot be told apart


def colour_class(name: str) -> str:
    """The class that colours a category. A name that is none of ours has the colour of what is unknown."""
    return f"c-{name}" if category(name).letter != "?" else "c-unattributed"


def span_bar(thing: Span | Group, scale: Scale, *, critical: bool) -> Html:
    """The bar of a line of the waterfall."""
    whole, at = scale.end - scale.start, scale.share
    if whole <= 0.0:
        return strip([(0.0, UNITS, "own", "")], critical=critical)
    if isinstance(thing, Group):
        return strip(_celled(thing, scale), critical=False)
    pieces = [
        (
            at(each.start) * UNITS,
            at(each.end) * UNITS,
            each.category,
            f"{category(each.category).word} {duration(each.duration)}",
        )
        for each in _coarse(stretches(thing), whole)
    ]
    begins = at(thing.start) * UNITS
    return strip(pieces or [(begins, begins, "own", "")], critical=critical)


def _celled(group: Group, scale: Scale) -> list[tuple[float, float, str, str]]:
    count = 200
    wide = UNITS / count
    found: list[tuple[float, float, str, str]] = []
    for at, name in enumerate(cells_of(group, scale.share, count)):
        if name is None:
            continue
        if found and found[-1][2] == name and abs(found[-1][1] - at * wide) < 0.01:
            found[-1] = (found[-1][0], (at + 1) * wide, name, found[-1][3])
        else:
            found.append((at * wide, (at + 1) * wide, name, f"mostly {category(name).word}"))
    return found


def _coarse(path: Sequence[Stretch], whole: float) -> Iterable[Stretch]:
    """Neighbours of a kind as one; and where there are too many, what is too short to see goes to its neighbour."""
    merged: list[Stretch] = []
    least = whole / UNITS if len(path) > _PIECES else 0.0
    for each in path:
        last = merged[-1] if merged else None
        if last is not None and (last.category == each.category or each.duration < least):
            merged[-1] = Stretch(last.start, each.end, last.category, last.span)
        else:
            merged.append(each)
    return merged


def strip(pieces: Iterable[tuple[float, float, str, str]], *, critical: bool = True) -> Html:
    """Pieces from, to (in units), category and words. What was not waited for is drawn slim."""
    y, high = (1, 14) if critical else (5, 6)
    drawn = []
    for begins, ends, name, words in pieces:
        wide = max(_LEAST, ends - begins)
        x = min(begins, UNITS - wide)
        title = element("title", words) if words else None
        drawn.append(element("rect", title, class_=colour_class(name), x=x, y=y, width=wide, height=high))
    return element(
        "svg",
        drawn,
        class_="bar",
        viewBox=f"0 0 {UNITS:.0f} 16",
        preserveAspectRatio="none",
        aria_hidden="true",
        focusable="false",
    )


def share_bar(breakdown: Mapping[str, float]) -> Html:
    """A whole, cut into its categories."""
    whole = sum(breakdown.values())
    pieces, at = [], 0.0
    for each, seconds in in_order(breakdown):
        wide = seconds / whole * UNITS if whole > 0.0 else 0.0
        pieces.append((at, at + wide, each.name, f"{each.word} {duration(seconds)} ({per_cent(seconds, whole)})"))
        at += wide
    return strip(pieces)
