"""What tables and pictures are printed on: a terminal as wide as it is, a pipe as wide as COLUMNS says.

console = screen(otherwise=160)
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["piped_width", "screen"]

_LEAST = 20


def screen(*, otherwise: int) -> Console:
    """stdout; `otherwise` as for `piped_width`."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else piped_width(otherwise)
    return Console(file=sys.stdout, width=width, highlight=False)


def piped_width(otherwise: int) -> int:
    """What COLUMNS says; `otherwise` where it says nothing, or nothing that is a width."""
    said = os.environ.get("COLUMNS", "")
    return max(_LEAST, int(said)) if said.isascii() and said.isdigit() and int(said) else otherwise
