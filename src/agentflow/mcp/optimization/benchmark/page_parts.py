"""What the report's sections are built of: a section, a figure, a model's name in its colour."""

from __future__ import annotations

from typing import Final

from agentflow.mcp.optimization.benchmark.markup import Markup, element

__all__ = ["COLOURS", "figure", "named", "scrolling", "section"]

COLOURS: Final = 6


def section(title: str, words: str | None, *parts: Markup | None) -> Markup | None:
    found = [part for part in parts if part is not None]
    if not found:
        return None
    return element("section", element("h2", title), element("p", words, class_="words") if words else None, found)


def scrolling(part: Markup) -> Markup:
    return element("div", part, class_="scrolling", tabindex=0)


def figure(title: str, plot: Markup | None) -> Markup | None:
    return None if plot is None else element("figure", element("figcaption", title), plot)


def named(number: int, name: str) -> list[Markup]:
    """A model's name behind its colour."""
    return [element("span", class_=f"swatch b{number % COLOURS}"), element("span", name, class_="name")]
