"""Processes that are killed, and logs that are torn: nothing that `save` returned for is missing, and nothing is mixed.

The children save one record after the other, so what is in the file afterwards must be the first so many of them.
"""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from tests.core.durability.engine_contract import DONE, saving, spec, step
from tests.core.durability.sqlite.children import child
from tests.core.durability.sqlite.durable_child import body_of

from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Ending, Record, RunSpec
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.errors import DurabilityError, UnknownRunError

SMALL, LARGE = 10, 50_000


async def kept_by(engine: SqliteDurability, size: int) -> int:
    """How many records are there: the first so many, and each of them whole."""
    try:
        records = await engine.records("r1")
    except UnknownRunError:
        return 0
    assert records == [Record(f"a/{n}", "step", body_of(n, size), float(n)) for n in range(len(records))]
    return len(records)


@pytest.mark.parametrize(
    ("place", "size"),
    [
        ("before-claim:1", SMALL),
        ("after-claim:1", SMALL),
        ("before-insert:1", SMALL),
        ("before-insert:5", SMALL),
        ("after-insert:1", SMALL),
        ("after-insert:9", SMALL),
        ("after-commit:2", SMALL),
        ("after-commit:7", SMALL),
        ("before-end:1", SMALL),
        ("after-end:1", SMALL),
        ("before-value:3", LARGE),
        ("in-value:4", LARGE),
        ("after-value:3", LARGE),
        ("after-insert:3", LARGE),
    ],
)
async def test_a_killed_process_loses_nothing_that_was_saved(tmp_path: Path, place: str, size: int) -> None:
    """In the middle of a transaction, before and behind it: the run is free at once, and goes on where it was."""
    path = tmp_path / "runs.db"
    with child(path, "run", "r1", 12, "--size", size, die=place) as process:
        lines = process.rest()
        assert process.process.returncode == -signal.SIGKILL
    said = sum(line.startswith("saved") for line in lines)
    engine = SqliteDurability(path, blob_bytes=20_000)
    kept = await kept_by(engine, size)
    assert said <= kept <= said + 1
    records = [Record(f"a/{n}", "step", body_of(n, size), float(n)) for n in range(12)]
    assert await engine.execute(RunSpec("r1", "article"), saving(*records)) == DONE
    assert await engine.records("r1") == records
    await engine.delete("r1")
    assert [found for found in (tmp_path / "runs.db-values").rglob("*") if found.is_file() and not found.suffix] == []
    await engine.close()


@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_a_process_killed_from_outside_loses_nothing_that_was_saved(tmp_path: Path, sync: str) -> None:
    path = tmp_path / "runs.db"
    chance = random.Random(6)
    for _ in range(3):
        with child(path, "run", "r1", 100_000, sync=sync) as process:
            last = chance.randrange(1, 60)
            lines = [process.line() for _ in range(last)]
            process.process.kill()
            lines += process.rest()
        said = max(int(line.split()[1]) for line in lines if line.startswith("saved")) + 1 if len(lines) > 1 else 0
        engine = SqliteDurability(path)
        kept = await kept_by(engine, SMALL)
        assert kept >= said
        assert kept == 0 or (await engine.find("r1")).status == "lost"
        await engine.close()


async def files_of_a_run_under_way(folder: Path, count: int) -> tuple[Path, Path]:
    """Copies of the database, which is empty, and of the log with all that was saved."""
    copied: list[Path] = []
    path = folder / "runs.db"
    engine = SqliteDurability(path)

    async def body(journal: Journal) -> Ending:
        for number in range(count):
            await journal.save(Record(f"a/{number}", "step", body_of(number, 500), float(number)))
        for suffix in ("", "-wal"):
            copied.append(shutil.copy(f"{path}{suffix}", folder / f"copy{suffix}"))
        return DONE

    await engine.execute(spec(), body)
    await engine.close()
    return copied[0], copied[1]


async def what_is_left(folder: Path, number: int, database: bytes, log: bytes) -> int | None:
    """How many records an engine finds in there; None where it refuses the file, and says which."""
    path = folder / str(number) / "runs.db"
    path.parent.mkdir()
    path.write_bytes(database)
    path.with_name("runs.db-wal").write_bytes(log)
    engine = SqliteDurability(path)
    try:
        return await kept_by(engine, 500)
    except DurabilityError as error:
        if str(path) not in str(error):
            raise
        return None
    finally:
        await engine.close()
        shutil.rmtree(path.parent)


async def test_a_torn_log_is_read_up_to_where_it_is_whole(tmp_path: Path) -> None:
    """Cut anywhere, as by a power cut: a prefix of what was saved."""
    database, log = await files_of_a_run_under_way(tmp_path, 30)
    whole, base = log.read_bytes(), database.read_bytes()
    chance = random.Random(4)
    offsets = sorted(chance.randrange(len(whole)) for _ in range(60))
    found = [await what_is_left(tmp_path, n, base, whole[:offset]) for n, offset in enumerate(offsets)]
    assert None not in found
    assert found == sorted(found, key=lambda kept: kept or 0)
    assert len(set(found)) > 10
    assert await what_is_left(tmp_path, 99, base, whole) == 30


async def test_a_log_with_wrong_bytes_is_read_up_to_them(tmp_path: Path) -> None:
    database, log = await files_of_a_run_under_way(tmp_path, 20)
    whole, base = log.read_bytes(), database.read_bytes()
    chance = random.Random(5)
    for number in range(40):
        broken = bytearray(whole)
        for at in (chance.randrange(len(whole)) for _ in range(3)):
            broken[at] ^= 1 + chance.randrange(255)
        kept = await what_is_left(tmp_path, number, base, bytes(broken))
        assert kept is None or kept <= 20


@pytest.mark.parametrize("part", ["head", "middle", "cut"])
async def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, part: str) -> None:
    """Other than the run store's tables, what runs need to go on is never set aside unasked."""
    path = tmp_path / "runs.db"
    engine = SqliteDurability(path)
    await engine.execute(spec(), saving(*(step(f"a/{n}", body_of(n, 2_000)) for n in range(40))))
    await engine.close()
    content = bytearray(path.read_bytes())
    start = 0 if part == "head" else 4096
    if part == "cut":
        content = content[: len(content) // 2]
    else:
        content[start : start + 8192] = b"\xa5" * 8192
    path.write_bytes(content)
    engine = SqliteDurability(path)
    with pytest.raises(DurabilityError, match=r"runs\.db") as caught:
        await engine.execute(spec(flow="article"), saving(step("b/1")))
    assert isinstance(caught.value.__cause__, Exception)
    await engine.close()
    assert path.read_bytes()[start + 100 : start + 8192] == bytes(content[start + 100 : start + 8192])
    assert not list(tmp_path.glob("*damaged*"))


async def test_what_is_saved_is_not_only_in_this_process(tmp_path: Path) -> None:
    """Another connection sees it as soon as `save` has returned."""
    path = tmp_path / "runs.db"
    engine = SqliteDurability(path)

    async def body(journal: Journal) -> Ending:
        for number in range(3):
            await journal.save(step(f"a/{number}"))
            other = sqlite3.connect(path)
            assert other.execute("SELECT count(*) FROM durable_records").fetchall() == [(number + 1,)]
            other.close()
        return DONE

    await engine.execute(spec(), body)
    await engine.close()
