"""The file of a cache: shared, bounded, and never a reason for a question to fail, whatever has become of it."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.support.costly import Costly, asked

from agentflow.clock import VirtualClock
from agentflow.errors import ConfigurationError
from agentflow.llm.caller import Caller, asking_as
from agentflow.mcp.performance.caching import ResponseCache, SqliteStore
from agentflow.mcp.performance.caching import sqlite_store as module

SECRET = b"0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def cached(path: Path, model: Costly | None = None, **options: Any) -> ResponseCache:
    return ResponseCache(
        model or Costly(), **{"ttl": 60.0, "store": SqliteStore(path), "secret": SECRET, "memory_bytes": 0, **options}
    )


async def kept_in(path: Path, count: int = 3, **options: Any) -> None:
    cache = cached(path, **options)
    for number in range(count):
        await cache.execute(asked(f"secret question {number}"))
    await cache.aclose()


async def hits_in(path: Path, count: int = 3, **options: Any) -> int:
    cache = cached(path, **options)
    answers = [await cache.execute(asked(f"secret question {number}")) for number in range(count)]
    await cache.aclose()
    return sum(answer.cache_hit is not None for answer in answers)


# ---- what it keeps -------------------------------------------------------------------------------------------


async def test_answers_outlive_the_process(path: Path) -> None:
    """With the secret that lies beside the file, where none was given."""
    await kept_in(path, secret=None)
    assert await hits_in(path, secret=None) == 3
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("cache.db.key").stat().st_mode & 0o777 == 0o600


async def test_without_the_secret_nothing_is_found(path: Path) -> None:
    """A secret that was changed, and one that was lost."""
    await kept_in(path)
    assert await hits_in(path, secret=b"another 16 bytes") == 0
    assert await hits_in(path, secret=None) == 0


async def test_no_question_is_in_the_file(path: Path) -> None:
    """Neither as it is nor as a hash that anybody could make: questions, tenants and tags cannot even be guessed."""
    with asking_as(Caller(tenant="acme-corporation")):
        await kept_in(path)
    cache = cached(path)
    await cache.execute(asked("what is my salary", metadata={"agentflow_cache_tags": "payroll"}))
    await cache.aclose()
    connection = sqlite3.connect(path)
    columns = "SELECT name || ' ' || coalesce(label, '') FROM answers LEFT JOIN labels USING (name)"
    text = " ".join(row[0] for row in connection.execute(columns))
    connection.close()
    for word in ("salary", "secret question", "acme-corporation", "payroll"):
        assert word not in text
    assert "model:tiny-1" in text


async def test_an_answer_that_is_moved_to_another_tenants_name_is_not_read(path: Path) -> None:
    """Whoever can write the file cannot make one tenant's answer another's, nor the answer to another question."""
    cache = cached(path)
    for tenant in ("a", "b"):
        with asking_as(Caller(tenant=tenant)):
            await cache.execute(asked("x"))
            await cache.execute(asked("y"))
    await cache.aclose()  # an answer is written behind the caller's back
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, packed FROM answers ORDER BY rowid").fetchall()
    with connection:
        for (name, _), (_, packed) in zip(rows, [*rows[1:], rows[0]], strict=True):
            connection.execute("UPDATE answers SET packed = ? WHERE name = ?", (packed, name))
    connection.close()
    cache = cached(path)
    for tenant in ("a", "b"):
        with asking_as(Caller(tenant=tenant)):
            assert (await cache.execute(asked("x"))).cache_hit is None
            assert (await cache.execute(asked("y"))).cache_hit is None
    await cache.aclose()


async def test_a_flipped_bit_is_a_miss(path: Path) -> None:
    """And the answer that is then given is kept in its place."""
    await kept_in(path)
    connection = sqlite3.connect(path)
    with connection:
        for name, packed in connection.execute("SELECT name, packed FROM answers").fetchall():
            broken = bytes([*packed[:-1], packed[-1] ^ 1])
            connection.execute("UPDATE answers SET packed = ? WHERE name = ?", (broken, name))
    connection.close()
    assert await hits_in(path) == 0
    assert await hits_in(path) == 3


def test_what_is_too_old_is_not_found_and_leaves(path: Path) -> None:
    clock = VirtualClock()

    async def main() -> None:
        store = SqliteStore(path, clock=clock)
        await store.save("a", b"1", seconds=10, worth=0, labels=("x",))
        assert await store.load("a") == b"1"
        clock.advance(10)
        assert await store.load("a") is None
        for number in range(40):
            await store.save(f"n{number}", b"2", seconds=10, worth=0, labels=())
        assert (await store.totals()).entries == 40
        await store.aclose()

    clock.run(main())


async def test_its_bound_holds_and_what_saves_the_least_leaves(path: Path) -> None:
    """An answer that cost a dollar stays where a hundred that cost a cent have come and gone."""
    store = SqliteStore(path, bytes=50_000)
    await store.save("dear", bytes(2000), seconds=60, worth=1.0, labels=("x",))
    for number in range(100):
        await store.save(f"cheap {number}", bytes(2000), seconds=60, worth=0.01, labels=("x",))
        totals = await store.totals()
        assert totals.bytes is not None
        assert totals.bytes <= 50_000
    assert await store.load("dear") is not None
    assert await store.load("cheap 0") is None
    assert await store.load("cheap 99") is not None
    await store.aclose()


async def test_what_was_found_is_worth_more(path: Path) -> None:
    store = SqliteStore(path, bytes=12_000)
    for name in ("used", "idle"):
        await store.save(name, bytes(2000), seconds=60, worth=0.01, labels=())
    await store.load("used")
    for number in range(5):
        await store.save(str(number), bytes(2000), seconds=60, worth=0.011, labels=())
    assert await store.load("used") is not None
    assert await store.load("idle") is None
    await store.aclose()


async def test_two_caches_of_one_file_count_together_and_hear_of_purges(path: Path) -> None:
    """One's memory is forgotten when another has purged: at the latest a second later."""
    clock = VirtualClock()
    one, two = (cached(path, Costly(), memory_bytes=1 << 20, clock=clock) for _ in range(2))
    await one.execute(asked())
    assert (await two.execute(asked())).cache_hit == "exact"
    assert await one.purge(model="tiny-1") == 1
    clock.advance(1.0)
    assert (await two.execute(asked())).cache_hit is None
    await two.totals()
    totals = await one.totals()
    assert totals is not None
    assert (totals.entries, totals.counts["hits"], totals.counts["misses"]) == (1, 1, 2)
    assert totals.counts["saved"] == pytest.approx(0.01)
    await one.aclose()
    await two.aclose()


