"""What a model's id says beside its name: the date of a snapshot and the stage it is in.

    spellings("models/gpt-4o-2024-08-06")  →  "gpt-4o-2024-08-06", "gpt-4o"

An alias (gpt-4o) and the snapshot that answers for it are the same model to a price and to a list.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["bare", "spellings"]

_SUFFIX: Final = re.compile(
    r"[-@](?:20\d{6}|20\d{2}-\d{2}-\d{2}|\d{3,4}|latest|default|preview(?:-\d{2}-\d{2,4})?|exp|v\d+(?::\d+)?)$"
)
_MOST_SUFFIXES: Final = 3


def bare(model_id: str) -> str:
    """The id in lower case, without the folder that some APIs put before it, as in `publishers/google/models/…`."""
    return model_id.lower().rpartition("models/")[2]


def spellings(model_id: str) -> list[str]:
    """The id in lower case, then bare, then with dates and stages cut off at its end, one by one."""
    name = model_id.lower()
    shorter = bare(name)
    found = [name] if shorter == name else [name, shorter]
    for _ in range(_MOST_SUFFIXES):
        cut = _SUFFIX.sub("", shorter)
        if cut == shorter:
            break
        found.append(cut)
        shorter = cut
    return found
