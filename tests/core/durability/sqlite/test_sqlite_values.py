"""Bodies that stand in files of their own: the same thing once, whole or not at all, and gone with the last run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.core.durability.engine_contract import DONE, saving, spec, step

from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Ending
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.errors import DurabilityError

LARGE = '"' + "tides " * 20_000 + '"'
NOISE = '"' + os.urandom(60_000).hex() + '"'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SqliteDurability]:
    engine = SqliteDurability(path)
    yield engine
    await engine.close()


def values(path: Path) -> list[Path]:
    return sorted(each for each in path.with_name("runs.db-values").rglob("*") if each.is_file())


async def test_a_large_body_has_a_file_and_the_database_stays_small(engine: SqliteDurability, path: Path) -> None:
    await engine.execute(spec(), saving(step("a/x#1", LARGE), step("a/y#1", "1" * 65_535)))
    [value] = values(path)
    assert value.stat().st_mode & 0o777 == 0o600
    assert value.stat().st_size < 20_000  # packed
    assert [record.body for record in await engine.records("r1")] == [LARGE, "1" * 65_535]


async def test_the_size_of_a_body_is_that_of_its_utf8(engine: SqliteDurability, path: Path) -> None:
    for number, body in enumerate(
        ["x" * 65_535, "x" * 65_536, "é" * 32_767, "é" * 32_768, "日" * 21_845, "日" * 21_846]
    ):
        await engine.execute(spec(f"r{number}"), saving(step("a/x#1", body)))
        assert len(values(path)) == [0, 1, 1, 2, 2, 3][number]
        assert (await engine.records(f"r{number}"))[0].body == body


async def test_the_same_body_stands_there_once(engine: SqliteDurability, path: Path) -> None:
    await engine.execute(spec("r1"), saving(step("a/x#1", LARGE), step("a/y#1", LARGE)))
    await engine.execute(spec("r2"), saving(step("a/x#1", LARGE), step("a/y#1", NOISE)))
    assert len(values(path)) == 2


async def test_a_file_goes_with_the_last_run_that_needs_it(engine: SqliteDurability, path: Path) -> None:
    await engine.execute(spec("r1"), saving(step("a/x#1", LARGE), step("a/y#1", NOISE)))
    await engine.fork(spec("r2", forked_from="r1", forked_at="a/y#1"), None)
    await engine.delete("r1")
    assert len(values(path)) == 1
    assert (await engine.records("r2"))[0].body == LARGE
    await engine.delete("r2")
    assert values(path) == []


async def test_what_a_crash_left_is_swept_up(engine: SqliteDurability, path: Path) -> None:
    """A half-written file only when it is old: somebody may be writing it."""
    await engine.execute(spec("r1"), saving(step("a/x#1", LARGE)))
    folder = values(path)[0].parent
    (folder / f"{folder.name}{'0' * 62}").write_bytes(b"-")
    old, new = folder / "old.part", folder / "new.part"
    for part in (old, new):
        part.write_bytes(b"-")
    os.utime(old, (1.0, 1.0))
    await engine.execute(spec("r2"), saving())
    await engine.delete("r2")
    assert sorted(values(path)) == sorted([values(path)[0], new])
    assert (await engine.records("r1"))[0].body == LARGE


async def test_a_file_that_is_swept_up_while_it_is_needed_again_is_written_again(
    engine: SqliteDurability, path: Path
) -> None:
    """The last run with it is deleted between the writing of the file and the transaction that names it."""
    other = SqliteDurability(path)
    await other.execute(spec("old"), saving(step("a/x#1", LARGE)))
    put = engine._bodies.put

    def put_and_lose(body: bytes) -> str:
        name = put(body)
        engine._bodies.put = put  # type: ignore[method-assign]
        engine._bodies.remove(name)
        return name

    engine._bodies.put = put_and_lose  # type: ignore[method-assign]
    await engine.execute(spec("new"), saving(step("a/x#1", LARGE)))
    assert (await engine.records("new"))[0].body == LARGE
    await other.close()


@pytest.mark.parametrize("fault", ["missing", "changed", "cut", "empty"])
@pytest.mark.parametrize("body", [LARGE, NOISE])
async def test_a_file_that_is_not_what_was_written_is_named(
    engine: SqliteDurability, path: Path, fault: str, body: str
) -> None:
    await engine.execute(spec(), saving(step("a/x#1", body), ending=Ending("waiting")))
    [value] = values(path)
    content = bytearray(value.read_bytes())
    match fault:
        case "missing":
            value.unlink()
        case "changed":
            content[len(content) // 2] ^= 1
            value.write_bytes(content)
        case "cut":
            value.write_bytes(content[:-1])
        case "empty":
            value.write_bytes(b"")
    with pytest.raises(DurabilityError, match=value.name):
        await engine.records("r1")

    async def body_of_run(journal: Journal) -> Ending:
        assert journal.find("a/none#1") is None
        journal.find("a/x#1")
        return DONE

    with pytest.raises(DurabilityError, match=value.name):
        await engine.execute(spec(), body_of_run)
    assert (await engine.find("r1")).status == "failed"


async def test_what_is_saved_later_counts_however_long_the_earlier_takes(engine: SqliteDurability) -> None:
    """The result of exec, large and given up by whoever saved it, does not take the place of the step."""

    async def body(journal: Journal) -> Ending:
        saves = [journal.save(step("a/x#1", text)) for text in (LARGE, '"first"', NOISE, '"last"')]
        await asyncio.gather(*saves)
        return DONE

    assert await engine.execute(spec(), body) == DONE
    assert [record.body for record in await engine.records("r1")] == ['"last"']


async def test_a_large_record_is_kept_also_where_its_waiter_is_cancelled(engine: SqliteDurability) -> None:
    async def body(journal: Journal) -> Ending:
        task = asyncio.create_task(journal.save(step("a/x#1", LARGE)))
        await asyncio.sleep(0)
        task.cancel()
        while journal.find("a/x#1") is None:
            await asyncio.sleep(0.001)
        return DONE

    async with asyncio.timeout(30):
        assert await engine.execute(spec(), body) == DONE
    assert len(await engine.records("r1")) == 1
