"""What failed before an error that is raised at last, as notes on it, which a traceback shows below its message.

add_notes(error, ["attempt 1 of 3: OverloadedError: busy; waited 0.8 s"])
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

__all__ = ["add_notes", "brief"]

_LONGEST: Final = 300  # characters that a note quotes of an error


def brief(error: BaseException) -> str:
    """The error's type and message on one line, cut short."""
    try:
        words = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a foreign __str__ may do anything
        words = ""
    words = words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def add_notes(error: BaseException, notes: Iterable[str]) -> None:
    """Each note once: the error may be an object that is kept, and raised again and again."""
    with suppress(Exception):  # an exception class may refuse attributes
        known = getattr(error, "__notes__", ())
        for note in notes:
            if note not in known:
                error.add_note(note)
