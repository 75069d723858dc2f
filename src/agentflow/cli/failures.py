"""Error → exit code and one line of words: what went wrong, what to do, and where it happened.

NodeError("digest/read#1 failed in exec: …") from DocumentError("docs: no such folder; check the spelling")
    →  2, "docs: no such folder; check the spelling (in digest/read#1)"

What a server or a library put into an error's text may hold a key, and a terminal's lines end in the logs of a CI:
keys are taken out of all that is said here.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Final

from agentflow.errors import (
    AgentFlowError,
    AnswerError,
    ArtifactError,
    AuthenticationError,
    CalibrationError,
    ConfigurationError,
    DocumentError,
    FlowChangedError,
    FlowFileError,
    GraphError,
    InputError,
    ModelFolderError,
    NodeError,
    NotFoundError,
    PermissionDeniedError,
    RecipeError,
    RunEndedError,
    RunExistsError,
    ShortageError,
    StateKeyError,
    UnknownBatchError,
    UnknownRunError,
    describe,
)

__all__ = [
    "CONFIGURATION",
    "DONE",
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "PARKED",
    "UNRELIABLE",
    "USAGE",
    "exit_code",
    "explain",
    "keyless",
    "one_line",
]

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CONFIGURATION: Final = 3
PARKED: Final = 4
UNRELIABLE: Final = 5
INTERRUPTED: Final = 130

EXIT_CODES: Final = {
    DONE: "done",
    FAILED: "the run failed",
    USAGE: "bad input: the command line, a file, the flow's input",
    CONFIGURATION: "configuration: models.yml, a model's name, an API key",
    PARKED: "the run is parked: it waits for an answer, or for a moment",
    UNRELIABLE: "a benchmark's load generator was late: its numbers are not to be relied on",
    INTERRUPTED: "Ctrl-C",
}

_BAD_INPUT: Final = (
    FlowFileError,
    DocumentError,
    InputError,
    GraphError,
    UnknownBatchError,
    UnknownRunError,
    RunExistsError,
    RunEndedError,
    FlowChangedError,
    AnswerError,
    ArtifactError,
    CalibrationError,
    ModelFolderError,
    RecipeError,
    ShortageError,
)
_BAD_CONFIGURATION: Final = (ConfigurationError, AuthenticationError, PermissionDeniedError, NotFoundError)


def exit_code(error: BaseException) -> int:
    """What the process ends with; of a failed node, what its cause says."""
    cause, _ = _root(error)
    if isinstance(cause, _BAD_INPUT):
        return USAGE
    return CONFIGURATION if isinstance(cause, _BAD_CONFIGURATION) else FAILED


def explain(error: BaseException, *, debugging: bool = False) -> str:
    """What to tell the user, on one line. What is no error of ours is named with the line of code it came from."""
    return one_line(keyless(_said(error, debugging=debugging)))


def _said(error: BaseException, *, debugging: bool) -> str:
    cause, node = _root(error)
    place = f" (in {node})" if node else ""
    if isinstance(cause, AgentFlowError):
        return f"{describe(cause)}{_way_in(cause)}{place}"
    if isinstance(cause, OSError) and cause.strerror and (node is None or cause.filename is not None):
        file = "" if cause.filename is None else f"{cause.filename}: "
        return f"{file}{cause.strerror}{place}"
    hint = "" if debugging else "; --debug shows the traceback"
    return f"{describe(cause)}{_line_of(cause)}{place}{hint}"


def keyless(text: str) -> str:
    """A text without the keys in it; addresses stay, because whoever mends it may need them."""
    from agentflow.core.observability.redaction.redactor import Redactor  # not for `agentflow --help`

    return Redactor(emails=False, cards=False).redact(text)


def one_line(text: str) -> str:
    """A message that came in several lines, in one."""
    return re.sub(r"\s*\n\s*", " ", text.strip())


def _way_in(error: AgentFlowError) -> str:
    """How to give what a flow looked for and did not find, unless the name is only misspelt."""
    if isinstance(error, StateKeyError) and not error.suggestions:
        return f"; if it is input, give it: --input {error.key}=…"
    return ""


def _root(error: BaseException) -> tuple[BaseException, str | None]:
    """What made a node fail, and the path of the innermost node; another error is its own root."""
    node = None
    while isinstance(error, NodeError):
        node = error.node
        if error.__cause__ is None:
            break
        error = error.__cause__
    return error, node


def _line_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
