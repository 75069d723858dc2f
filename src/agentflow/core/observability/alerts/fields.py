"""Reads a mapping that came from YAML, field by field, and says of each that does not fit what would.

fields = Fields({"above": "10"}, "rules.slow")
fields.number("above")      ──▶  ConfigurationError: rules.slow.above: found '10', allowed is a number
fields.finish()             ──▶  an error for whatever nobody asked for, with the nearest name
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Final

from agentflow.errors import ConfigurationError

__all__ = ["Fields"]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)

_NAMED: Final = re.compile(r"[\w.]+: ")  # begins with a field


class Fields:
    """`path` is where the mapping stands, in words. What was asked for is known; `finish` complains of the rest."""

    def __init__(self, mapping: object, path: str) -> None:
        self.path = path
        if not isinstance(mapping, Mapping):
            raise ConfigurationError(f"{path}: found {_show(mapping)}, allowed is a mapping")
        self._mapping: Mapping[object, object] = mapping
        self._known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return self._mapping.get(name) is not None

    def names(self) -> tuple[str, ...]:
        """Of all fields there are."""
        return tuple([str(name) for name in self._mapping])

    def know(self, *names: str) -> None:
        """Fields that are allowed, whether or not they are read."""
        self._known += [name for name in names if name not in self._known]

    def get(self, name: str) -> object:
        """As it stands there; None where it is missing."""
        self.know(name)
        return self._mapping.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value.strip():
            raise self.misfit(name, "a text")
        return value

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        value = self.get(name)
        if value is None:
            return default
        if value not in allowed:
            raise self.misfit(name, " | ".join(allowed))
        return str(value)

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.misfit(name, "true or false")
        return bool(value)

    def number(self, name: str, default: float | None = None) -> float:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.misfit(name, "a number")
        return float(value)

    def count(self, name: str, default: int) -> int:
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.misfit(name, "a whole number, 1 or more")
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self.get(name)
        if value is None:
            return default
        seconds = _seconds(value)
        if seconds is None:
            raise self.misfit(name, "seconds, 0 or more, or a duration such as 30s, 5m, 1h or 2d")
        return seconds

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, or one alone."""
        value = self.get(name)
        if value is None:
            return ()
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list | tuple) or not all(isinstance(each, str) and each for each in found):
            raise self.misfit(name, "a list of texts")
        return tuple(found)

    def labels(self, name: str) -> dict[str, str]:
        """Texts by name. Numbers and truth values are taken for the texts that they are in YAML."""
        value = self.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(each, str | int | float) for each in value.values()):
            raise self.misfit(name, "a mapping of texts")
        return {str(label): str(each).lower() if isinstance(each, bool) else str(each) for label, each in value.items()}

    def inner(self, name: str) -> Fields:
        return Fields(self.get(name), f"{self.path}.{name}")

    def finish(self) -> None:
        for name in self._mapping:
            if name not in self._known:
                close = get_close_matches(str(name), self._known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(self._known)}"
                raise ConfigurationError(f"{self.path}.{name}: unknown field; {hint}")

    def misfit(self, name: str, allowed: str) -> ConfigurationError:
        value = self._mapping.get(name)
        if value is None:
            return ConfigurationError(f"{self.path}: the field {name} is missing; it holds {allowed}")
        return ConfigurationError(f"{self.path}.{name}: found {_show(value)}, allowed is {allowed}")

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Whatever complains within says where."""
        try:
            yield
        except ConfigurationError as error:
            text = str(error)
            if text.startswith(tuple([f"{self.path}{end}" for end in (".", ": ")])):
                raise
            joint = "." if _NAMED.match(text) else ": "
            raise ConfigurationError(f"{self.path}{joint}{text}") from None


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        value = float(match[1]) * _UNITS[match[2]] if match else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return float(value)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
