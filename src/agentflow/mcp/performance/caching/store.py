"""What keeps answers beyond one process: names, sealed bytes and labels; SQLite and Valkey each do it in their way.

    load(name) ──▶ bytes      save(name, bytes, …)      purge(labels)        claim(name, holder) ──▶ may ask the model

No method raises for what happens to files and servers: a cache that is away is a cache that has nothing. `trouble`
says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ["CacheStore", "OffersCache", "Totals"]


class Totals(NamedTuple):
    """What is in a store, and what it has done for all processes since it was made: `hits`, `misses`, `saved` (USD).
    `bytes` is None where nobody counts them."""

    entries: int
    bytes: int | None
    counts: Mapping[str, float]


class CacheStore(Protocol):
    """A place that processes share. Seconds are how long from now; labels are exact texts."""

    @property
    def trouble(self) -> str | None:
        """Why it cannot be used just now; None where it can."""
        ...

    async def load(self, name: str) -> bytes | None: ...

    async def save(self, name: str, packed: bytes, *, seconds: float, worth: float, labels: Sequence[str]) -> None:
        """Keep it for so long. `worth` in USD is what decides who leaves when there is too much."""
        ...

    async def purge(self, labels: Sequence[str]) -> int:
        """Remove all that carries all of these labels; without labels, all. Says how many that were."""
        ...

    async def purges(self) -> int:
        """How often anybody has purged: a process whose memory is older than that forgets it."""
        ...

    async def claim(self, name: str, holder: str, seconds: float) -> bool:
        """Whether `holder` may ask the model for this answer, for so long. Asked again by the same holder it is
        prolonged. True where nobody can tell."""
        ...

    async def release(self, name: str, holder: str) -> None: ...

    async def count(self, amounts: Mapping[str, float]) -> None:
        """Add to what is counted for all processes."""
        ...

    async def totals(self) -> tuple[int, int | None, Mapping[str, float]]:
        """As in `Totals`."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class OffersCache(Protocol):
    """A store of limits that can keep answers as well."""

    def cache(self, name: str) -> CacheStore: ...
