"""How much a Claude model thinks: our wish in the words that its generation understands.

    Thinking(effort="high")   claude-sonnet-4-5   ──▶  thinking {enabled, budget_tokens: 24576}
                              claude-opus-4-7     ──▶  thinking {adaptive} and effort high
    Thinking(budget=8000)     claude-sonnet-4-6   ──▶  thinking {enabled, budget_tokens: 8000}

Up to 4.5 a model is given a budget, from 4.7 on it chooses for itself by an effort, and 4.6 takes either; the other
word is an error 400. What is no Claude by its name gets the word that was said.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from agentflow.llm.content import Json
from agentflow.llm.messages import Request, Thinking
from agentflow.llm.providers.efforts import BUDGETS, budget_of, effort_of

__all__ = ["Plan", "planned"]

_LEAST: Final = 1024  # the smallest budget that the API takes
_LOWEST_EFFORT: Final = {"minimal": "low"}
_USUAL_EFFORT: Final = "high"  # what the API assumes where none is given
_USUAL_BUDGET: Final = "medium"  # it assumes none
_VERSION: Final = re.compile(r"claude-(?:[a-z]+-)*(\d+)(?:[-.](\d{1,2})(?!\d))?")
_FIRST_ADAPTIVE: Final = (4, 6)
_LAST_WITH_BUDGET: Final = (4, 6)


class Plan(Struct, frozen=True):
    """What goes under `thinking` and `output_config.effort`, and how many tokens of thought are to be expected."""

    thinking: dict[str, Json] | None = None
    effort: str | None = None
    tokens: int = 0


def planned(request: Request) -> Plan:
    """The plan for a request; an empty one where nobody wished for anything. Raises BadRequestError."""
    wish = request.thinking
    if wish is None:
        return Plan()
    if wish.effort == "none" or wish.budget == 0:
        return Plan({"type": "disabled"})
    version = _version(request.model)
    if wish.budget is not None and (version is None or version <= _LAST_WITH_BUDGET):
        return Plan(_shown(wish, _enabled(wish.budget)), _word(wish.effort), wish.budget)
    if version is not None and version < _FIRST_ADAPTIVE:
        budget = _fitted(budget_of(wish, request.model), request.max_tokens)
        return Plan(_shown(wish, _enabled(budget)), tokens=budget)
    effort = _word(effort_of(wish))
    tokens = wish.budget or BUDGETS.get(effort or _USUAL_EFFORT, 0)
    return Plan(_shown(wish, {"type": "adaptive"}), effort, tokens)


def _version(model: str) -> tuple[int, int] | None:
    """(4, 5) of claude-sonnet-4-5-20250929; None where the name tells no version."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _fitted(budget: int | None, max_tokens: int | None) -> int:
    """A budget of ours leaves half of `max_tokens` for the answer, which it is counted against."""
    wanted = BUDGETS[_USUAL_BUDGET] if budget is None else budget
    return wanted if max_tokens is None else max(_LEAST, min(wanted, max_tokens // 2))


def _word(effort: str | None) -> str | None:
    return None if effort is None else _LOWEST_EFFORT.get(effort, effort)


def _enabled(budget: int) -> dict[str, Json]:
    return {"type": "enabled", "budget_tokens": budget}


def _shown(wish: Thinking, thinking: dict[str, Json]) -> dict[str, Json]:
    if wish.show is not None:
        thinking["display"] = "summarized" if wish.show else "omitted"
    return thinking
