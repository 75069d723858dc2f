"""Where a run's flow came from, as it is kept with the run: the words that load it again, as a shell takes them.

Source("/work/article.py:flow", "stage/x")     ◀──▶     /work/article.py:flow --model stage/x

The model is part of it: what one model was paid for is not found under another's name.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

__all__ = ["Source"]

_MODEL: Final = "--model"


@dataclass(frozen=True, slots=True)
class Source:
    """`target` is FILE:NAME, `model` the one of every call that names none, where the command line named one."""

    target: str
    model: str | None = None

    @classmethod
    def read(cls, line: str) -> Source:
        """What is no such line is a target as it stands."""
        try:
            words = shlex.split(line)
        except ValueError:  # a quotation mark in the name of a file
            return cls(line)
        match words:
            case [target]:
                return cls(target)
            case [target, option, model] if option == _MODEL:
                return cls(target, model)
        return cls(line)

    def __str__(self) -> str:
        return shlex.join([self.target, *([_MODEL, self.model] if self.model is not None else [])])
