"""What keepers of accounts have in common: random reservations, settlements and lapses against a list of calls.

class TestMemory(AccountRules.TestCase): ...        with `keeper()` returning the accounts to be tested
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentflow.core.accounts import Accounts, Charge

__all__ = ["START", "AccountRules"]

START = 1_700_000_000.0
WIDTH = 100  # seconds of a slice
LIMITS = {"a/day": 1_000, "b/day": 400, "roll/day": 700, "run": 500, "soft/day": 300}
COUNTS = {"roll/day": 4}  # slices of a rolling window


@dataclass
class Call:
    """A call as the model knows it."""

    name: str
    amount: int
    until: float
    charges: list[Charge]
    state: str = "open"
    settled: int = 0
    ends: dict[str, float] = field(default_factory=dict)


class AccountRules(RuleBasedStateMachine):
    """Times are given, so that leases lapse and windows end when the test says. For a keeper whose leases go by a clock
    of its own, `lease` is longer than any test."""

    lease = 50.0

    def keeper(self) -> Accounts:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.accounts = self.keeper()
        self.now = START
        self.calls: list[Call] = []
        self.overrun: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.accounts.aclose())
            self.runner.close()

    def charge(self, account: str) -> Charge:
        number = 0 if account == "run" else int(self.now // WIDTH)
        ends = self.now + 10_000 if account == "run" else (number + COUNTS.get(account, 0) + 1) * WIDTH
        return Charge(account, number, float(ends), LIMITS[account], not account.startswith("soft"))

    @rule(amount=st.integers(0, 450), names=st.sets(st.sampled_from(sorted(LIMITS)), min_size=1))
    def reserve(self, amount: int, names: set[str]) -> None:
        charges = [self.charge(name) for name in sorted(names)]
        self.lapse()
        expected = [self.sums(charge.account) for charge in charges]
        full = [
            charge.hard and sum(sums) + amount > charge.limit for charge, sums in zip(charges, expected, strict=True)
        ]
        name = f"call-{len(self.calls)}"
        verdict = self.run(self.accounts.reserve(name, amount, charges, now=self.now, lease=self.lease))
        assert verdict.refused == next((at for at, each in enumerate(full) if each), None)
        if verdict.granted:
            self.calls.append(Call(name, amount, self.now + self.lease, charges))
        for standing, charge in zip(verdict.standings, charges, strict=True):
            assert (standing.spent, standing.reserved) == self.sums(charge.account)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), share=st.floats(0, 1.2), waits=st.booleans())
    def settle(self, data: st.DataObject, share: float, waits: bool) -> None:
        call = data.draw(st.sampled_from(self.calls))
        amount = int(call.amount * share)
        self.lapse()
        known = call.state != "settled"
        if known:
            call.state, call.settled = "settled", amount
            if amount > call.amount:
                self.overrun |= {charge.account for charge in call.charges}
        if not waits:
            self.accounts.settle_soon(call.name, amount, now=self.now)
            return
        standings = self.run(self.accounts.settle(call.name, amount, now=self.now))
        assert [standing.account for standing in standings] == [charge.account for charge in call.charges if known]
        for standing in standings:
            assert (standing.spent, standing.reserved) == self.sums(standing.account)

    @rule(seconds=st.sampled_from([1.0, 30.0, 51.0, 100.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_hard_limit_is_exceeded(self) -> None:
        if hasattr(self, "runner"):
            self.lapse()
            for account in set(LIMITS) - self.overrun - {"soft/day"}:
                assert sum(self.sums(account)) <= LIMITS[account]

    @rule()
    def look(self) -> None:
        self.lapse()
        found = {each.account: each for each in self.run(self.accounts.standings(now=self.now))}
        for account in LIMITS:
            spent, reserved = self.sums(account)
            seen = found.get(account)
            assert (spent, reserved) == ((seen.spent, seen.reserved) if seen else (0, 0))
        held = {each.call: each.lapsed for each in self.run(self.accounts.held(now=self.now))}
        assert held == {call.name: call.state == "lapsed" for call in self.calls if call.state != "settled"}

    # ---- the model

    def lapse(self) -> None:
        for call in self.calls:
            if call.state == "open" and call.until <= self.now:
                call.state, call.settled = "lapsed", call.amount

    def sums(self, account: str) -> tuple[int, int]:
        """What is spent and reserved of it now, call by call."""
        ends: dict[int, float] = {}
        for call in self.calls:
            for charge in call.charges:
                if charge.account == account:
                    ends[charge.slice] = max(ends.get(charge.slice, 0.0), charge.ends)
        spent = reserved = 0
        for call in self.calls:
            for charge in call.charges:
                if charge.account == account and ends[charge.slice] > self.now:
                    spent += call.settled if call.state != "open" else 0
                    reserved += call.amount if call.state == "open" else 0
        return spent, reserved

    def run(self, work: Any) -> Any:
        return self.runner.run(work)
