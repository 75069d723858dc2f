"""Answers in a real server: kept until they expire, found by their labels, asked for by one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.support.bench import Bench
from tests.support.costly import Costly, asked
from tests.support.valkey_server import Server, running

from agentflow.integrations.valkey import SharedAnswers, ValkeyStore
from agentflow.llm.config.wrappers import CacheEntry
from agentflow.llm.wrapped_models import surroundings_of
from agentflow.mcp.performance.caching import CacheStore, ResponseCache
from agentflow.mcp.performance.caching.from_settings import from_settings

pytestmark = pytest.mark.service

PATIENT = 5.0  # a busy machine is no outage
SECRET = b"0123456789abcdef"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def store_of(server: Server) -> ValkeyStore:
    return ValkeyStore(server.url, timeout=PATIENT)


async def test_it_keeps_bytes_as_they_are_and_purges_them_by_their_labels(server: Server) -> None:
    store = store_of(server)
    answers: CacheStore = store.cache("labels")
    packed = bytes(range(256))
    await answers.save("one", packed, seconds=60, worth=1.0, labels=("red", "blue"))
    await answers.save("two", b"2", seconds=60, worth=1.0, labels=("red",))
    assert await answers.load("one") == packed
    assert await answers.load("three") is None
    assert (await answers.totals())[0] == 2
    assert await answers.purge(["red", "blue"]) == 1
    assert await answers.load("one") is None
    assert await answers.load("two") == b"2"
    assert await answers.purge([]) == 1
    assert await answers.purge(["red"]) == 0
    assert await answers.purges() == 3
    await store.aclose()


async def test_caches_of_other_names_are_apart(server: Server) -> None:
    store = store_of(server)
    await store.cache("a").save("one", b"1", seconds=60, worth=0, labels=())
    assert await store.cache("b").load("one") is None
    assert await store.cache("b").purge([]) == 0
    assert await store.cache("a").load("one") == b"1"
    await store.aclose()


async def test_an_answer_and_a_lease_end_by_themselves(server: Server) -> None:
    """By the server's clock, which does not wait for anybody: they are asked until they have."""
    store = store_of(server)
    answers = store.cache("ends")
    await answers.save("one", b"1", seconds=0.05, worth=0, labels=("red",))
    assert await answers.claim("q", "first", 0.05)
    async with asyncio.timeout(60):
        while await answers.load("one") is not None or not await answers.claim("q", "second", 60):
            await asyncio.sleep(0.01)
        while (await answers.totals()).entries:
            await asyncio.sleep(0.01)
    assert not await answers.claim("q", "first", 60)
    await answers.release("q", "first")  # it is not his any more
    assert not await answers.claim("q", "first", 60)
    await answers.release("q", "second")
    assert await answers.claim("q", "first", 60)
    await store.aclose()


async def test_many_questions_at_once_take_few_connections(server: Server) -> None:
    store = store_of(server)
    cache = ResponseCache(model := Costly(), ttl=60, store=store.cache("many"), secret=SECRET, memory_bytes=0)
    await asyncio.gather(*[cache.execute(asked(str(number % 100))) for number in range(500)])
    assert cache.statistics().trouble is None
    assert len(model.calls) == 100
    await cache.aclose()
    totals = await cache.totals()
    assert totals is not None
    assert (totals.entries, totals.bytes, totals.counts["misses"]) == (100, None, 100)
    await store.aclose()


async def test_while_the_server_is_away_everybody_asks_for_himself(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        store = store_of(server)
        cache = ResponseCache(model := Costly(), ttl=60, store=store.cache("away"), secret=SECRET, memory_bytes=0)
        await cache.execute(asked())
        server.kill()
        answer = await cache.execute(asked("another"))
        assert answer.cache_hit is None
        assert "unavailable" in cache.statistics().misses
        assert cache.statistics().trouble is not None
        assert len(model.calls) == 2
        await cache.aclose()
        await store.aclose()


async def test_models_yml_keeps_answers_in_what_is_shared(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two registries, as two machines would have them, with one secret."""
    monkeypatch.setenv("CACHE_SECRET", "a secret of all machines")
    made = Bench(tmp_path, {"toy": Costly(name="toy")}, "models: {m: {provider: toy, temperature: 0}}")
    entry = CacheEntry(ttl=60, shared=True, secret_env="CACHE_SECRET")
    found = []
    for _ in range(2):
        store = store_of(server)
        around = surroundings_of(made.registry, made.registry.describe("m"))
        cache = from_settings(Costly(), entry, replace(around, store=lambda store=store: store))
        found.append((await cache.execute(asked())).cache_hit)
        await cache.aclose()
        await store.aclose()
    assert found == [None, "exact"]


def test_it_is_what_a_cache_asks_for() -> None:
    assert isinstance(ValkeyStore("redis://127.0.0.1:1/0").cache("x"), SharedAnswers)
