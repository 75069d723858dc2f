"""Accounts in a real server: exact among processes, and what a dead process had reserved is spent, never free."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.conftest import ROOT
from tests.support.account_rules import START, AccountRules
from tests.support.bench import Bench
from tests.support.programs import surroundings
from tests.support.spending import LIMIT, NOW
from tests.support.valkey_server import Server, running

from agentflow.core.accounts import Accounts, Charge
from agentflow.errors import BudgetExceededError, BudgetUnavailableError
from agentflow.integrations.valkey import ValkeyAccounts, ValkeyStore
from agentflow.llm.messages import Response, Usage
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.optimization.budget import Budget

pytestmark = pytest.mark.service

PATIENT = 5.0  # a time-out for tests that are not about it: a busy machine is no outage


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@asynccontextmanager
async def accounts_on(server: Server, key: str = "", **options: Any) -> AsyncIterator[ValkeyAccounts]:
    patience = options.pop("patience", 0.0)
    store = ValkeyStore(server.url, **{"timeout": PATIENT, **options})
    try:
        yield store.accounts(key or uuid.uuid4().hex, patience=patience)
    finally:
        await store.aclose()


def charge(account: str = "a/day", limit: int = 100, *, hard: bool = True) -> Charge:
    return Charge(account, 0, START + 1_000, limit, hard)


def test_random_reservations_and_settlements_are_those_of_the_model(server: Server) -> None:
    class Rules(AccountRules):
        lease = 1e6  # they go by the server's clock

        def keeper(self) -> Accounts:
            self.store = ValkeyStore(server.url, timeout=PATIENT)
            return self.store.accounts(uuid.uuid4().hex)

        def run(self, work: Any) -> Any:
            async def after_what_is_queued() -> Any:
                while len(self.store._outbox):
                    await asyncio.sleep(0.001)
                return await work

            return super().run(after_what_is_queued())

        def teardown(self) -> None:
            if hasattr(self, "store"):
                self.runner.run(self.store.aclose())
            super().teardown()

    quiet = settings(
        max_examples=10, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(Rules, settings=quiet)


async def test_a_reservation_is_made_in_all_accounts_or_in_none(server: Server) -> None:
    async with accounts_on(server) as accounts:
        verdict = await accounts.reserve("c", 50, [charge("wide", 100), charge("narrow", 40)], now=START, lease=9)
        assert verdict.refused == 1
        assert await accounts.standings(now=START) == ()


async def test_sums_of_a_million_dollars_are_exact_to_the_last_unit(server: Server) -> None:
    large = 999_999_999_999_999
    async with accounts_on(server) as accounts:
        assert (await accounts.reserve("c", large, [charge(limit=large)], now=START, lease=99)).granted
        [standing] = await accounts.settle("c", large - 1, now=START)
        assert standing.spent == large - 1
        assert (await accounts.reserve("d", 1, [charge(limit=large)], now=START, lease=99)).granted
        assert not (await accounts.reserve("e", 1, [charge(limit=large)], now=START, lease=99)).granted


async def test_a_lapsed_reservation_is_spent_and_put_right_when_it_is_settled_after_all(server: Server) -> None:
    async with accounts_on(server) as accounts:
        await accounts.reserve("c", 50, [charge()], now=START, lease=0.01)
        end = time.monotonic() + 10
        while not (await accounts.held(now=START))[0].lapsed:
            assert time.monotonic() < end
        [standing] = await accounts.standings(now=START)
        assert (standing.spent, standing.reserved) == (50, 0)
        [standing] = await accounts.settle("c", 20, now=START)
        assert (standing.before, standing.spent, standing.reserved) == (50, 20, 0)
        assert await accounts.held(now=START) == ()


async def test_a_settlement_that_overtakes_its_reservation_keeps_it_from_being_made(server: Server) -> None:
    async with accounts_on(server) as accounts:
        assert await accounts.settle("c", 0, now=START) == ()
        with pytest.raises(BudgetUnavailableError):
            await accounts.reserve("c", 50, [charge()], now=START, lease=9)
        assert await accounts.standings(now=START) == ()


async def test_a_reservation_whose_answer_was_lost_is_made_once(server: Server) -> None:
    async with accounts_on(server) as accounts:
        for _ in range(2):
            assert (await accounts.reserve("c", 60, [charge()], now=START, lease=9)).granted
        [standing] = await accounts.standings(now=START)
        assert standing.reserved == 60


async def test_processes_never_take_more_than_there_is_and_nothing_is_lost(server: Server) -> None:
    command = [sys.executable, "-m", "tests.support.spending", f"{server.url}#spending", "150"]
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=surroundings()
        )
        for _ in range(4)
    ]
    ended = [process.communicate(timeout=100) for process in running]
    assert [process.returncode for process in running] == [0] * 4, ended
    async with accounts_on(server, "spending") as accounts:
        [standing] = await accounts.standings(now=NOW)
    assert standing.reserved == 0
    assert LIMIT - 7 < standing.spent == sum(int(out) for out, _ in ended) <= LIMIT


async def test_while_the_server_is_away_a_hard_budget_refuses_and_what_was_to_be_settled_is_told_later(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as mortal:
        async with accounts_on(mortal, timeout=0.2) as accounts:
            while not (await accounts.reserve("c", 50, [charge()], now=START, lease=1_000)).granted:
                pass
            mortal.freeze()
            with pytest.raises(BudgetUnavailableError, match="does not answer"):
                await accounts.reserve("d", 50, [charge()], now=START, lease=1_000)
            accounts.settle_soon("c", 20, now=START)
            mortal.thaw()
            patient = ValkeyAccounts(accounts._remote, accounts._name, patience=30.0)
            assert (await patient.reserve("e", 10, [charge()], now=START, lease=1_000)).granted
            await patient.settle("e", 0, now=START)
            end = time.monotonic() + 30
            while True:
                assert time.monotonic() < end
                try:
                    if await accounts.held(now=START) == ():
                        break
                except BudgetUnavailableError:
                    await asyncio.sleep(0.01)
            [standing] = await accounts.standings(now=START)
            assert (standing.spent, standing.reserved) == (20, 0)


# ---- from models.yml


def test_two_registries_spend_the_same_money(server: Server, tmp_path: Path) -> None:
    yml = (
        f"defaults: {{shared: {{url_env: STORE_URL, prefix: p{uuid.uuid4().hex}}}}}\n"
        "models:\n  paid: {provider: toy, price: {input: 10, output: 100}, max_tokens: 200, budget: {per_day: 0.05}}\n"
    )
    answer = Response("fine", "m", "toy", usage=Usage(100, 200))

    async def spend(made: Bench) -> None:
        await made.ask("paid").timeout(3_600).execute()
        await made.registry.aclose()

    for expected in ("answered", "answered", "refused"):
        made = Bench(tmp_path, {"toy": ScriptedProvider(lambda _: answer)}, yml, environ={"STORE_URL": server.url})
        if expected == "answered":
            asyncio.run(spend(made))
        else:
            with pytest.raises(BudgetExceededError, match="paid/day"):
                asyncio.run(spend(made))


async def test_a_budget_in_code_takes_the_accounts_of_a_store(server: Server) -> None:
    async with accounts_on(server) as accounts:
        budget = Budget(per_day=1.0, store=cast("Accounts", accounts), account="search")
        assert await budget.status() == ()