async def test_a_lease_is_one_holders_until_it_ends(path: Path) -> None:
    clock = VirtualClock()
    one, two = SqliteStore(path, clock=clock), SqliteStore(path, clock=clock)
    assert await one.claim("q", "first", 5)
    assert not await two.claim("q", "second", 5)
    assert await one.claim("q", "first", 5)
    clock.advance(4)
    assert await one.claim("q", "first", 5)
    clock.advance(4)
    assert not await two.claim("q", "second", 5)
    clock.advance(1)
    assert await two.claim("q", "second", 5)
    await one.release("q", "first")  # it is not his any more
    assert not await one.claim("q", "first", 5)
    await two.release("q", "second")
    assert await one.claim("q", "first", 5)
    await one.aclose()
    await two.aclose()


# ---- what may become of a file -------------------------------------------------------------------------------


async def works_without(path: Path, caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    """Questions are answered, by memory where they can be; it is said once, and stands in the statistics and in the
    reason of a miss."""
    model = Costly()
    cache = cached(path, model, memory_bytes=1 << 20, **options)
    with caplog.at_level(logging.WARNING, "agentflow.cache"):
        for _ in range(3):
            await cache.execute(asked())
            await cache.execute(asked("another"))
    assert len(model.calls) == 2
    found = cache.statistics()
    assert found.trouble is not None
    assert found.hits == 4
    assert set(found.misses) <= {"absent", "unavailable"}
    told = [record.getMessage() for record in caplog.records if "goes on without it" in record.getMessage()]
    assert len(told) == 1
    await cache.aclose()
    return found.trouble


async def test_a_file_that_is_no_database_is_left_as_it_is(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("my diary")
    await works_without(path, caplog)
    assert path.read_text() == "my diary"


async def test_another_programs_database_is_left_as_it_is(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary(day)")
    connection.close()
    await works_without(path, caplog)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("diary",)]
    connection.close()


async def test_a_folder_in_its_place(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir()
    await works_without(path, caplog)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
async def test_a_folder_that_cannot_be_written(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.chmod(0o500)
    await works_without(path, caplog)


async def test_a_folder_that_cannot_be_made(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor a secret beside it: then what is kept is this process's alone, and that is said."""
    path.write_text("a file")
    await works_without(path / "below" / "cache.db", caplog, secret=None)
    assert any("found by this process alone" in record.getMessage() for record in caplog.records)


async def test_a_disk_that_is_full(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more can be written, and what is there is still found."""
    await kept_in(path)
    opened = module.open_database

    def small(place: Path) -> sqlite3.Connection:
        connection = opened(place)
        connection.execute("PRAGMA max_page_count = 1")  # SQLite makes it as many as there are
        return connection

    monkeypatch.setattr(module, "open_database", small)
    assert await hits_in(path) == 3
    cache = cached(path)
    for number in range(50):
        await cache.execute(asked("x" * 5000 + str(number)))
    await cache.aclose()  # answers are written behind the caller's back
    assert "disk is full" in caplog.text


async def test_a_file_that_is_locked(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program that does not let go. When it does, the file is used again."""
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    await kept_in(path)
    clock = VirtualClock()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    trouble = await works_without(path, caplog, store=(store := SqliteStore(path, clock=clock)))
    assert "locked" in trouble
    other.execute("ROLLBACK")
    other.close()
    clock.advance(60)
    await store.save("a", b"1", seconds=10, worth=0, labels=())
    assert store.trouble is None
    assert await store.load("a") == b"1"
    await store.aclose()


async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await kept_in(path, 30)
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data)):
        data[at] = 0xA5
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, "agentflow.cache"):
        assert await hits_in(path, 30) < 30
    assert await hits_in(path, 30) == 30
    aside = [each.name for each in path.parent.iterdir() if ".damaged-" in each.name]
    assert aside
    assert any("begins anew" in record.getMessage() for record in caplog.records)


async def test_a_file_that_is_taken_away_is_made_again(path: Path) -> None:
    model = Costly()
    cache = cached(path, model)
    await cache.execute(asked())
    for each in list(path.parent.glob("cache.db*")):
        each.unlink()
    await cache.execute(asked("another"))
    assert path.exists()
    assert (await cache.execute(asked("another"))).cache_hit == "exact"
    await cache.aclose()


async def test_a_copy_that_was_taken_while_it_was_used_can_be_used(path: Path, tmp_path: Path) -> None:
    await kept_in(path)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    assert await hits_in(copy) == 3


def test_a_forked_process_uses_the_file_as_well(path: Path) -> None:
    """A connection does not survive that; the parent's goes on."""
    model = Costly()
    cache = cached(path, model)

    async def begin() -> None:
        await cache.execute(asked())
        await cache.aclose()  # it is kept, and
        await cache.execute(asked())  # the file is open again

    asyncio.run(begin())

    def child(hits: Any) -> None:
        async def ask() -> None:
            first = (await cache.execute(asked())).cache_hit
            await cache.execute(asked("new"))
            hits.put((first, (await cache.execute(asked("new"))).cache_hit))

        asyncio.run(ask())

    context = multiprocessing.get_context("fork")
    hits = context.Queue()
    process = context.Process(target=child, args=(hits,))
    process.start()
    assert hits.get(timeout=60) == ("exact", "exact")
    process.join()
    assert asyncio.run(cache.execute(asked("new"))).cache_hit == "exact"
    asyncio.run(cache.aclose())


def test_a_file_that_holds_nothing_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError):
        SqliteStore(path, bytes=0)
