"""Answers of models, kept for all processes: the store of a cache, in Valkey or Redis.

    kept = store.cache("answers")
    await kept.save(name, packed, seconds=3600, worth=0.002, labels=("model:gpt-4o",))
    await kept.load(name)                      the bytes, until they expire on the server
    await kept.claim(name, holder, 5)          whether this one may ask the model; a lease that ends by itself

    an answer, its lease        each in a slot of its own, as names are hashes and spread over a cluster
    a label                     a sorted set of names by when they expire, by which answers are purged

What is kept is bounded by the server's own `maxmemory`, and who leaves first by its `maxmemory-policy`. While the
server is away nothing is found, nothing is kept, and everybody may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from agentflow.integrations.valkey.remote import Argument, Remote
from agentflow.integrations.valkey.scripts import Script

__all__ = ["AnswerTotals", "SharedAnswers"]

_ALL: Final = "all"
_AT_ONCE: Final = 32  # questions to the server at the same time

_LOAD: Final = Script("load", "return redis.call('GET', KEYS[1])")
_SAVE: Final = Script("save", "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1")
_DROP: Final = Script("drop", "return redis.call('DEL', KEYS[1])")
_CLAIM: Final = Script(
    "claim",
    """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""",
)
_RELEASE: Final = Script(
    "release", "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"
)
_NOW: Final = "local time = redis.call('TIME') local now = tonumber(time[1]) * 1000 + math.floor(time[2] / 1000)\n"
_LABEL: Final = Script(
    "label",
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now))
redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
""",
)
_LABELLED: Final = Script(
    "labelled",
    _NOW + "return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%d', now), '+inf')",
)
_HOW_MANY: Final = Script(
    "how many",
    _NOW + "return redis.call('ZCOUNT', KEYS[1], string.format('(%d', now), '+inf')",
)
_COUNT: Final = Script(
    "count",
    "for i = 1, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1]) end return 1",
)
_COUNTS: Final = Script("counts", "return redis.call('HGETALL', KEYS[1])")


class AnswerTotals(NamedTuple):
    """Nobody counts the bytes: the server bounds them."""

    entries: int
    bytes: None
    counts: Mapping[str, float]


class SharedAnswers:
    """Made by `ValkeyStore.cache`."""

    def __init__(self, remote: Remote, cache: str) -> None:
        self._remote = remote
        self._cache = cache
        self._rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    @property
    def trouble(self) -> str | None:
        return None if self._remote.up else "the server does not answer"

    async def load(self, name: str) -> bytes | None:
        found = await self._ask(_LOAD, self._key("answer", name))
        return found if isinstance(found, bytes) else None

    async def save(self, name: str, packed: bytes, *, seconds: float, worth: float, labels: Sequence[str]) -> None:
        """Labels come first: what is kept can be purged."""
        lives = max(1, round(seconds * 1000))
        await asyncio.gather(*[self._ask(_LABEL, self._key("label", label), name, lives) for label in (_ALL, *labels)])
        await self._ask(_SAVE, self._key("answer", name), packed, lives)

    async def purge(self, labels: Sequence[str]) -> int:
        named = await asyncio.gather(*[self._names(label) for label in (_ALL, *labels)])
        names = set.intersection(*named)
        gone = await asyncio.gather(*[self._ask(_DROP, self._key("answer", name)) for name in names])
        dropped = sum(int(each or 0) for each in gone)
        await self.count({"purges": 1.0})
        return dropped

    async def purges(self) -> int:
        return int((await self._counts()).get("purges", 0))

    async def claim(self, name: str, holder: str, seconds: float) -> bool:
        answer = await self._ask(_CLAIM, self._key("lease", name), holder, max(1, round(seconds * 1000)))
        return answer is None or bool(answer)

    async def release(self, name: str, holder: str) -> None:
        await self._ask(_RELEASE, self._key("lease", name), holder)

    async def count(self, amounts: Mapping[str, float]) -> None:
        told = [word for what, amount in amounts.items() for word in (what, repr(float(amount)))]
        await self._ask(_COUNT, self._key("counts", _ALL), *told)

    async def totals(self) -> AnswerTotals:
        entries = await self._ask(_HOW_MANY, self._key("label", _ALL))
        return AnswerTotals(int(entries or 0), None, await self._counts())

    async def aclose(self) -> None:
        """The store is closed by whoever made it."""

    async def _names(self, label: str) -> set[str]:
        names = await self._ask(_LABELLED, self._key("label", label))
        return {name.decode() for name in names or ()}

    async def _counts(self) -> Mapping[str, float]:
        words = await self._ask(_COUNTS, self._key("counts", _ALL)) or ()
        return {words[at].decode(): float(words[at + 1]) for at in range(0, len(words), 2)}

    def _key(self, kind: str, name: str) -> tuple[str, ...]:
        return self._remote.keys(f"cache-{kind}", f"{self._cache}/{name}", "it")

    async def _ask(self, script: Script, keys: tuple[str, ...], *arguments: Argument) -> Any | None:
        """Some at a time: each takes a connection, and its time runs from when it has begun."""
        loop = asyncio.get_running_loop()
        room = self._rooms.get(loop)
        if room is None:
            room = self._rooms[loop] = asyncio.Semaphore(_AT_ONCE)
        async with room:
            return await self._remote.ask(script, keys, arguments, undo=None)
