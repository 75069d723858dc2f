"""Where a cache that knows likeness plugs into the exact one: two methods, asked after the exact tier found nothing.

    request ──exact key──▶ found: the answer
               └─ absent ──▶ tier.find(asked) ──▶ Verdict(key of another answer, reason, facts) ──▶ that answer
                                └─ key None ──▶ the model answers ──▶ tier.keep(asked, key, answer)

A tier names answers by the key under which the exact tier keeps them, and holds none itself: so one place knows how old
an answer may get, what was purged, and which tenant it belongs to. A key whose answer is gone is a miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from msgspec import Struct

from agentflow.llm.messages import Request, Response

__all__ = ["Asked", "Closing", "SemanticTier", "Verdict"]


class Asked(Struct, frozen=True):
    """A question as the cache sees it: files are read, the model is resolved. `provider` is the wrapped provider's
    name; `tenant` is whose answers may be found, None for what belongs to nobody (or, where tenants share, to all).

    `find` and `keep` of one question get the same object.
    """

    request: Request
    provider: str
    tenant: str | None = None


class Verdict(Struct, frozen=True):
    """What the tier decided. `key` names the answer to give, None for none. `reason` is one word for the event
    (`similar`, `below_threshold`, `number_changed`, `exploring`, …), `facts` are what explains it, of those that the
    event knows (`similarity`); neither holds words of the prompt."""

    key: str | None
    reason: str
    facts: Mapping[str, float | int | str | bool] = {}


class SemanticTier(Protocol):
    """Finds answers to questions that were asked in other words.

    Neither method raises for what may happen in operation (an embedding service that is down): the verdict says so.
    A cancelled caller cancels `find`.
    """

    async def find(self, asked: Asked) -> Verdict: ...

    async def keep(self, asked: Asked, key: str, answer: Response) -> None:
        """A model has answered, and the exact tier keeps the answer under `key`. Called off the caller's path; where
        `find` said no in order to explore or to audit, this answer is the one to compare with."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A tier that holds something open; it is closed with the cache."""

    async def aclose(self) -> None: ...
