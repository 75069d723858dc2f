"""What is asked: a file of questions, with the answers that are expected where somebody knows them.

    {"prompt": "What is 2 + 2?", "expected": "4", "max_tokens": 16}
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]}

    Dataset.read("questions.jsonl").cases(1000)      as many as are to be sent; when they are used up, again

`id`, `system` and `temperature` may stand beside them. What else a line holds is an error, for a misspelt `expected`
would check nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final, Protocol

from agentflow.errors import ConfigurationError, DocumentError
from agentflow.llm.messages import Message

__all__ = ["Case", "Dataset", "Questions"]

_FIELDS: Final = frozenset({"id", "prompt", "system", "messages", "expected", "max_tokens", "temperature"})


@dataclass(frozen=True, slots=True)
class Case:
    """One question: its turns, how it is to be answered, and what the answer should be, if that is known."""

    messages: tuple[Message, ...]
    expected: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    id: str = ""

    @classmethod
    def of(cls, prompt: str, *, expected: str | None = None, max_tokens: int | None = None) -> Case:
        """A question of one turn."""
        return cls((Message("user", prompt),), expected, max_tokens)

    @property
    def prompt(self) -> str:
        """The last user turn's words."""
        return next((turn.text for turn in reversed(self.messages) if turn.role == "user"), "")


class Questions(Protocol):
    """Where cases come from. `fingerprint` tells whether two runs asked the same."""

    @property
    def fingerprint(self) -> str: ...

    def cases(self, count: int) -> list[Case]: ...


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions in their order, at least one; asked from the first again where more are wanted."""

    questions: tuple[Case, ...]
    name: str = "dataset"

    def __post_init__(self) -> None:
        if not self.questions:
            raise ConfigurationError(f"{self.name}: there is nothing to ask")

    @classmethod
    def read(cls, path: str | Path) -> Dataset:
        """Lines of JSON. Raises DocumentError, which names the line."""
        path = Path(path)
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DocumentError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        found = [_case(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
        if not found:
            raise DocumentError(f'{path}: is empty; a line is a question, as in {{"prompt": "Hello"}}')
        return cls(tuple(found), path.name)

    @classmethod
    def of(cls, *prompts: str) -> Dataset:
        """Questions of one turn, with no answers to hold them to."""
        return cls(tuple(map(Case.of, prompts)))

    @property
    def fingerprint(self) -> str:
        """Tells data sets apart by what they ask and expect, not by the name of their file."""
        digest = hashlib.blake2b(digest_size=16)
        for case in self.questions:
            turns = [[turn.role, turn.text] for turn in case.messages]
            digest.update(json.dumps([turns, case.expected, case.max_tokens, case.temperature]).encode())
        return digest.hexdigest()

    def cases(self, count: int) -> list[Case]:
        return list(islice(cycle(self.questions), count))


def _case(line: str, where: str) -> Case:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DocumentError(f"{where}: this is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise DocumentError(f'{where}: a question is an object, as in {{"prompt": "Hello"}}')
    unknown = sorted(row.keys() - _FIELDS)
    if unknown:
        raise DocumentError(f"{where}: nobody knows {', '.join(unknown)}; known are {', '.join(sorted(_FIELDS))}")
    return Case(
        _turns(row, where),
        _expected(row.get("expected")),
        _number(row, "max_tokens", where, whole=True),
        _number(row, "temperature", where),
        str(row.get("id", "")),
    )


def _turns(row: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    if ("prompt" in row) == ("messages" in row):
        raise DocumentError(f"{where}: a question has a prompt, or messages, and not both")
    system = [Message("system", _text(row["system"], f"{where}: system"))] if "system" in row else []
    if "prompt" in row:
        return (*system, Message("user", _text(row["prompt"], f"{where}: prompt")))
    turns = row["messages"]
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DocumentError(f'{where}: messages is a list of turns, as in [{{"role": "user", "content": "Hi"}}]')
    return (*system, *(_turn(turn, f"{where}: messages[{index}]") for index, turn in enumerate(turns)))


def _turn(turn: object, where: str) -> Message:
    if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
        raise DocumentError(f"{where}: a turn has a role and a content")
    return Message(_text(turn["role"], f"{where}.role"), _text(turn["content"], f"{where}.content"))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise DocumentError(f"{where}: found a {type(value).__name__}, allowed is a text")
    return value


def _expected(value: object) -> str | None:
    """What is no text stands for the JSON that is expected."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(row: Mapping[str, Any], name: str, where: str, *, whole: bool = False) -> Any:
    value = row.get(name)
    if value is None:
        return None
    fits = isinstance(value, int) or (isinstance(value, float) and not whole)
    if isinstance(value, bool) or not fits or value < 0:
        raise DocumentError(f"{where}: {name}: found {value!r}, allowed is a number from 0 on")
    return value
