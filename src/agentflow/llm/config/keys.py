"""API keys: where they come from, and the check that none stands in models.yml.

    environment, then ./.env  ──KeyRing.find("OPENAI_API_KEY", …)──▶  Secret, or None
    parsed models.yml         ──literal_key()──▶  the path of a key that somebody wrote there, or None

A key travels as a `Secret` from here to the request's header, and no message ever repeats one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from agentflow.errors import ConfigurationError, MissingKeyError
from agentflow.llm.config.document import Path as DataPath
from agentflow.llm.config.dotenv import read_dotenv, unread_lines
from agentflow.llm.content import Json
from agentflow.llm.providers.base import Secret

__all__ = ["KeyRing", "literal_key"]

_KEY_SHAPES: Final = re.compile(
    r"""\b(?: (?:sk|pk|xai|pplx|nvapi|csk)-(?=[A-Za-z_\-]*[0-9])[A-Za-z0-9_\-]{16,}
          | (?:sk|pk|rk|gsk|r8|hf|ghp|gho|fw|jina)_[A-Za-z0-9_]{16,}
          | AIza[A-Za-z0-9_\-]{30,}
          | AKIA[A-Z0-9]{16}
          | eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}
        ) | \b[Bb]earer\ +[A-Za-z0-9_\-.=+/]{8,}""",
    re.VERBOSE,
)
_KEY_FIELDS: Final = re.compile(
    "(api|auth|access|bearer|secret|private|client)?(key|token|secret)|.*(api|access|secret)key"
    "|password|passphrase|bearer|authorization|credentials?"
)
_SHORTEST_KEY: Final = 16


class KeyRing:
    """Finds keys by the names of their variables. The environment wins over the `.env` file.

    The environment is asked each time, the file is read once, when first needed. A variable that is empty counts as
    absent, and blanks around a key are cut off.
    """

    def __init__(self, environ: Mapping[str, str], dotenv: Path | None = None) -> None:
        self._environ = environ
        self._dotenv = dotenv
        self._from_file: dict[str, str] | None = None

    def find(self, names: Sequence[str]) -> Secret | None:
        """The key under the first of `names` that holds one: all are looked up in the environment, then in the file.

        Raises ConfigurationError where the value cannot be a key, because it holds a blank or a control character.
        """
        for source in (self._environ, self._file()):
            for name in names:
                value = source.get(name, "").strip()
                if value:
                    return Secret(_sendable(name, value))
        return None

    def require(self, provider: str, names: Sequence[str]) -> Secret:
        """As `find`, but a missing key is a MissingKeyError that says which variables would hold it."""
        key = self.find(names)
        if key is not None:
            return key
        others = f" (or {', '.join(names[1:])})" if names[1:] else ""
        raise MissingKeyError(
            f"provider {provider!r} needs an API key: set {names[0]}{others} in the environment "
            f"or in {self._dotenv or '.env'}; a server that takes none has `api_key_env: null` in models.yml"
        )

    def check(self) -> None:
        """Read the `.env` file now. Raises ConfigurationError with its place, which repeats none of its text."""
        self._file()

    def stray_lines(self) -> Iterator[str]:
        """Lines of the `.env` file that assign nothing and are no comment; none of their text is repeated."""
        try:
            lines = unread_lines(self._dotenv) if self._dotenv else []
        except ConfigurationError:
            return  # `check` says so
        for line in lines:
            yield f"{self._dotenv}:{line}: this line assigns nothing; an assignment is NAME=value"

    def _file(self) -> Mapping[str, str]:
        if self._from_file is None:
            self._from_file = read_dotenv(self._dotenv) if self._dotenv else {}
        return self._from_file


def _sendable(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigurationError(
            f"the value of {name} cannot be a key: it holds a blank, a control or a non-ASCII character"
        )
    return value


def literal_key(data: Json) -> DataPath | None:
    """Where a key stands in a parsed file: in a field with a key's name, or as a text (or a name) with a key's shape.

    The path leaves out what looks like a key itself.
    """
    pending: list[tuple[DataPath, Json]] = [((), data)]
    seen: set[int] = set()
    while pending:
        path, value = pending.pop()
        if isinstance(value, str):
            if len(value) >= _SHORTEST_KEY and _KEY_SHAPES.search(value):
                return path
        elif isinstance(value, (dict, list)) and id(value) not in seen:
            seen.add(id(value))  # aliases share one object; walking it again would take exponential time
            found = _look_inside(path, value, pending)
            if found is not None:
                return found
    return None


def _look_inside(
    path: DataPath, value: dict[str, Json] | list[Json], pending: list[tuple[DataPath, Json]]
) -> DataPath | None:
    if isinstance(value, list):
        pending.extend(((*path, index), item) for index, item in enumerate(value))
        return None
    for name, item in value.items():
        if len(name) >= _SHORTEST_KEY and _KEY_SHAPES.search(name):
            return path
        if isinstance(item, str) and item and _is_key_field(name):
            return (*path, name)
        if isinstance(item, (str, dict, list)):
            pending.append(((*path, name), item))
    return None


@lru_cache(maxsize=1024)
def _is_key_field(name: str) -> bool:
    return _KEY_FIELDS.fullmatch(name.lower().replace("_", "").replace("-", "")) is not None
