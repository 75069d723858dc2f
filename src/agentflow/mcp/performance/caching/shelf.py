"""Both tiers as one: memory first, then what processes share; in memory only what whoever asks may have.

    here(name, tenant) ──▶ memory            there(name, tenant) ──▶ store ──unsealed by the tenant's key──▶ memory
    keep(name, tenant, Kept) ──▶ memory, store

Another process may purge. Its purge is heard of within a second, and then all that is in memory here is forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from agentflow.clock import Clock
from agentflow.llm.messages import Response
from agentflow.mcp.performance.caching.kept import Kept, pack, unpack
from agentflow.mcp.performance.caching.keys import Keyring
from agentflow.mcp.performance.caching.memory import Item, Memory
from agentflow.mcp.performance.caching.store import CacheStore
from agentflow.mcp.performance.caching.tally import Tally

__all__ = ["Found", "Shelf"]

_PIECE: Final = 350  # bytes that a chunk takes in memory beside its words, about
_TELL: Final = 10.0  # seconds between two times that what was counted is told, where nothing is kept
_HEED: Final = 1.0  # seconds between two looks whether another process has purged


class Found:
    """What was found, as it may be handed out to its tenant. `packed` is what it is read from anew for everybody, where
    somebody could change what he got; `size` is how many bytes it takes here, about."""

    __slots__ = ("_whole", "kept", "packed", "plain", "size", "tenant")

    def __init__(self, kept: Kept, packed: bytes, tenant: str | None) -> None:
        self.kept = kept
        self.tenant = tenant
        self.plain = kept.is_plain
        self.packed = b"" if self.plain else packed
        self.size = len(packed) + _PIECE * len(kept.pieces)
        self._whole: Response | None = None

    def answer(self, tier: str) -> Response:
        """The whole answer. What came in pieces is put together once."""
        if not self.plain or self.kept.whole is not None:
            return self.kept.answer(tier)
        if self._whole is None or self._whole.cache_hit != tier:
            self._whole = self.kept.answer(tier)
        return self._whole


class Shelf:
    """`store` None is memory alone. `most` bounds that, in bytes."""

    def __init__(self, keyring: Keyring, most: int, store: CacheStore | None, clock: Clock, tally: Tally) -> None:
        self.memory: Memory[Found] = Memory(most)
        self.store = store
        self._keyring = keyring
        self._clock = clock
        self._tally = tally
        self._heed_at = 0.0
        self._tell_at = 0.0
        self._purges: int | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Errands] = WeakKeyDictionary()

    async def here(self, name: str, tenant: str | None) -> Found | None:
        """What is in memory under that name."""
        if self.store is not None:
            errands = self._errands(self.store)
            if self._clock.monotonic() >= self._heed_at:
                await self._heed_purges(self.store, errands)
        found = self.memory.get(name)
        if found is None or found.tenant != tenant:
            return None
        if found.kept.gone <= self._clock.time():
            self.memory.drop(name)
            return None
        return found if found.plain else self._read(found.packed, name, tenant)

    async def there(self, name: str, tenant: str | None) -> Found | None:
        """What the store keeps under that name. From then on it is in memory, too."""
        packed = None if self.store is None else await self.store.load(name)
        found = None if packed is None else self._read(packed, name, tenant)
        if found is None or found.kept.gone <= self._clock.time():
            return None
        self._put(name, found)
        return found

    async def fresh(self, name: str, tenant: str | None) -> Found | None:
        """What is kept anywhere, and is not too old."""
        now = self._clock.time()
        found = await self.here(name, tenant)
        if found is None or found.kept.expires <= now:
            found = await self.there(name, tenant)
        return None if found is None or found.kept.expires <= now else found

    async def keep(self, name: str, tenant: str | None, kept: Kept) -> str | None:
        """None, or why it could not be kept."""
        packed = pack(kept, self._keyring.of(tenant), name)
        if packed is None:
            return "unstorable"
        held = self._put(name, Found(kept, packed, tenant))
        if self.store is not None:
            self._errands(self.store)
            seconds = kept.gone - self._clock.time()
            await self.store.save(name, packed, seconds=seconds, worth=kept.cost or 0.0, labels=kept.labels)
            await self.tell(self.store)
        elif not held:
            return "too_large"
        return None

    async def purge(self, labels: Sequence[str]) -> int:
        """Remove all that carries all of these labels. Says how many that were."""
        here = self.memory.drop_labelled(labels)
        if self.store is None:
            return here
        there = await self.store.purge(labels)
        return max(here, there)

    async def tell(self, store: CacheStore) -> None:
        """Add what was counted here to what the store counts for all."""
        untold = self._tally.untold()
        if untold:
            await store.count(untold)

    async def aclose(self) -> None:
        if self.store is not None:
            await self.tell(self.store)
            await self.store.aclose()

    def _put(self, name: str, found: Found) -> bool:
        return self.memory.put(name, Item(found, found.size, found.kept.cost or 0.0, found.kept.labels))

    def _read(self, packed: bytes, name: str, tenant: str | None) -> Found | None:
        kept = unpack(packed, self._keyring.of(tenant), name)
        return None if kept is None else Found(kept, packed, tenant)

    async def _heed_purges(self, store: CacheStore, errands: _Errands) -> None:
        now = self._clock.monotonic()
        self._heed_at = now + _HEED
        if now >= self._tell_at:
            self._tell_at = now + _TELL
            errands.start(self.tell(store))
        purges = await store.purges()
        if self._purges is not None and purges != self._purges:
            self.memory.drop_labelled(())
        self._purges = purges

    def _errands(self, store: CacheStore) -> _Errands:
        loop = asyncio.get_running_loop()
        errands = self._loops.get(loop)
        if errands is None:
            errands = self._loops[loop] = _Errands(lambda: self.tell(store))
        return errands


class _Errands:
    """What is done on an event loop beside the questions: tasks, and what is told when the loop ends."""

    def __init__(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        # An event loop's shutdown closes the asynchronous generators that have begun on it: this one is for that.
        self._farewell = _farewell(last)
        with suppress(StopIteration):
            self._farewell.__anext__().send(None)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _farewell(last: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await last()
