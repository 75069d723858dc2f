"""Several processes with one cache: one of them asks, the others wait; and one that is killed takes nothing with it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT
from tests.support.costly import CENT, Costly, asked
from tests.support.programs import surroundings
from tests.support.valkey_server import running

from agentflow.mcp.performance.caching import ResponseCache, SqliteStore, secret_from_text

SECRET = secret_from_text("a secret of all processes", "test")


class Process:
    """`tests.support.cache_process`, ready to begin."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child

    def heard(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, "the process ended"
        said: dict[str, Any] = json.loads(line)
        return said

    def begin(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write("go\n")
        self.child.stdin.flush()

    def kill(self) -> None:
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


@contextmanager
def process(folder: Path, store: dict[str, str], **job: Any) -> Iterator[Process]:
    whole = {"calls": str(folder / "calls"), "store": store, "ask": 1, **job}
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support.cache_process", json.dumps(whole)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=surroundings(),
    )  # fmt: skip
    with child:
        try:
            made = Process(child)
            assert made.heard() == {"ready": True}
            yield made
        finally:
            child.kill()


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def four_processes_make_one_call(folder: Path, store: dict[str, str]) -> None:
    with (
        process(folder, store, ask=250, takes=0.1) as one,
        process(folder, store, ask=250, takes=0.1) as two,
        process(folder, store, ask=250, takes=0.1) as three,
        process(folder, store, ask=250, takes=0.1) as four,
    ):
        all_of_them = (one, two, three, four)
        for each in all_of_them:
            each.begin()
        said = [each.heard() for each in all_of_them]
    assert calls(folder) == ["Hi"]
    assert [each["answers"] for each in said] == [{"answer 1 to Hi": 250}] * 4
    assert sum(each["costs"] for each in said) == pytest.approx(CENT)


def the_next_one_asks_when_the_first_is_killed(folder: Path, store: dict[str, str]) -> None:
    with process(folder, store, hang=True, lease=0.5) as first, process(folder, store, lease=0.5, ask=5) as second:
        first.begin()
        assert first.heard() == {"asked": True}
        second.begin()
        first.kill()
        said = second.heard()
    assert said["answers"] == {"answer 1 to Hi": 5}
    assert calls(folder) == ["Hi", "Hi"]


def test_four_processes_that_ask_a_thousand_times_make_one_call(tmp_path: Path) -> None:
    four_processes_make_one_call(tmp_path, {"path": str(tmp_path / "cache.db")})


def test_a_process_that_is_killed_while_it_asks_leaves_the_question_to_the_next(tmp_path: Path) -> None:
    the_next_one_asks_when_the_first_is_killed(tmp_path, {"path": str(tmp_path / "cache.db")})


@pytest.mark.service
def test_four_processes_make_one_call_through_a_server(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        four_processes_make_one_call(tmp_path, {"url": server.url})


@pytest.mark.service
def test_the_next_one_asks_through_a_server(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        the_next_one_asks_when_the_first_is_killed(tmp_path, {"url": server.url})


def test_a_process_that_is_killed_while_it_writes_leaves_a_cache_that_is_whole(tmp_path: Path) -> None:
    """Killed at any point among transactions: the file is sound, its counts are right, and each answer in it is whole
    and the right one. Another process goes on with it."""
    path = tmp_path / "cache.db"
    for turn in range(5):
        with process(tmp_path, {"path": str(path)}, each="q", size=5000 + turn * 1000) as writer:
            writer.begin()
            for _ in range(7 + 13 * turn):
                assert "kept" in writer.heard()
            writer.kill()
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (entries, size) = connection.execute("SELECT count(*), sum(size) FROM answers").fetchone()
        counts = dict(connection.execute("SELECT what, amount FROM counts").fetchall())
        orphans = connection.execute("SELECT count(*) FROM labels WHERE name NOT IN (SELECT name FROM answers)")
        assert (counts["entries"], counts["bytes"], orphans.fetchone()[0]) == (entries, size, 0)
        connection.close()
        assert entries > 0

    async def read_all() -> int:
        model = Costly()
        cache = ResponseCache(model, ttl=600, store=SqliteStore(path), secret=SECRET)
        found = 0
        for number in range(50):
            answer = await cache.execute(asked(f"q-{number}"))
            if answer.cache_hit:
                found += 1
                assert set(answer.text.split()) == {f"q-{number}"}
        await cache.aclose()
        assert found + len(model.calls) == 50
        return found

    assert asyncio.run(read_all()) > 40
