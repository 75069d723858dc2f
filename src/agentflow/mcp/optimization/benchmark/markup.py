"""HTML and SVG from parts: text is escaped where it enters, and only what was built here is markup.

element("p", "5 < 6 & ", element("b", name), class_="note")   →   <p class="note">5 &lt; 6 &amp; <b>…</b></p>
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final

__all__ = ["Markup", "element", "styled"]

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
"""What no HTML may hold, and what turns the direction of reading round."""
_VOID: Final = frozenset({"meta", "link", "br"})


class Markup(str):
    """A text that is markup already; made by `element` alone."""

    __slots__ = ()


Child = str | int | None
Value = str | int | float | bool | None


def element(tag: str, *children: Child | Iterable[Child], **attributes: Value) -> Markup:
    """One element. Names of attributes lose a last underscore, others in them turn into hyphens; None and False leave
    an attribute out."""
    told = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{told}>")
    return Markup(f"<{tag}{told}>{''.join(map(_child, children))}</{tag}>")


def styled(style: str) -> Markup:
    """A style sheet of ours, as it stands."""
    if "</" in style:
        raise ValueError("a style sheet holds what would end it")
    return Markup(f"<style>{style}</style>")


def _child(child: Child | Iterable[Child]) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int):
        return _text(str(child))
    return "".join(map(_child, child))


def _text(words: str) -> str:
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", words), quote=True)


def _attribute(name: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    word = name if name in _MIXED else name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {word}"
    return f' {word}="{_text(f"{value:.5g}" if isinstance(value, float) else str(value))}"'


_MIXED: Final = frozenset({"viewBox", "preserveAspectRatio"})
