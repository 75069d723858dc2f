"""One thing a model was asked, and what it said: a line of JSON in a file.

    {"messages": [{"role": "user", "content": "mail reader with threads"}], "answer": "mail", "model": "large",
     "provider": "lab", "flow": "sorting", "step": "ask", "run": "4f9a…", "at": 1795816800.0, "cost": 0.0031}

read_answers(path) and write_answers(path, answers); in memory and in files they stand in the order of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from agentflow.errors import CompressionError

__all__ = ["RecordedAnswer", "Turn", "read_answers", "write_answers"]


class Turn(msgspec.Struct, frozen=True):
    """What one side said: `role` is system, user or assistant."""

    role: str
    content: str


class RecordedAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`at` is when it was asked, seconds since 1970; `cost` US dollars, None where nobody knows; `score` from 0 to 1.

    `model` is the configured name, `model_id` what the provider says has answered.
    """

    messages: tuple[Turn, ...]
    answer: str
    model: str
    at: float
    run: str
    provider: str = ""
    model_id: str = ""
    flow: str = ""
    step: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    score: float | None = None

    @property
    def instructions(self) -> str:
        """What stands before the conversation: the same for many questions, as a rule."""
        return "\n".join(turn.content for turn in self.messages if turn.role in ("system", "developer"))

    @property
    def conversation(self) -> str:
        return "\n".join(turn.content for turn in self.messages if turn.role not in ("system", "developer"))

    @property
    def question(self) -> str:
        """What the user said last."""
        return next((turn.content for turn in reversed(self.messages) if turn.role == "user"), "")


def write_answers(path: Path, answers: Iterable[RecordedAnswer]) -> None:
    """One a line. Raises OSError."""
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for answer in answers:
            file.write(encoder.encode(answer) + b"\n")


def read_answers(path: str | Path) -> list[RecordedAnswer]:
    """Of such a file. Raises CompressionError where it is missing or a line is none."""
    decoder = msgspec.json.Decoder(RecordedAnswer)
    answers: list[RecordedAnswer] = []
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    answers.append(_decoded(decoder, line, path, number))
    except OSError as error:
        raise CompressionError(f"the answers cannot be read: {error}") from error
    return answers


def _decoded(
    decoder: msgspec.json.Decoder[RecordedAnswer], line: bytes, path: str | Path, number: int
) -> RecordedAnswer:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CompressionError(f"{path}, line {number} is no recorded answer: {error}") from error
