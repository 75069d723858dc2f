"""How good a node's result is, by a function that looks at it: told as `feedback`, so that routing can learn from it.

    @node(reads=QUESTION, writes=ANSWER, check=lambda answer: len(answer) < 500)
    async def ask(question: str) -> str: ...

True is 1.0 and False 0.0; None says nothing. A checker judges and changes nothing: where it fails, that is told instead
of a score. With nobody watching it is not asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from agentflow.core.cancellation import failure_of
from agentflow.core.observability.feedback import verdict
from agentflow.core.observability.scope import current_scope
from agentflow.errors import describe

__all__ = ["Check", "Score", "judge"]

Score: TypeAlias = float | bool | None
"""From 0 (useless) to 1 (as good as can be)."""

Check: TypeAlias = Callable[..., Score | Awaitable[Score]]
"""Takes what exec returned."""


async def judge(check: Callable[[object], Awaitable[Score]], result: object) -> None:
    """Ask the checker, and tell what it says to whoever watches."""
    scope = current_scope.get()
    if scope is None:
        return
    try:
        score = await check(result)
        if score is None:
            return
        said = verdict(score=float(score))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whoever judges changes nothing
        failure = failure_of(error)
        said = {"source": "checker", "error": describe(failure), "error_type": type(failure).__name__}
    await scope.send("feedback", said)
