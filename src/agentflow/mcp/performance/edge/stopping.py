"""Where an answer ends: at the first of its stop strings, wherever the borders of tokens lie.

    scanner = StopScanner(["\\n\\n", "END"])
    scanner.feed("one E")   →  "one "        the E may be the beginning of END, so it waits
    scanner.feed("N")       →  ""
    scanner.feed("VY")      →  "ENVY"        it was none
    scanner.feed(" END of") →  " "           and scanner.stopped: nothing more is given
    scanner.flush()         →  ""            at the end: what was held back and is no stop string

A piece of a stop string is never given away. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopScanner"]


class StopScanner:
    """Empty stop strings stop nothing."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """What of the text so far may be shown now."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        at = len(text) - self._waiting(text)
        self._held = text[at:]
        return text[:at]

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held

    def _waiting(self, text: str) -> int:
        """How many letters at the end may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        return next(
            (
                length
                for length in range(min(longest, len(text)), 0, -1)
                if any(stop.startswith(text[-length:]) for stop in self._stops)
            ),
            0,
        )
