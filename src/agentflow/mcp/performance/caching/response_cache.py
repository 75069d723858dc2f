"""Answers that were given before: a provider around a provider, which asks it what it has not asked already.

    cached = ResponseCache(OpenAIProvider(…), ttl=3600)                                    in memory
    cached = ResponseCache(OpenAIProvider(…), ttl=3600, store=SqliteStore("cache.db"))     shared by processes

    request ──key──▶ kept? ──▶ the answer, free          under way? ──▶ wait for it          else ──▶ ask, keep

Two questions are the same if everything that may change the answer is (`canonical.py`), and the same tenant asks. Only
what is asked at temperature 0 is cached, unless told otherwise, and of that only what was answered in full and by words
alone (`policy.py`). What a single call wants is said in its metadata (`wishes.py`).

Events: cache_hit and cache_miss, with their reason.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Final

from msgspec.structs import replace

from agentflow.clock import Clock, SystemClock
from agentflow.errors import ConfigurationError, SerializationError, UnsupportedError
from agentflow.llm.caller import current_caller
from agentflow.llm.media import loaded
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider, TokenCounter
from agentflow.llm.streaming.stream import close
from agentflow.mcp.performance.caching.asking import Asking, Parts
from agentflow.mcp.performance.caching.canonical import canonical, has_path
from agentflow.mcp.performance.caching.kept import Times
from agentflow.mcp.performance.caching.keys import Keyring, model_label
from agentflow.mcp.performance.caching.lease import Leases
from agentflow.mcp.performance.caching.lifetime import Lifetime
from agentflow.mcp.performance.caching.notes import Notes
from agentflow.mcp.performance.caching.policy import Policy, Temperature, Tools
from agentflow.mcp.performance.caching.question import Question
from agentflow.mcp.performance.caching.replay import Replay, replayed
from agentflow.mcp.performance.caching.semantic_tier import Closing, SemanticTier
from agentflow.mcp.performance.caching.shelf import Found, Shelf
from agentflow.mcp.performance.caching.sqlite_store import SqliteStore
from agentflow.mcp.performance.caching.store import CacheStore, Totals
from agentflow.mcp.performance.caching.tally import CacheStatistics, Tally
from agentflow.mcp.performance.caching.vectors import Vectors, missing, put_together
from agentflow.mcp.performance.caching.wishes import wishes_of

__all__ = ["ResponseCache"]

_CLOCK: Final = SystemClock()


class ResponseCache:
    """Around `inner`. An answer holds for `ttl` seconds, less up to the share `jitter` of that; then, for `stale`
    seconds more, it is still given while it is asked for anew.

    `memory_bytes` bounds the tier in memory. `store` is what processes share: a `SqliteStore`, or `ValkeyStore.cache`.
    Keys are made with `secret`, at least 16 random bytes, the same in all of these processes, or what gives them; a
    SQLite file has its own, and without a store none is needed. With `share_tenants` all tenants find each other's
    answers.

    `temperature`, `tools` and `addresses` are as in `Policy`; `default_temperature` is what the provider is asked at
    where a request does not say it. `replay` is how a kept answer is streamed: "instant", or "paced" as it once came.
    `lease` is after how many seconds another process counts as dead that is asking the model and is not heard of.
    `variant` is what else decides the answers, such as the address of the server: what was kept under another one is
    not found. `semantic` finds answers to questions in other words.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        ttl: float,
        jitter: float = 0.1,
        stale: float = 0.0,
        memory_bytes: int = 64 * 1024 * 1024,
        store: CacheStore | None = None,
        secret: bytes | Callable[[], bytes] | None = None,
        share_tenants: bool = False,
        temperature: Temperature = "zero",
        default_temperature: float | None = None,
        tools: Tools = "never",
        addresses: bool = False,
        replay: Replay = "instant",
        lease: float = 5.0,
        variant: str = "",
        semantic: SemanticTier | None = None,
        clock: Clock = _CLOCK,
    ) -> None:
        _check(memory_bytes, lease)
        self._inner = inner
        self._clock = clock
        self._replay: Replay = replay
        self._variant = variant
        self._semantic: object = semantic  # which may be closed, or not
        self._policy = Policy(temperature, default_temperature, tools, addresses)
        self._lifetime = Lifetime(ttl, jitter, stale)
        self._keyring = _keyring(secret, store, share_tenants)
        self._tally = Tally()
        self._notes = Notes(self._tally, clock)
        self._shelf = Shelf(self._keyring, memory_bytes, store, clock, self._tally)
        self._vectors = Vectors(self._shelf, self._keyring, inner.name, variant, self._times)
        self._asking = Asking(
            Parts(
                inner,
                self._shelf,
                self._keyring,
                self._policy,
                self._lifetime,
                self._notes,
                self._tally,
                clock,
                replay,
                None if store is None else Leases(store, clock, lease),
                semantic,
            )
        )

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def schemas(self) -> bool:
        """Whether the wrapped provider has words for the schema of an answer."""
        return bool(getattr(self._inner, "schemas", True))

    async def execute(self, request: Request) -> Response:
        """Raises what the wrapped provider raises, and ConfigurationError for metadata that says no such wish."""
        question = await self._question(request)
        if question.refused is not None:
            await self._passed_by(question, question.refused)
            return await self._inner.execute(question.request)
        found = await self._look(question)
        if found is None:
            return await self._asking.answer(question)
        await self._hit(question, found)
        return found.answer("exact")

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        """The same in pieces. What is left before its end is not kept, unless another one reads on."""
        question = await self._question(request)
        if question.refused is not None:
            await self._passed_by(question, question.refused)
            source = self._inner.execute_streaming(question.request)
        else:
            found = await self._look(question)
            if found is None:
                source = self._asking.chunks(question)
            else:
                await self._hit(question, found)
                source = replayed(found.kept.chunks("exact"), self._replay, self._clock)
        try:
            async for chunk in source:
                yield chunk
        finally:
            await close(source)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Vectors text by text: the wrapped provider is asked for those that are not there."""
        if not isinstance(self._inner, EmbeddingProvider):
            raise UnsupportedError(f"provider {self._inner.name!r} has no embeddings")
        if not request.inputs:
            return await self._inner.embed(request)  # what it says to nothing
        caller = current_caller()
        scope = self._keyring.scope(caller.tenant)
        try:
            names = self._vectors.names(request, scope)
        except SerializationError:
            await self._notes.miss(caller, request.model, "unkeyable")
            return await self._inner.embed(request)
        found = await self._vectors.look(names, scope)
        wanted, worth = missing(request, found), sum(kept.cost or 0.0 for kept in found.values())
        self._tally.texts(len(names), len(found), worth if wanted else 0.0)
        if not wanted:
            await self._notes.hit(caller, request.model, "fresh", worth=worth, usage=Usage())
            return put_together(request, found, None, self._inner.name)
        await self._notes.miss(caller, request.model, "partial" if found else "absent")
        asked = await self._inner.embed(replace(request, inputs=wanted))
        await self._vectors.keep(names, wanted, asked, scope)
        return put_together(request, found, asked, self._inner.name)

    async def count_tokens(self, request: Request) -> int:
        """By the wrapped provider. Raises UnsupportedError where it does not count."""
        if not isinstance(self._inner, TokenCounter):
            raise UnsupportedError(f"provider {self._inner.name!r} does not count tokens")
        return await self._inner.count_tokens(request)

    async def purge(
        self, *, model: str | None = None, prompt: str | None = None, tag: str | None = None, tenant: str | None = None
    ) -> int:
        """Remove what fits all that is said; all there is, where nothing is said. Says how many answers that were.

        `model` is its id, as asked or as answered; `prompt` the words of the last user turn, of what `tenant` asked (of
        what was asked without a tenant, where none is said). Other processes hear of it within a second.
        """
        labels = [] if model is None else [model_label(model)]
        if prompt is not None:
            labels.append(self._keyring.prompt_label(tenant, prompt))
        if tag is not None:
            labels.append(self._keyring.tag_label(tag))
        if tenant is not None:
            labels.append(self._keyring.tenant_label(tenant))
        return await self._shelf.purge(labels)

    def statistics(self) -> CacheStatistics:
        """What it has done in this process, in dollars."""
        memory, store = self._shelf.memory, self._shelf.store
        trouble = None if store is None else store.trouble
        return self._tally.read(entries=len(memory), size=memory.bytes, evicted=memory.evicted, trouble=trouble)

    async def totals(self) -> Totals | None:
        """What the store holds, and what it has done for all processes; None where there is none."""
        store = self._shelf.store
        if store is None:
            return None
        await self._shelf.tell(store)
        return Totals(*await store.totals())

    async def aclose(self) -> None:
        """What is being kept is kept; then the store, the semantic tier and the wrapped provider are closed."""
        await self._asking.end()
        await self._shelf.aclose()
        if isinstance(self._semantic, Closing):
            await self._semantic.aclose()
        await self._inner.aclose()

    # ---- one question ----------------------------------------------------------------------------------------

    async def _question(self, request: Request) -> Question:
        wishes, metadata = wishes_of(request.metadata)
        if metadata is not request.metadata:
            request = replace(request, metadata=metadata)
        caller = current_caller()
        scope = self._keyring.scope(caller.tenant)
        refused = self._policy.refuses(request, wishes.mode)
        if refused is not None:
            return Question(request, caller, scope, wishes, refused=refused)
        if has_path(request):
            request = replace(request, messages=await loaded(request.messages))
        try:
            text = canonical(request, self._inner.name, self._variant)
        except SerializationError:
            return Question(request, caller, scope, wishes, refused="unkeyable")
        anew = "refresh" if wishes.mode == "refresh" else None
        return Question(request, caller, scope, wishes, self._keyring.name(scope, text), anew=anew)

    async def _look(self, question: Question) -> Found | None:
        return None if question.anew else await self._shelf.here(question.name, question.scope)

    async def _hit(self, question: Question, found: Found) -> None:
        kept = found.kept
        stale = kept.expires <= self._clock.time()
        if stale:
            self._asking.refresh(question)
        await self._notes.hit(
            question.caller,
            question.request.model,
            "stale" if stale else "fresh",
            worth=kept.cost,
            usage=kept.usage,
            found=kept,
        )

    async def _passed_by(self, question: Question, reason: str) -> None:
        await self._notes.miss(question.caller, question.request.model, reason)

    def _times(self) -> Times:
        return self._lifetime.of(self._clock.time(), self._clock.random())


def _keyring(secret: bytes | Callable[[], bytes] | None, store: CacheStore | None, shared: bool) -> Keyring:
    if secret is None and isinstance(store, SqliteStore):
        return Keyring(store.secret, shared=shared)
    if secret is None and store is not None:
        raise ConfigurationError(
            "a cache that processes share needs a secret that all of them know: secret=…, at least 16 random bytes"
        )
    return Keyring(secret, shared=shared)


def _check(memory_bytes: int, lease: float) -> None:
    if memory_bytes < 0:
        raise ConfigurationError(f"memory_bytes is a number of bytes, 0 for none, not {memory_bytes}")
    if not 0.1 <= lease < 3600:
        raise ConfigurationError(f"lease is a number of seconds from 0.1 to 3600, not {lease:g}")
