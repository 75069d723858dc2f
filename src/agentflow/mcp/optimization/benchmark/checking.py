"""Whether an answer is right: checkers look at the very responses whose speed was measured, after the run.

    Exact()                 it is what the data set expects, but for space around it and the case of letters
    Contains()              what is expected stands somewhere in it
    Matches(r"^\\d+$")       a regular expression is found in it
    ValidJson(schema)       it is JSON, and fits the schema where there is one
    polite                  a function of your own: (text, case) -> bool, or a mark from 0 to 1, or None for "not mine"

On the command line `--checker exact`, `regex:^\\d+$`, `schema:person.json`; packages add more by the entry-point group
`agentflow.checkers`: a function that takes what stands behind the colon (None without one) and returns a checker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from agentflow.errors import ConfigurationError, describe
from agentflow.mcp.optimization.benchmark.dataset import Case
from agentflow.mcp.optimization.benchmark.json_schema import Schema

__all__ = ["PASSING", "Checker", "Contains", "Exact", "Matches", "ValidJson", "checker_named", "name_of"]

Checker: TypeAlias = Callable[[str, Case], "bool | float | None"]
"""Looks at an answer's text: True or 1 is right, 0 is wrong, None where the case says nothing to check it by."""

PASSING: Final = 0.5
"""A mark from here on is a pass."""
_GROUP: Final = "agentflow.checkers"


@dataclass(frozen=True, slots=True)
class Exact:
    """The expected text; space around it and the case of letters do not count, unless `strict`."""

    strict: bool = False

    def __call__(self, text: str, case: Case) -> bool | None:
        if case.expected is None:
            return None
        return text == case.expected if self.strict else _plain(text) == _plain(case.expected)

    def __str__(self) -> str:
        return "exact"


@dataclass(frozen=True, slots=True)
class Contains:
    """The expected text, or `words`, stands somewhere in the answer; the case of letters does not count."""

    words: str | None = None

    def __call__(self, text: str, case: Case) -> bool | None:
        wanted = case.expected if self.words is None else self.words
        return None if wanted is None else _plain(wanted) in _plain(text)

    def __str__(self) -> str:
        return "contains" if self.words is None else f"contains:{self.words}"


@dataclass(frozen=True, slots=True)
class Matches:
    """The pattern is found in the answer. Raises ConfigurationError for one that is none."""

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigurationError(f"regex {self.pattern!r}: {error}") from None

    def __call__(self, text: str, case: Case) -> bool:
        return re.search(self.pattern, text) is not None

    def __str__(self) -> str:
        return f"regex:{self.pattern}"


@dataclass(frozen=True, slots=True)
class ValidJson:
    """The answer is one JSON value; words or fences around it are wrong. `json_schema` says what a schema may say."""

    schema: Mapping[str, Any] | bool = True
    name: str = "json"

    def __post_init__(self) -> None:
        Schema(self.schema)  # raises ConfigurationError for what it does not know

    def __call__(self, text: str, case: Case) -> bool:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return Schema(self.schema).fits(value)

    def __str__(self) -> str:
        return self.name


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def name_of(checker: Checker) -> str:
    """What a report calls it: a function's name, what a built-in one says of itself."""
    return getattr(checker, "__name__", None) or str(checker)


def checker_named(text: str) -> Checker:
    """`NAME` or `NAME:ARGUMENT`. Raises ConfigurationError."""
    name, colon, rest = text.partition(":")
    argument = rest if colon else None
    if name in _BUILT_IN:
        return _BUILT_IN[name](argument)
    from importlib.metadata import entry_points

    plugins = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if name not in plugins:
        known = [*_BUILT_IN, *sorted(plugins)]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise ConfigurationError(f"nobody knows the checker {name!r}; {hint}")
    try:
        made = plugins[name].load()(argument)
    except Exception as error:  # a plug-in's own code may raise anything
        raise ConfigurationError(f"the checker {name!r} ({plugins[name].value}): {describe(error)}") from error
    if not callable(made):
        raise ConfigurationError(f"the checker {name!r} ({plugins[name].value}) gives no function of a text and a case")
    return cast("Checker", made)


def _regex(pattern: str | None) -> Checker:
    if not pattern:
        raise ConfigurationError("the checker regex needs a pattern, as in regex:^yes")
    return Matches(pattern)


def _schema(path: str | None) -> Checker:
    if not path:
        raise ConfigurationError("the checker schema needs a file with a JSON Schema, as in schema:person.json")
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the checker schema: {path}: {getattr(error, 'strerror', None) or error}") from None
    return ValidJson(found, name=f"schema:{Path(path).name}")


def _no_argument(make: Callable[[], Checker], name: str) -> Callable[[str | None], Checker]:
    def made(argument: str | None) -> Checker:
        if argument is not None:
            raise ConfigurationError(f"the checker {name} takes nothing behind a colon")
        return make()

    return made


_BUILT_IN: Final[Mapping[str, Callable[[str | None], Checker]]] = {
    "exact": _no_argument(Exact, "exact"),
    "contains": Contains,
    "regex": _regex,
    "json": _no_argument(ValidJson, "json"),
    "schema": _schema,
}
