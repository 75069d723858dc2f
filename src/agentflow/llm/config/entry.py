"""What all sections of models.yml have in common: mappings that know their fields, and values that are of some kind."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

__all__ = ["Amount", "Count", "Delay", "Entry", "Name", "Names", "Rate", "Seconds", "Share", "Variable", "Words"]

_WEEK: Final = 604_800


class Entry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of models.yml."""


Seconds = Annotated[float, Meta(gt=0, le=_WEEK)]
Delay = Annotated[float, Meta(ge=0, le=_WEEK)]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, le=1)]
Rate = Annotated[float, Meta(gt=0)]
Amount = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1)]
Names = Annotated[list[Name], Meta(min_length=1)]
Words = list[Name]
Variable = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Z_][A-Z0-9_]*\Z",
        description="the name of an environment variable, in capitals (the key itself never stands in this file)",
    ),
]
