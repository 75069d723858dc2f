"""What happens within one call of a step: a tool that asks models, an entry that asks others.

step ──call──▶ "article/ask#1!call:3fa9…:1" ──Inside──▶ a step of its own: "article/ask#1!call:3fa9…:1!call:81b0…:1"
"""

from __future__ import annotations

from agentflow.core.durability.step import DurableStep

__all__ = ["Inside"]


class Inside(DurableStep):
    """A call as the step of what happens in it: whatever is asked there is found again with this call, and with no
    other. What that costs and waits for, so does the step around."""

    __slots__ = ("_outer",)

    def __init__(self, outer: DurableStep, path: str) -> None:
        super().__init__(outer.journal, path, outer.clock)
        self._outer = outer
        self.waits = outer.waits  # what a tool waits for, the step around waits for

    def count(self, cost: float | None, tokens: int) -> None:
        super().count(cost, tokens)
        self._outer.count(cost, tokens)
