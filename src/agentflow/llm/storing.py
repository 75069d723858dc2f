"""The types of questions and answers as durable runs store them: a reply may be put into the state as it is.

    stored(Response, …)  ──▶  storable("agentflow.Response", Response, …), as soon as something is stored

They are stored as `to_json` writes them, under names that outlive the modules that they stand in. A file that is named
by its path stays a path, which is read when it is asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from agentflow.core.durability.put_off import when_storing

__all__ = ["stored"]

T = TypeVar("T")

Plain = Callable[[object], object]


def stored(*kinds: type, plain: Plain) -> None:
    """Values of these types can be stored. `plain` makes of what JSON cannot hold what it can."""
    when_storing(partial(_register, kinds, plain))


def _register(kinds: tuple[type, ...], plain: Plain) -> None:
    from agentflow.core.durability.values import storable  # slow to load, and seldom needed

    for kind in kinds:
        storable(f"agentflow.{kind.__name__}", kind, to=partial(_apart, plain), back=partial(_together, kind))


def _apart(plain: Plain, value: object) -> object:
    made: object = msgspec.json.decode(msgspec.json.encode(value, enc_hook=plain))
    return made


def _together(kind: type[T], stored: object) -> T:
    return msgspec.convert(stored, kind)
