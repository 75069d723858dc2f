"""What time is spent on, as it is shown: a word, a letter for plain text, a colour for the terminal and two for pages.

Waits are warm, what a model does is cool, tools are violet, one's own code is grey, and what nobody accounts for is
pale. A letter or a word always stands beside the colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentflow.core.observability.attribution import ORDER

__all__ = ["CATEGORIES", "WAITS", "Category", "category", "in_order"]


@dataclass(frozen=True, slots=True)
class Category:
    """`meaning` completes "time went into …". `light` and `dark` are a page's colours, `terminal` is rich's."""

    name: str
    word: str
    meaning: str
    letter: str
    terminal: str
    light: str
    dark: str
    remedy: str = ""
    """What helps against it."""


_ALL: Final = (
    Category(
        "queue",
        "queue",
        "waiting to be admitted",
        "q",
        "#b5651d",
        "#9a5b13",
        "#c98a45",
        "fewer calls at once, or finding out why answers have become slow",
    ),
    Category(
        "limiter",
        "rate limit",
        "waiting for the rate limit",
        "l",
        "#ff8c1a",
        "#e8710a",
        "#ff9d3d",
        "a higher limit in models.yml, if the account allows it, or fewer calls at once",
    ),
    Category(
        "pool",
        "connection pool",
        "waiting for a free connection",
        "p",
        "#e6c200",
        "#c9a400",
        "#f2d22e",
        "more connections, or fewer calls at once",
    ),
    Category(
        "backoff",
        "backoff",
        "pauses between attempts",
        "b",
        "#d94f9a",
        "#c2397f",
        "#f07ab8",
        "looking at the errors that were tried again",
    ),
    Category(
        "failed",
        "failed attempts",
        "attempts that came to nothing",
        "x",
        "#e03131",
        "#c92a2a",
        "#ff6b6b",
        "looking at the errors of the attempts",
    ),
    Category(
        "connect",
        "connecting",
        "connecting",
        "c",
        "#12a5b5",
        "#0b8794",
        "#35c3d3",
        "looking at the network, or at what closes connections",
    ),
    Category(
        "first_token",
        "first token",
        "waiting for the model's first word",
        "f",
        "#4d8dff",
        "#2f6fe4",
        "#6ea3ff",
        "a shorter prompt, a cached one, or a faster model",
    ),
    Category(
        "generation",
        "generation",
        "the model's answers",
        "g",
        "#2fb170",
        "#1f8f57",
        "#4cc98a",
        "shorter answers, a faster model, or more of it side by side",
    ),
    Category("tools", "tools", "tools", "t", "#8f5bd6", "#7440bd", "#b48cf0", "looking into the tools"),
    Category(
        "own",
        "own code",
        "the flow's own code",
        "o",
        "#8a94a6",
        "#707b8d",
        "#8d98ab",
        "looking into the code of the nodes",
    ),
    Category(
        "waiting",
        "waiting",
        "waiting for an answer or a timer",
        "w",
        "#7d8a4a",
        "#8a9a3b",
        "#a9b665",
        "a sooner answer: `agentflow answer` gives one",
    ),
    Category(
        "stopped",
        "stopped",
        "nobody running it",
        "s",
        "#9c6b6b",
        "#b08080",
        "#8f5f5f",
        "going on sooner: `agentflow runs resume` does",
    ),
    Category(
        "unattributed",
        "unattributed",
        "what nothing accounts for",
        "u",
        "#5c6270",
        "#b9c0cb",
        "#4b5361",
        "finding what keeps the event loop busy",
    ),
)

CATEGORIES: Final[Mapping[str, Category]] = {each.name: each for each in _ALL}
WAITS: Final = ("queue", "limiter", "pool", "backoff", "failed")
"""What is neither the model's work nor one's own."""


def category(name: str) -> Category:
    """Also of a name that a later version made up."""
    found = CATEGORIES.get(name)
    return found or Category(name, name, name, "?", "#5c6270", "#b9c0cb", "#4b5361")


def in_order(breakdown: Mapping[str, float]) -> list[tuple[Category, float]]:
    """What there is of it, in the usual order."""
    names = [name for name in (*ORDER, *(each for each in breakdown if each not in ORDER)) if name in breakdown]
    return [(category(name), breakdown[name]) for name in names]
