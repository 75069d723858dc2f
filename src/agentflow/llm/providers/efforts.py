"""How much a model thinks, by effort or by tokens: what one of the two is worth where an API knows only the other.

Thinking(effort="high")  ──budget_of──▶  24576        Thinking(budget=5000)  ──effort_of──▶  "medium"
"""

from __future__ import annotations

from typing import Final

from agentflow.errors import BadRequestError
from agentflow.llm.messages import Thinking

__all__ = ["BUDGETS", "budget_of", "effort_of"]

_MOST: Final = 24576  # the largest budget that every model with budgets takes, with room for the answer

BUDGETS: Final = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": _MOST, "xhigh": _MOST, "max": _MOST}
"""Efforts as tokens, as Google documents them for its OpenAI-compatible face (ai.google.dev/gemini-api/docs/openai)."""


def effort_of(thinking: Thinking) -> str | None:
    """The effort asked for, or the one nearest above the budget asked for."""
    if thinking.effort is not None or thinking.budget is None:
        return thinking.effort
    return next((effort for effort in ("none", "low", "medium") if thinking.budget <= BUDGETS[effort]), "high")


def budget_of(thinking: Thinking, model: str) -> int | None:
    """The budget asked for, or that of the effort asked for. Raises BadRequestError for an effort without any."""
    if thinking.budget is not None or thinking.effort is None:
        return thinking.budget
    if thinking.effort not in BUDGETS:
        raise BadRequestError(
            f"this model thinks by budget, and {thinking.effort!r} stands for none: say Thinking(budget=…)", model=model
        )
    return BUDGETS[thinking.effort]
