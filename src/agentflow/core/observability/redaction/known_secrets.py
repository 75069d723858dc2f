"""Values that this process knows to be secret, such as the keys it has loaded: found in texts to the letter.

    know_secret("4f9a…")                    ──▶  KNOWN, which every Redactor of the process asks
    KNOWN.find("… 4f9a… …")                 ──▶  where it stands: whole, escaped, or cut off at the end of the text

They are held in memory as they are, where the process holds them anyway, and are neither printed nor pickled.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:  # every program that has a key loads this, and few the shapes
    from agentflow.core.observability.redaction.secret_shapes import Span

__all__ = ["KNOWN", "KnownSecrets", "know_secret"]

_SHORTEST: Final = 8  # a shorter one is a word like "ollama", and may stand in any name
_MOST: Final = 1_000  # tokens that are fetched anew every hour must not fill the memory
_ESCAPE: Final = re.compile("%[0-9A-F]{2}")


class KnownSecrets:
    """The values, the latest thousand of them. Any thread may add one; `version` counts what was added."""

    __slots__ = ("_lock", "_spelt", "_values", "version")

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, ...]] = {}
        self._spelt: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self.version = 0

    def after_fork(self) -> None:
        """In a child: whoever held the lock is not there."""
        self._lock = threading.Lock()

    def add(self, secret: str) -> None:
        """Know one more. One that is shorter than eight characters is left out: half of all texts would have it."""
        if len(secret) < _SHORTEST or secret in self._values:
            return
        with self._lock:
            values = {**self._values, secret: _spellings(secret)}
            if len(values) > _MOST:
                del values[next(iter(values))]
            self._values = values
            self._spelt = tuple([spelling for spellings in values.values() for spelling in spellings])
            self.version += 1

    def find(self, text: str) -> Iterator[Span]:
        """Where one of them begins and ends, in no order; spans may overlap."""
        for secret in self._spelt:
            head = secret[:_SHORTEST]
            at = text.find(head)
            if at < 0:
                continue
            whole = text.find(secret, at)
            while whole >= 0:
                yield whole, whole + len(secret)
                whole = text.find(secret, whole + len(secret))
            cut = text.find(head, max(at, len(text) - len(secret) + 1))
            while cut >= 0:
                if secret.startswith(text[cut:]):
                    yield cut, len(text)
                    break
                cut = text.find(head, cut + 1)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{len(self)} known secrets>"

    def __reduce__(self) -> str:
        raise TypeError("known secrets are not pickled")


def _spellings(secret: str) -> tuple[str, ...]:
    """As it is, as JSON spells it, and as addresses do, in capitals and small."""
    percent = quote(secret, safe="")
    small = _ESCAPE.sub(lambda escape: escape[0].lower(), percent)
    return tuple(dict.fromkeys((secret, json.dumps(secret)[1:-1], percent, small)))


KNOWN: Final = KnownSecrets()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=KNOWN.after_fork)


def know_secret(secret: str) -> None:
    """Let every Redactor of this process take `secret` out of what it sees."""
    KNOWN.add(secret)
