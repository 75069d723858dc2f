"""HTML that cannot be broken out of: text is escaped where it enters, and only what was built here is markup.

    element("p", "5 < 6 & ", element("b", name), class_="note")   →   <p class="note">5 &lt; 6 &amp; <b>…</b></p>

Attribute names are given by the code and never by data; their values are escaped. There is no other way to make `Html`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final

__all__ = ["Html", "element", "joined"]

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What no HTML document may hold, and what turns the direction of reading around is shown as a sign as well."""
_TURNS: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_VOID: Final = frozenset({"meta", "link", "input", "br", "hr", "col"})
_RAW: Final = frozenset({"style", "script"})


class Html:
    """Finished markup, kept in pieces until it is written."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = tuple(pieces)

    def __str__(self) -> str:
        return "".join(self._pieces)

    @property
    def pieces(self) -> tuple[str, ...]:
        return self._pieces


Child = Html | str | int | None
Value = str | int | float | bool | None


def element(tag: str, *children: Child | Iterable[Child], **attributes: Value) -> Html:
    """One element. `class_`, `for_` and the like lose their underscore, others turn into hyphens; True is a bare
    attribute, None and False leave it out. A style's or script's text is taken as it is: it must be our own."""
    pieces = [f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}>"]
    if tag in _VOID:
        return Html(pieces)
    for child in children:
        for each in [child] if isinstance(child, Html | str | int | None) else child:
            pieces += [_raw(each)] if tag in _RAW else _pieces_of(each)
    pieces.append(f"</{tag}>")
    return Html(pieces)


def joined(*parts: Child) -> Html:
    """Several one after the other."""
    return Html(piece for part in parts for piece in _pieces_of(part))


def _pieces_of(child: Child) -> tuple[str, ...]:
    if isinstance(child, Html):
        return child.pieces
    return () if child is None else (_text(str(child)),)


def _text(words: str) -> str:
    clean = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", words.replace("\r\n", "\n").replace("\r", "\n"))
    return escape(_TURNS.sub(lambda found: f"[U+{ord(found[0]):04X}]", clean), quote=True)


def _raw(child: Child) -> str:
    words = str(child)
    if "</" in words or "<!--" in words:
        raise ValueError("a style or script of ours holds what would end it")
    return words


def _attribute(name: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    word = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {word}"
    return f' {word}="{_text(f"{value:.6g}" if isinstance(value, float) else str(value))}"'
