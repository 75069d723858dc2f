"""Bytes of a request → a value of the shape it must have, or a refusal that names the parameter.

    b'{"model": "m", "temperature": 3}'  →  Refusal(400, "temperature: Expected `float` <= 2.0", param="temperature")

The shapes are Structs, so msgspec does the looking; what it says of the place is put into OpenAI's words.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from agentflow.errors import ConfigurationError
from agentflow.llm.config.schema import checked
from agentflow.server.wire.refusal import Refusal

__all__ = ["read", "refuse", "unset", "within"]

T = TypeVar("T", bound=Struct)
V = TypeVar("V")

_PLACE: Final = re.compile(r"^(?P<problem>.*?)(?: - at `(?:key in )?\$\.?(?P<place>.*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(?P<field>.*)`$", re.DOTALL)


def read(body: bytes, shape: type[T]) -> T:
    """Raises Refusal."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        _misfit(str(error))
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: a number of 5,000 digits
        raise Refusal(400, f"the body is no JSON: {error}") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None


def _misfit(message: str) -> NoReturn:
    found = _PLACE.match(message)
    problem, place = (found["problem"], found["place"] or "") if found else (message, "")
    if unknown := _UNKNOWN.match(problem):
        name = _below(place, unknown["field"])
        refuse(name, "this parameter is not known here; leave it out", code="unknown_parameter")
    if missing := _MISSING.match(problem):
        refuse(_below(place, missing["field"]), "it is missing", code="missing_required_parameter")
    refuse(place, problem)


def _below(place: str, field: str) -> str:
    return f"{place}.{field}" if place else field


def refuse(param: str, problem: str, *, code: str | None = None) -> NoReturn:
    """Raises the Refusal of a parameter."""
    raise Refusal(400, f"{param}: {problem}" if param else problem, param=param or None, code=code)


def within(param: str, value: V, name: str | None = None) -> V:
    """A value that the house allows for the setting `name`, as in models.yml. Raises Refusal."""
    try:
        return checked(name or param, value)
    except ConfigurationError as error:
        refuse(param, str(error).partition(": ")[2] or str(error))


def unset(**fields: object) -> None:
    """Refuse what is known, but cannot be had here: each of the fields must be None."""
    for name, value in fields.items():
        if value is not None:
            refuse(name, "it is not supported here; leave it out", code="unsupported_parameter")
