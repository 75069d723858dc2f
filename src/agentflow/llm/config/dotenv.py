"""A `.env` file to a dictionary: the part of the shell's syntax on which its readers agree.

    # a comment
    export OPENAI_API_KEY=abc        # ends before ` #`
    NAME='as it stands, $HOME too'
    TEXT="escapes: \\n \\t \\" \\\\"
    PEM="a quoted value
    may span lines"

Nothing is expanded and nothing is run. A line that assigns nothing is skipped: such files serve other programs too.
`unread_lines` says which these are, for whoever wonders where a key has gone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agentflow.errors import ConfigurationError

__all__ = ["parse_dotenv", "read_dotenv", "unread_lines"]

_ASSIGNMENT: Final = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)[ \t]*=[ \t]*
        (?: '(?P<single>[^']*)'
          | "(?P<double>(?:[^"\\]|\\.)*)"
          | (?P<open>['"])
          | (?P<bare>[^\n]*)
        )[^\n]*$""",
    re.MULTILINE | re.VERBOSE | re.DOTALL,
)
_SILENT: Final = re.compile(r"[ \t]*(?:#.*|export[ \t]+[A-Za-z_][A-Za-z0-9_. \t]*)?")
_COMMENT: Final = re.compile(r"(?:^|[ \t])#.*")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


def read_dotenv(path: Path) -> dict[str, str]:
    """The assignments in a file; none where the file does not exist. Raises ConfigurationError."""
    return parse_dotenv(_text(path), source=str(path))


def unread_lines(path: Path) -> list[int]:
    """The numbers of lines that are neither blank nor a comment and assign nothing. Raises ConfigurationError."""
    text = _text(path).replace("\r\n", "\n")
    # What was assigned makes room for the line ends in it, so that the numbers still fit.
    rest = _ASSIGNMENT.sub(lambda match: "\n" * match[0].count("\n"), text)
    return [number for number, line in enumerate(rest.split("\n"), 1) if not _SILENT.fullmatch(line)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    raise ConfigurationError(f"cannot be read: {reason}", source=str(path))


def parse_dotenv(text: str, *, source: str = ".env") -> dict[str, str]:
    """The assignments in `text`; of two for one name the later counts. Raises ConfigurationError on an open quote."""
    text = text.replace("\r\n", "\n")
    found: dict[str, str] = {}
    for match in _ASSIGNMENT.finditer(text):
        if match["open"]:
            line = text.count("\n", 0, match.start("open")) + 1
            raise ConfigurationError(
                f"the quote that opens the value of {match['name']} is never closed", source=f"{source}:{line}"
            )
        found[match["name"]] = _value(match)
    return found


def _value(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return match["single"]
    if match["double"] is not None:
        return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), match["double"])
    return _COMMENT.sub("", match["bare"]).strip()
