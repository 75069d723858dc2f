"""How much of each is measured of a client's model calls, and what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from results import median

OURS, BASE = "agentflow", "aiohttp"
PIECES = 50
ROUNDS = 32
SLOW = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of each is done. Rounds are short and many, so that what is compared was measured together."""

    rounds: int = ROUNDS
    alone: int = 60
    crowd: int = 100
    each: int = 2
    streams: int = 10
    many: int = 1_000
    many_turns: int = 9
    most: int = 10_000
    delay: int = 1_000
    """Milliseconds that the server takes for each of the most calls, so that they are all under way together."""
    seconds: int = 60
    """No client gets more for its most calls."""
    starts: int = 3

    def takes_part(self, name: str, turn: int) -> bool:
        """Whether it is a client's turn: all but ours and the base are slow, and are asked more seldom."""
        return name in (OURS, BASE) or turn == -1 or turn % SLOW == 0

    def parts(self) -> dict[str, dict[str, object]]:
        """The commands of a round."""
        return {
            "alone": {"do": "call", "calls": self.alone, "at_once": 1},
            "crowd": {"do": "call", "calls": self.crowd * self.each, "at_once": self.crowd},
            "short": {"do": "stream", "calls": self.streams, "pieces": 1},
            "long": {"do": "stream", "calls": self.streams, "pieces": PIECES},
        }

    def burst(self, calls: int, delay: int) -> dict[str, object]:
        return {"do": "burst", "calls": calls, "delay": delay, "seconds": self.seconds}


TINY = Plan(rounds=1, alone=3, crowd=3, each=1, streams=2, many=5, many_turns=1, most=20, delay=50, starts=1)


@dataclass(slots=True)
class Measured:
    """One client's numbers. By round: seconds of CPU a call, alone, in a crowd, and of streams of 1 and 50 pieces.

    `first` is the wall time to a stream's first piece, the best of a round: other programs only ever add to it.
    """

    version: str = ""
    rounds: dict[str, dict[int, float]] = field(
        default_factory=lambda: {part: {} for part in (*Plan().parts(), "first", "many")}
    )
    starts: list[dict[str, Any]] = field(default_factory=list)
    many: list[dict[str, Any]] = field(default_factory=list)
    most: dict[str, Any] | None = None

    def note(self, turn: int, part: str, said: dict[str, Any]) -> None:
        self.rounds[part][turn] = said["cpu"]
        if part == "long":
            self.rounds["first"][turn] = min(said["first"])

    def note_many(self, turn: int, said: dict[str, Any]) -> None:
        self.many.append(said)
        if said["answered"]:
            self.rounds["many"][turn] = said["cpu"]

    def middle(self, part: str) -> float | None:
        """The median in µs."""
        times = self.rounds[part].values()
        return median(times) * 1e6 if times else None

    @property
    def piece(self) -> float:
        """µs of CPU for each further piece of a stream, the median."""
        pairs = zip(self.rounds["long"].values(), self.rounds["short"].values(), strict=True)
        return median((long - short) / (PIECES - 1) for long, short in pairs) * 1e6

    @property
    def import_cpu(self) -> float:
        """Milliseconds."""
        return median(start["import_cpu"] for start in self.starts) * 1e3

    @property
    def resident(self) -> float | None:
        """MB after the first call."""
        return _middle(start["resident"] for start in self.starts)

    @property
    def four(self) -> float | None:
        """MB after one call each of four providers."""
        return _middle(start["four"] for start in self.starts)

    @property
    def further(self) -> float | None:
        """KB that each of three further providers took."""
        return _middle(
            None if start["four"] is None else (start["four"] - start["resident"]) / 3 * 1e3 for start in self.starts
        )


def _middle(values: Iterable[float | None]) -> float | None:
    """The median; None where there was nothing to measure."""
    found = [value for value in values if value is not None]
    return median(found) if found else None
