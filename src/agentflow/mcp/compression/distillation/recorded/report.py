"""What became of recorded answers on their way into a training: how many were left out, and why.

report.json beside the answers; `notes` is what a manifest should say of where its model's knowledge came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

__all__ = ["TERMS", "Report"]

TERMS: Final = (
    "Some providers' terms forbid to train models on their answers, or models that compete with theirs. Whoever"
    " distils says on what ground they may."
)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`calls` of `runs` were selected; `dropped` says why fewer are among `train` and `held_out`.

    `scrubbed` counts what was taken out of texts, by kind. `first`, `boundary` and `last` are times of answers,
    seconds since 1970: the oldest, the oldest of those held out, the newest. `cost` is what the teacher's kept answers
    have cost, US dollars, as far as it is known.
    """

    source: str
    selection: Mapping[str, object]
    consent: Mapping[str, object]
    teacher_terms: str | None
    runs: int
    calls: int
    dropped: Mapping[str, int]
    scrubbed: Mapping[str, int] = {}
    train: int = 0
    held_out: int = 0
    contradicting: int = 0
    models: Mapping[str, int] = {}
    first: float | None = None
    boundary: float | None = None
    last: float | None = None
    cost: float = 0.0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    terms: str = TERMS

    def to_json(self) -> dict[str, object]:
        """Plain data, as it stands in report.json."""
        return dict(msgspec.to_builtins(self))

    @property
    def notes(self) -> tuple[str, ...]:
        """For a manifest's source."""
        said = ", ".join(f"{count:,} by {name}" for name, count in self.models.items())
        span = f" from {_day(self.first)} to {_day(self.last)}" if self.first and self.last else ""
        left = ", ".join(f"{count:,}: {reason}" for reason, count in self.dropped.items())
        return (
            f"taught by recorded answers{span}: {said}; {self.train:,} to learn from, {self.held_out:,} held out",
            f"of {self.calls:,} calls were left out {left or 'none'}",
            f"the teacher's terms: {self.teacher_terms or 'nobody has said that its answers may be used'}",
        )


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
