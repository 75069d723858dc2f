"""Accounts in the store: a budget that all processes of all machines keep together. See core's `Accounts`.

    accounts = store.accounts("search")
    budget = Budget(per_day=20.0, account="search", store=accounts)

Nothing is decided without the store. Whoever asks while it is away waits `patience` seconds for it, then a hard budget
refuses (BudgetUnavailableError); what was to be settled is queued. So the limit holds as well as the server's memory
does: let it write to disk (`appendonly yes`), for a server that starts empty has forgotten what was spent. Windows go
by the clocks of the processes, which should agree to the second; leases by the server's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from agentflow.core.accounts import Charge, Held, Standing, Verdict
from agentflow.errors import BudgetUnavailableError
from agentflow.integrations.valkey.account_scripts import HELD, KEPT, RESERVE, SETTLE, STANDINGS
from agentflow.integrations.valkey.remote import Argument, Message, Remote
from agentflow.integrations.valkey.scripts import Script

__all__ = ["ValkeyAccounts"]

_PAUSE: Final = 0.05  # seconds between two questions to a store that did not answer


class ValkeyAccounts:
    """Made by `ValkeyStore.accounts`. `key` is what all who spend the same money have in common."""

    def __init__(self, remote: Remote, key: str, *, patience: float = 2.0) -> None:
        self._remote = remote
        self._name = key
        self._patience = patience

    def __repr__(self) -> str:
        return f"<shared accounts {self._name}>"

    async def reserve(self, call: str, amount: int, charges: Sequence[Charge], *, now: float, lease: float) -> Verdict:
        """Where no answer comes, or the caller is cancelled, what may have been reserved is given back."""
        arguments: list[Argument] = [call, str(amount), f"{lease:.6f}", f"{now:.6f}"]
        for charge in charges:
            arguments += [charge.account, str(charge.slice), f"{charge.ends:.6f}", str(charge.limit)]
            arguments.append("1" if charge.hard else "0")
        try:
            answer = await self._ask(RESERVE, call, arguments)
        except BaseException:
            self.settle_soon(call, 0, now=now)
            raise
        if int(answer[0]) < 0:
            raise self._away()
        standings = tuple(
            Standing(charge.account, charge.limit, charge.hard, *_sums(found))
            for charge, found in zip(charges, answer[1:], strict=True)
        )
        refused = int(answer[0])
        return Verdict(standings, refused - 1 if refused else None)

    async def settle(self, call: str, amount: int, *, now: float) -> tuple[Standing, ...]:
        try:
            return tuple(map(_standing, await self._ask(SETTLE, call, (call, str(amount), f"{now:.6f}"))))
        except BaseException:
            self.settle_soon(call, amount, now=now)
            raise

    def settle_soon(self, call: str, amount: int, *, now: float) -> None:
        arguments = (call, str(amount), f"{now:.6f}")
        self._remote.send(Message(SETTLE, self._keys(call), lambda: arguments))

    async def standings(self, *, now: float) -> tuple[Standing, ...]:
        return tuple(sorted(map(_standing, await self._ask(STANDINGS, "", (f"{now:.6f}",)))))

    async def held(self, *, now: float) -> tuple[Held, ...]:
        found = [_held(row) for row in await self._ask(HELD, "", ())]
        return tuple(sorted(found, key=lambda held: held.until))

    async def aclose(self) -> None:
        """The store is closed by whoever has made it."""

    async def _ask(self, script: Script, call: str, arguments: Sequence[Argument]) -> Sequence[Any]:
        """What the store answers, be it at a second try: the scripts bear being run twice. Where the caller is
        cancelled the question goes on, and what was asked for is told again."""
        clock = self._remote.clock
        end = clock.monotonic() + self._patience
        while True:
            answer: Sequence[Any] | None = await self._remote.ask(script, self._keys(call), arguments, undo=None)
            if answer is not None:
                return answer
            if clock.monotonic() >= end:
                raise self._away()
            await clock.sleep(_PAUSE)

    def _keys(self, call: str) -> tuple[str, ...]:
        return self._remote.keys("accounts", self._name, "calls", "leases", "names", f"gone:{call}")

    def _away(self) -> BudgetUnavailableError:
        return BudgetUnavailableError(
            f"budget {self._name}",
            "the store that processes share does not answer, so nobody knows what is left: look at the server, or use "
            "mode: soft",
            retry_after=1.0,
        )


def _sums(found: Sequence[Any]) -> tuple[int, int, int, float]:
    before, spent, reserved, ends = found
    return int(before), int(spent), int(reserved), float(ends)


def _standing(row: Sequence[Any]) -> Standing:
    limit, hard = _text(row[1]).split("|")
    return Standing(_text(row[0]), int(limit), hard == "1", *_sums(row[2:]))


def _held(row: Sequence[Any]) -> Held:
    name, packed, until = row
    call = json.loads(packed)
    lapsed = bool(call["lapsed"])
    moment = float(until) - (KEPT if lapsed else 0)
    return Held(_text(name), int(call["amount"]), moment, lapsed, tuple(account for account, _ in call["places"]))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
