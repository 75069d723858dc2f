"""One request that waits to be sent with others: what it asks, how large it is, for whom, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

from agentflow.llm.caller import Caller

__all__ = ["Item"]

P = TypeVar("P")
A = TypeVar("A")


class Item(Generic[P, A]):
    """`size` is how many inputs it has, `tokens` how many they have together, `longest` the longest of them. `facts`
    is what its caller is told of its batch."""

    __slots__ = (
        "arrived", "caller", "context", "deadline", "facts", "left", "longest", "payload", "size", "taken", "tokens",
        "waiter",
    )  # fmt: skip

    def __init__(
        self,
        payload: P,
        size: int,
        tokens: int,
        longest: int,
        caller: Caller,
        arrived: float,
        deadline: float,
        waiter: asyncio.Future[A],
        context: Context,
    ) -> None:
        self.payload = payload
        self.size = size
        self.tokens = tokens
        self.longest = longest
        self.caller = caller
        self.arrived = arrived
        self.deadline = deadline
        self.waiter = waiter
        self.context = context
        self.facts: dict[str, object] | None = None
        self.taken = False
        self.left: Callable[[], None] | None = None  # what is to be done where its caller leaves a batch under way

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.waiter.done()
