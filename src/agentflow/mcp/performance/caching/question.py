"""One question as the cache sees it, made of a request and of who asks."""

from __future__ import annotations

from msgspec import Struct

from agentflow.llm.caller import Caller
from agentflow.llm.messages import Request
from agentflow.mcp.performance.caching.wishes import Wishes

__all__ = ["Question"]


class Question(Struct, frozen=True):
    """`request` is what the model is asked: files read, without what was said to the cache. `name` is what its answer
    is kept under; `refused` is why it is not for the cache, and then there is no name. `anew` is why what is there is
    not enough."""

    request: Request
    caller: Caller
    scope: str | None
    wishes: Wishes
    name: str = ""
    refused: str | None = None
    anew: str | None = None

    @property
    def flight(self) -> str:
        """Who asks for the same at the same time shares one call; but who wants it asked anew does not join others."""
        return self.name if self.anew is None else self.name + "!"
