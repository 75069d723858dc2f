"""What a docstring says about a function and about each of its parameters, in Google's, NumPy's or Sphinx's style.

    '''The weather forecast.

    Args:
        city: Where, in English.
    '''
        ──told──▶  ("The weather forecast.", {"city": "Where, in English."})

What a function returns is said after its description; examples, notes and what it raises are left out.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any, Final

__all__ = ["told"]

_PARAMETERS: Final = frozenset({"args", "arguments", "parameters", "params", "keyword args", "keyword arguments"})
_RETURNS: Final = frozenset({"returns", "return"})
_OTHERS: Final = frozenset(
    "attributes example examples note notes raises except exceptions references todo warning warnings warns"
    " yield yields".split()
) | {"see also", "other parameters"}
_SECTIONS: Final = _PARAMETERS | _RETURNS | _OTHERS
# A repetition that nothing else could take a part of is possessive (`*+`), so that no line takes quadratic time.
_HEADING: Final = re.compile(r"([A-Za-z]++(?: [A-Za-z]++)?):?")
_UNDERLINE: Final = re.compile(r"-{3,}\s*")
_GOOGLE_ENTRY: Final = re.compile(r"\*{0,2}(\w++)\s*+(?:\((?:[^()]++|\([^()]*+\))*+\)\s*+)?:(?:\s+(.*)|)")
_NUMPY_ENTRY: Final = re.compile(r"(\*{0,2}\w++(?:\s*+,\s*+\*{0,2}\w++)*+)\s*+(?::.*)?")
_SPHINX_FIELD: Final = re.compile(r"[:@](\w++)([^:]*+):\s*(.*)")
_SPHINX_PARAMETERS: Final = frozenset({"param", "parameter", "arg", "argument", "key", "keyword"})
_SPHINX_FIELDS: Final = (
    _SPHINX_PARAMETERS
    | _RETURNS
    | frozenset("type rtype raises raise except exception yields yield ytype var ivar cvar vartype kwtype meta".split())
)


def told(function: object) -> tuple[str, dict[str, str]]:
    """What the docstring says about the function, and about each parameter."""
    doc = _docstring(function)
    return _Docstring(inspect.cleandoc(doc).splitlines()).read() if doc else ("", {})


def _docstring(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return function.__doc__ or ""
    if isinstance(function, type):
        made_up = (function.__doc__ or "").startswith(f"{function.__name__}(")  # by @dataclass
        return "" if made_up else function.__doc__ or ""
    own = vars(function).get("__doc__") if hasattr(function, "__dict__") else None
    return own or type(function).__call__.__doc__ or type(function).__doc__ or ""


class _Docstring:
    """Reads a docstring line by line: prose, then sections that end where the next one begins or the indent ends."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.prose: list[str] = []
        self.returns: list[str] = []
        self.about: dict[str, list[str]] = {}

    def read(self) -> tuple[str, dict[str, str]]:
        at = 0
        while at < len(self.lines):
            at = self._section(at) or self._sphinx(at) or self._plain(at)
        told = re.sub(r"\n{3,}", "\n\n", "\n".join(self.prose)).strip()
        if returns := _flowing(self.returns):
            told = f"{told}\n\nReturns: {returns}".strip()
        return told, {name: text for name, lines in self.about.items() if (text := _flowing(lines))}

    def _plain(self, at: int) -> int:
        self.prose.append(self.lines[at].rstrip())
        return at + 1

    def _section(self, at: int) -> int | None:
        """The line after the section that begins here; None where none does."""
        heading = _HEADING.fullmatch(self.lines[at].rstrip())
        if heading is None or heading[1].lower() not in _SECTIONS:
            return None
        title = heading[1].lower()
        if at + 1 < len(self.lines) and _UNDERLINE.fullmatch(self.lines[at + 1]):
            end = self._end_of_numpy(at + 2)
            self._take(title, self.lines[at + 2 : end], _NUMPY_ENTRY)
            return end
        if not self.lines[at].rstrip().endswith(":"):
            return None
        end = self._end_of_indented(at + 1)
        self._take(title, self.lines[at + 1 : end], _GOOGLE_ENTRY)
        return end

    def _end_of_numpy(self, at: int) -> int:
        """Where the next underlined heading stands."""
        while at < len(self.lines):
            if at + 1 < len(self.lines) and self.lines[at].strip() and _UNDERLINE.fullmatch(self.lines[at + 1]):
                return at
            at += 1
        return at

    def _end_of_indented(self, at: int) -> int:
        while at < len(self.lines) and (not self.lines[at].strip() or self.lines[at][0].isspace()):
            at += 1
        return at

    def _take(self, title: str, lines: list[str], entry: re.Pattern[str]) -> None:
        body = inspect.cleandoc("\n".join(["", *lines])).splitlines()
        if title in _RETURNS:
            self.returns += body
        elif title in _PARAMETERS:
            self._take_entries(body, entry)

    def _take_entries(self, body: list[str], entry: re.Pattern[str]) -> None:
        current: list[list[str]] = []
        for line in body:
            found = None if line[:1].isspace() else entry.fullmatch(line.rstrip())
            if found is not None:
                names = [name.strip(" *") for name in found[1].split(",")]
                current = [self.about.setdefault(name, []) for name in names]
                line = (found[2] or "") if entry is _GOOGLE_ENTRY else ""
            for lines in current:
                lines.append(line)

    def _sphinx(self, at: int) -> int | None:
        """The line after the field (`:param city: …`) that begins here; None where none does, as in `:math:`x``."""
        found = _SPHINX_FIELD.fullmatch(self.lines[at])
        if found is None or found[1] not in _SPHINX_FIELDS:
            return None
        end = at + 1
        while end < len(self.lines) and self.lines[end].strip() and self.lines[end][0].isspace():
            end += 1
        text = [found[3], *self.lines[at + 1 : end]]
        if found[1] in _SPHINX_PARAMETERS and found[2].split():
            self.about.setdefault(found[2].split()[-1].lstrip("*"), []).extend(text)
        elif found[1] in _RETURNS:
            self.returns += text
        return end


def _flowing(lines: list[str]) -> str:
    """Lines as one paragraph."""
    return " ".join(" ".join(lines).split())
