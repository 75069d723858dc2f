"""Keepers of accounts: exact whatever happens at the same time, and a lost reservation is spent, never free."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.support.account_rules import START, AccountRules
from tests.support.spending import LIMIT, NOW

from agentflow.clock import VirtualClock
from agentflow.core.accounts import Accounts, Charge
from agentflow.errors import BudgetUnavailableError, ConfigurationError
from agentflow.mcp.optimization.budget.memory import KEPT, MemoryAccounts
from agentflow.mcp.optimization.budget.sqlite import SqliteAccounts

ROOT = Path(__file__).parents[4]
Make = Callable[[], Accounts]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    if request.param == "memory":
        accounts = MemoryAccounts()
        yield lambda: accounts
    else:
        yield lambda: SqliteAccounts(tmp_path / "budget.db")


def charge(account: str = "a/day", limit: int = 100, *, ends: float = START + 1_000, hard: bool = True) -> Charge:
    return Charge(account, 0, ends, limit, hard)


# ---- against a model


class MemoryRules(AccountRules):
    def keeper(self) -> Accounts:
        return MemoryAccounts()


class SqliteRules(AccountRules):
    def keeper(self) -> Accounts:
        self.folder = tempfile.TemporaryDirectory()
        return SqliteAccounts(Path(self.folder.name) / "budget.db")

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestMemoryRules = MemoryRules.TestCase
TestMemoryRules.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSqliteRules = SqliteRules.TestCase
TestSqliteRules.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)


# ---- one decision


async def test_a_reservation_is_made_in_all_accounts_or_in_none(make: Make) -> None:
    accounts = make()
    verdict = await accounts.reserve("c", 50, [charge("wide", 100), charge("narrow", 40)], now=START, lease=9)
    assert verdict.refused == 1
    assert [standing.taken for standing in verdict.standings] == [0, 0]
    assert await accounts.standings(now=START) == ()
    await accounts.aclose()


async def test_the_last_unit_can_be_taken_and_not_one_more(make: Make) -> None:
    accounts = make()
    assert (await accounts.reserve("c", 99, [charge()], now=START, lease=9)).granted
    assert not (await accounts.reserve("d", 2, [charge()], now=START, lease=9)).granted
    assert (await accounts.reserve("e", 1, [charge()], now=START, lease=9)).granted
    assert not (await accounts.reserve("f", 1, [charge()], now=START, lease=9)).granted
    await accounts.aclose()


async def test_a_slice_counts_until_the_latest_end_that_anybody_named(make: Make) -> None:
    """Two processes whose clocks differ, and a run that has been remembered anew."""
    accounts = make()
    for name, ends in (("c", 1_000), ("d", 500)):
        await accounts.reserve(name, 40, [charge(ends=START + ends)], now=START, lease=9_000)
    assert not (await accounts.reserve("e", 40, [charge()], now=START + 700, lease=9)).granted
    await accounts.aclose()


async def test_a_soft_limit_refuses_nothing(make: Make) -> None:
    accounts = make()
    verdict = await accounts.reserve("c", 500, [charge(hard=False)], now=START, lease=9)
    assert verdict.granted
    await accounts.aclose()


async def test_a_call_is_settled_once(make: Make) -> None:
    accounts = make()
    await accounts.reserve("c", 50, [charge()], now=START, lease=9)
    [standing] = await accounts.settle("c", 20, now=START)
    assert (standing.before, standing.spent, standing.reserved) == (0, 20, 0)
    assert await accounts.settle("c", 30, now=START) == ()
    assert await accounts.settle("never made", 30, now=START) == ()
    await accounts.aclose()


async def test_a_lapsed_reservation_is_spent_in_full_and_is_put_right_when_it_is_settled_after_all(make: Make) -> None:
    accounts = make()
    await accounts.reserve("c", 50, [charge()], now=START, lease=9)
    [standing] = await accounts.standings(now=START + 9)
    assert (standing.spent, standing.reserved) == (50, 0)
    [held] = await accounts.held(now=START + 9)
    assert held.lapsed
    [standing] = await accounts.settle("c", 20, now=START + 100)
    assert (standing.before, standing.spent, standing.reserved) == (50, 20, 0)
    await accounts.aclose()


async def test_what_has_ended_is_forgotten_a_week_later() -> None:
    accounts = MemoryAccounts()
    await accounts.reserve("settled", 50, [charge()], now=START, lease=9)
    await accounts.settle("settled", 20, now=START)
    await accounts.reserve("lost", 50, [charge()], now=START, lease=9)
    later = START + 1_000 + 2 * KEPT
    await accounts.standings(now=later)
    await accounts.standings(now=later + KEPT + 10)
    assert len(accounts) == 0


# ---- at the same time


async def test_tasks_never_take_more_than_there_is(make: Make) -> None:
    accounts = make()
    made = await asyncio.gather(
        *[accounts.reserve(f"c{number}", 7, [charge()], now=START, lease=9) for number in range(60)]
    )
    assert sum(verdict.granted for verdict in made) == 100 // 7
    assert all(standing.taken <= 100 for verdict in made for standing in verdict.standings)
    await accounts.aclose()


def test_threads_with_event_loops_of_their_own_never_take_more_than_there_is(make: Make) -> None:
    accounts = make()
    granted: list[int] = []

    async def spend(name: str) -> None:
        for number in range(40):
            call = f"{name}-{number}"
            verdict = await accounts.reserve(call, 3, [charge(limit=250)], now=START, lease=9)
            assert verdict.standings[0].taken <= 250
            if verdict.granted:
                granted.append(3)
                await accounts.settle(call, 3, now=START)
        await accounts.aclose()

    threads = [threading.Thread(target=lambda name=name: asyncio.run(spend(name))) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 249


def processes(path: Path, count: int, *words: str) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.spending", str(path), "150", *words]
    return [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(count)
    ]


async def test_four_processes_never_take_more_than_there_is_and_nothing_is_lost(tmp_path: Path) -> None:
    """600 calls that want more than there is: what the processes say they spent is what the file says, to the unit."""
    path = tmp_path / "budget.db"
    ended = [(process.communicate(timeout=100), process.returncode) for process in processes(path, 4)]
    assert [code for _, code in ended] == [0] * 4, ended
    accounts = SqliteAccounts(path)
    [standing] = await accounts.standings(now=NOW)
    await accounts.aclose()
    assert standing.reserved == 0
    assert LIMIT - 7 < standing.spent == sum(int(out) for (out, _), _ in ended) <= LIMIT


async def test_what_a_killed_process_had_reserved_is_spent_when_its_lease_is_over(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    [killed] = processes(path, 1, "crash")
    killed.communicate(timeout=100)
    assert killed.returncode != 0
    accounts = SqliteAccounts(path)
    [before] = await accounts.standings(now=NOW)
    [after] = await accounts.standings(now=NOW + 101)
    await accounts.aclose()
    assert before.reserved >= 7
    assert (after.spent, after.reserved) == (before.taken, 0)


# ---- the file


async def test_accounts_outlive_the_object_and_the_event_loop(tmp_path: Path) -> None:
    first = SqliteAccounts(tmp_path / "budget.db")
    await first.reserve("c", 50, [charge()], now=START, lease=9)
    await first.aclose()
    await first.settle("c", 20, now=START)  # a closed one opens again
    await first.aclose()
    second = SqliteAccounts(tmp_path / "budget.db")
    [standing] = await second.standings(now=START)
    await second.aclose()
    assert standing.spent == 20


async def test_what_is_to_be_settled_soon_is_settled_before_closing(tmp_path: Path) -> None:
    accounts = SqliteAccounts(tmp_path / "budget.db")
    await accounts.reserve("c", 50, [charge()], now=START, lease=9)
    accounts.settle_soon("c", 20, now=START)
    await accounts.aclose()
    [standing] = await accounts.standings(now=START)
    await accounts.aclose()
    assert standing.spent == 20


async def test_a_reservation_whose_caller_was_cancelled_on_the_way_is_undone(tmp_path: Path) -> None:
    accounts = SqliteAccounts(tmp_path / "budget.db")
    asking = asyncio.ensure_future(accounts.reserve("c", 50, [charge()], now=START, lease=9))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    accounts.settle_soon("c", 0, now=START)
    assert await accounts.held(now=START) == ()
    await accounts.aclose()


def test_a_virtual_clock_stands_still_while_the_file_is_written(tmp_path: Path) -> None:
    clock = VirtualClock()
    accounts = SqliteAccounts(tmp_path / "budget.db")

    async def main() -> None:
        async with asyncio.timeout(0.001):
            await accounts.reserve("c", 50, [charge()], now=START, lease=9)
        await accounts.aclose()

    clock.run(main())


async def test_a_file_that_others_hold_makes_the_budget_unavailable_and_what_was_to_be_settled_is_settled_later(
    tmp_path: Path,
) -> None:
    path = tmp_path / "budget.db"
    accounts = SqliteAccounts(path, patience=0.0)
    await accounts.reserve("c", 50, [charge()], now=START, lease=9)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    accounts.settle_soon("c", 20, now=START)
    with pytest.raises(BudgetUnavailableError, match=r"budget\.db"):
        await accounts.reserve("d", 50, [charge()], now=START, lease=9)
    other.execute("ROLLBACK")
    other.close()
    while await accounts.held(now=START):
        await asyncio.sleep(0)
    [standing] = await accounts.standings(now=START)
    assert standing.spent == 20
    await accounts.aclose()


async def test_the_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE things(name)")
    other.commit()
    other.close()
    accounts = SqliteAccounts(path)
    with pytest.raises(BudgetUnavailableError, match="another program"):
        await accounts.standings(now=START)
    await accounts.aclose()


@pytest.mark.parametrize("name", ["", ":memory:"])
def test_a_store_is_a_file(name: str) -> None:
    with pytest.raises(ConfigurationError, match="leave it out for memory"):
        SqliteAccounts(name)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_writes_through_a_connection_of_its_own(tmp_path: Path) -> None:
    accounts = SqliteAccounts(tmp_path / "budget.db")
    await accounts.reserve("parent", 10, [charge()], now=START, lease=9)
    child = os.fork()
    if child == 0:
        done = 1
        try:
            worker = threading.Thread(
                target=lambda: asyncio.run(accounts.reserve("child", 20, [charge()], now=START, lease=9))
            )
            worker.start()
            worker.join(30)
            done = 0
        finally:
            os._exit(done)
    assert os.waitpid(child, 0)[1] == 0
    [standing] = await accounts.standings(now=START)
    assert standing.reserved == 30
    await accounts.aclose()
