"""One bad request fails alone: a batch that is refused is halved until whoever is at fault stands by himself.

    ▪▪▪▪▪▪✗▪   refused          with one bad request among n that is at most 2·⌈log2 n⌉ further calls
    ▪▪▪▪ ok     ▪▪✗▪ refused
                ▪▪ ok   ✗▪ …

Only what may lie in a single request is looked for so: a server that is down, or asks for a pause, is down for all.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from agentflow.errors import AgentFlowError, BadRequestError, ModelError

__all__ = ["Bisects", "Sends", "answers_of", "by_itself", "lies_in_one"]

P = TypeVar("P")
A = TypeVar("A")

Bisects: TypeAlias = Callable[[Exception], bool]
"""Whether an error may lie in one request of a batch, so that the others deserve another call."""

Sends: TypeAlias = Callable[[Sequence[P]], Awaitable[Sequence[A | Exception]]]
"""Asks for many at once. Raises where it fails as a whole."""


def lies_in_one(error: Exception) -> bool:
    """A request that the provider refuses as wrong, or a fault of the code that serves it."""
    if isinstance(error, ModelError):
        return isinstance(error, BadRequestError) or error.status in (400, 413, 422)
    return not isinstance(error, AgentFlowError | OSError | TimeoutError)


async def answers_of(asked: Sequence[P], send: Sends[P, A], bisects: Bisects) -> list[A | Exception]:
    """An answer or an error for each of those who ask, in their order."""
    try:
        answers = list(await send(asked))
    except Exception as error:  # noqa: BLE001 - everyone who asked hears of it
        if len(asked) == 1 or not bisects(error):
            return [error] * len(asked)
        middle = len(asked) // 2
        first = await answers_of(asked[:middle], send, bisects)
        return first + await answers_of(asked[middle:], send, bisects)
    return answers


def by_itself(error: Exception) -> Exception:
    """An error that several raise: each one his own, for a traceback grows wherever it is raised."""
    try:
        made = copy.copy(error)
    except Exception:  # noqa: BLE001 - one that cannot be copied is shared
        return error
    made.__cause__, made.__suppress_context__ = error.__cause__, error.__suppress_context__
    return made if type(made) is type(error) else error
