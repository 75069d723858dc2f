"""How a type is stored: taken apart into what JSON holds, under a tag, and put together again.

    Money(5, "EUR")  ──apart──▶  {"$:money": ["5", "EUR"]}  ──together──▶  Money(5, "EUR")

A `Form` is that pair of ways. What goes wrong in one is a `Misfit`, which gathers on its way out where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from agentflow.errors import SerializationError

__all__ = ["Form", "Inner", "Misfit", "fitted", "full_name", "listed", "mapped", "text_of", "whole"]

Inner: TypeAlias = Callable[[object], object]
"""Makes JSON of a value that is part of another. Raises Misfit."""


class Misfit(Exception):
    """A value that cannot be stored, or a stored one that cannot be read; `encode` and `decode` say so in words.

    `trail` leads from the misfit outwards: what it is called in what holds it, and that holder. `endless` marks one
    that was met too far down.
    """

    def __init__(self, message: str, *, endless: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.endless = endless
        self.trail: list[tuple[str, object]] = []

    def told_of(self, path: str) -> SerializationError:
        """The error for whoever wanted to store what `path` names. A value that holds itself is endless, and named
        where that shows."""
        seen: set[int] = set()
        steps: list[str] = []
        for step, holder in reversed(self.trail):
            if self.endless and id(holder) in seen:
                return SerializationError(_way(path, steps), "the value contains itself")
            seen.add(id(holder))
            steps.append(step)
        return SerializationError(_way(path, steps), self.message)


def _way(path: str, steps: list[str]) -> str:
    named = [step for step in steps if step]
    way = path + "".join(named if len(named) <= 20 else [*named[:10], " … ", *named[-5:]])
    return way.encode(errors="backslashreplace").decode()  # a key may be what is wrong


@dataclass(frozen=True, slots=True)
class Form:
    """How values of one type are stored: `apart` gives JSON, `together` gets it with all that is inside restored."""

    tag: str
    apart: Callable[[object, Inner], object]
    together: Callable[[object], object]


def whole(to: Callable[[object], object]) -> Callable[[object, Inner], object]:
    """`apart` for a type that is stored as the value that `to` makes of it."""
    return lambda value, inner: inner(to(value))


def text_of(stored: object) -> str:
    """Raises TypeError for anything but a text, which no constructor is to get by mistake."""
    if type(stored) is not str:
        raise TypeError(f"a text is needed, not a {type(stored).__name__}")
    return stored


def listed(stored: object) -> list[object]:
    if type(stored) is not list:
        raise TypeError(f"a list is needed, not a {type(stored).__name__}")
    return stored


def mapped(stored: object) -> dict[str, object]:
    if type(stored) is not dict:
        raise TypeError(f"an object is needed, not a {type(stored).__name__}")
    return stored


def fitted(
    kind: type, stored: Mapping[str, object], names: Collection[str], defaults: Mapping[str, Callable[[], object]]
) -> dict[str, object]:
    """A value for each of `names`: the stored one, else the default. Raises Misfit where a class has changed so that
    its stored values fit no more."""
    lost = [name for name in stored if name not in names]
    new = [name for name in names if name not in stored and name not in defaults]
    if lost or new:
        said = [f"what was stored has {_quoted(lost)}, which the class no longer has"] if lost else []
        said += [f"it has no {_quoted(new)}, for which the class has no default"] if new else []
        raise Misfit(f"a stored {full_name(kind)} does not fit its class: {'; '.join(said)}")
    return {name: stored[name] if name in stored else defaults[name]() for name in names}


def full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _quoted(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
