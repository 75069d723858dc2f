"""One answer that somebody waits for: between the coroutine that asked and the thread that decodes.

    asked ──▶ Job(prepare, inbox) ──▶ waiting ──▶ a row of the decoding ⇄ resting ──▶ finished, failed or left
                                                  (resting: its reader is behind, so its row was given up for now)

The coroutine sets `left` and reads the inbox; all else belongs to the thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agentflow.mcp.performance.edge.draft import Draft, Step
from agentflow.mcp.performance.edge.inbox import Inbox

__all__ = ["Ended", "Job", "Piece"]


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer is over: `error` is None where it was written to its end. `seconds` is its share of the steps."""

    prompt: int
    written: int
    seconds: float
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """What was written, or how it ended, of answer number `index`."""

    index: int
    said: Step | Ended


@dataclass(slots=True, eq=False)
class Job:
    """`prepare` reads the request and is called in the thread. `deadline` is a time of the monotonic clock."""

    prepare: Callable[[], Draft]
    inbox: Inbox[Piece]
    index: int = 0
    tenant: str | None = None
    cost: float = 1.0
    deadline: float | None = None
    limit: float = 0.0  # seconds that the caller gave
    streams: bool = False
    left: bool = False  # nobody waits for it any more
    draft: Draft | None = None
    seconds: float = 0.0
    unsent: list[Step] = field(default_factory=list)

    def tell(self, step: Step) -> None:
        """To a stream at once; else when all is there."""
        if self.streams:
            self.left = not self.inbox.put(Piece(self.index, step)) or self.left
        else:
            self.unsent.append(step)

    def end(self, error: Exception | None = None) -> None:
        for step in self.unsent:
            self.inbox.put(Piece(self.index, step))
        self.unsent.clear()
        prompt, written = (0, 0) if self.draft is None else (len(self.draft.prompt), len(self.draft.written))
        self.inbox.put(Piece(self.index, Ended(prompt, written, self.seconds, error)))
