"""What is taught, and what is kept back to judge by: the newest, as tomorrow's questions will be newer still.

──────────── train ────────────┊── held out ──▶ time
run run run run run run run run┊run run run          a run stays whole
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from agentflow.errors import ConfigurationError
from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer

__all__ = ["split_by_time"]


def split_by_time(answers: Sequence[RecordedAnswer], share: float) -> tuple[list[RecordedAnswer], list[RecordedAnswer]]:
    """The older and the newest. `share` of them, as nearly as whole runs allow, is held out: at least one run where
    there are two. Raises ConfigurationError for a share that is none."""
    if not 0.0 <= share < 1.0:
        raise ConfigurationError(f"held_out is a share from 0 up to 1, not {share!r}")
    runs: dict[str, list[RecordedAnswer]] = defaultdict(list)
    for answer in sorted(answers, key=lambda each: each.at):
        runs[answer.run].append(answer)
    ordered = sorted(runs.values(), key=lambda run: run[-1].at)
    wanted = share * len(answers)
    held: list[RecordedAnswer] = []
    while share and len(ordered) > 1 and (not held or len(held) + len(ordered[-1]) / 2 <= wanted):
        held = [*ordered.pop(), *held]
    return [answer for run in ordered for answer in run], held
