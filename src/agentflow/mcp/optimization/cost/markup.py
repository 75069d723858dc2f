"""HTML that data cannot break out of: text is escaped where it enters, and only what was built here is markup.

element("p", "5 < 6 ", element("b", name), class_="note")   →   <p class="note">5 &lt; 6 <b>…</b></p>
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final, TypeAlias

__all__ = ["Child", "Html", "element"]

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
"""What no document may hold, and what turns the direction of reading."""
_VOID: Final = frozenset({"meta", "link", "br"})


class Html(str):
    """Finished markup."""

    __slots__ = ()


Child: TypeAlias = str | int | None


def element(tag: str, *children: Child | Iterable[Child], **attributes: str | float | bool | None) -> Html:
    """One element. Attribute names lose a final underscore, and others turn into hyphens; None leaves one out."""
    said = "".join(_attribute(name, value) for name, value in attributes.items() if value is not None)
    if tag in _VOID:
        return Html(f"<{tag}{said}>")
    flat: list[Child] = []
    for child in children:
        flat += [child] if isinstance(child, str | int | None) else child
    return Html(f"<{tag}{said}>{''.join(map(_words, flat))}</{tag}>")


def _words(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Html) else _escaped(str(child))


def _escaped(words: str) -> str:
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", words), quote=True)


def _attribute(name: str, value: str | float | bool) -> str:
    word = name.rstrip("_").replace("_", "-")
    return f' {word}="{_escaped(f"{value:.6g}" if isinstance(value, float) else str(value))}"'
