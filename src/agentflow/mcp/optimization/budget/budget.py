"""A budget: so much may be spent in a day, a month, a run, by a tenant. Reserved before a call, settled after it.

    budget = Budget(per_day=20.0, per_run=0.50, per_tenant=Allowance(per_day=5.0), store=".agentflow/budget.db")
    model = BudgetedProvider(OpenAIProvider(…), budget)

        reserve (at most $0.031) ──▶ call ──▶ settle ($0.012)
            └─ no room: BudgetExceededError     └─ nobody knows what it cost: it stays reserved, and lapses into spent

A hard budget is never exceeded: what is spent and what calls under way may cost at most never add up to more than the
limit, however many tasks, threads and processes share the store. A soft one refuses nothing, and tells where a
threshold is passed. `store` is a path (SQLite, for the processes of a machine), any `Accounts` (Valkey), or None
(memory). A reservation is a lease of `lease` seconds: of a process that died it is spent in full when that is over.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agentflow.clock import Clock, SystemClock
from agentflow.core.accounts import Accounts, Held, Standing
from agentflow.errors import BudgetExceededError, BudgetUnavailableError, ConfigurationError
from agentflow.llm.caller import Caller
from agentflow.mcp.optimization.budget.limits import Allowance, Rules
from agentflow.mcp.optimization.budget.memory import MemoryAccounts
from agentflow.mcp.optimization.budget.money import allowed, charged, dollars
from agentflow.mcp.optimization.budget.sqlite import SqliteAccounts
from agentflow.mcp.optimization.budget.windows import Kind, windows

__all__ = ["AccountStatus", "Budget", "Mode", "Reservation", "Store"]

Mode: TypeAlias = Literal["hard", "soft"]
Store: TypeAlias = str | os.PathLike[str] | Accounts | None

_CLOCK: Final = SystemClock()
_NOTHING: Final = Allowance()


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """How an account stands, in US dollars. `reserved` is what calls under way may cost at most; `resets_at` is wall
    time, None for what is never reset; `hard` says whether the limit refuses."""

    account: str
    limit: float
    spent: float
    reserved: float
    resets_at: float | None
    hard: bool

    @property
    def left(self) -> float:
        return max(0.0, self.limit - self.spent - self.reserved)


class Budget:
    """See the module. `soft` are the fractions of a limit at which it warns; `window` says whether hours, days and
    months are those of the calendar in `time_zone`, or end now; `account` is the name under which others may spend the
    same money. Raises ConfigurationError for what cannot be. Safe to use from all tasks and threads."""

    def __init__(
        self,
        *,
        per_hour: float | None = None,
        per_day: float | None = None,
        per_month: float | None = None,
        per_run: float | None = None,
        per_tenant: Allowance = _NOTHING,
        per_flow: Allowance = _NOTHING,
        mode: Mode = "hard",
        soft: float | Sequence[float] = 0.8,
        window: Kind = "calendar",
        time_zone: str = "UTC",
        account: str = "budget",
        store: Store = None,
        lease: float = 900.0,
        clock: Clock = _CLOCK,
    ) -> None:
        kind = windows(window, time_zone)
        overall = Allowance(per_hour, per_day, per_month)
        self._rules = Rules(account, overall, per_tenant, per_flow, per_run, kind, mode == "hard")
        self._accounts = _opened(store)
        self._thresholds = _thresholds(soft, mode)
        self._lease = lease
        self._clock = clock
        if not lease > 0:
            raise ConfigurationError(f"budget: lease is a number of seconds above 0, not {lease!r}")

    def __repr__(self) -> str:
        return f"<budget {self.account}, {'hard' if self.is_hard else 'soft'}>"

    @property
    def account(self) -> str:
        return self._rules.account

    @property
    def is_hard(self) -> bool:
        return self._rules.hard

    @property
    def accounts(self) -> Accounts:
        return self._accounts

    @property
    def is_kept(self) -> bool:
        """Whether anything but this process knows its accounts."""
        return not isinstance(self._accounts, MemoryAccounts)

    async def reserve(self, amount: int, caller: Caller) -> Reservation:
        """Reserve `amount` (1e-9 US dollars) in all accounts of the caller. Raises BudgetExceededError, and
        BudgetUnavailableError where the store of a hard budget does not answer."""
        now = self._clock.time()
        charges = self._rules.charges(caller, now)
        self._check_single(amount, caller)
        call = os.urandom(12).hex()
        if not charges:
            return Reservation(self, call, amount, ())
        try:
            verdict = await self._accounts.reserve(call, amount, charges, now=now, lease=self._lease)
        except BudgetUnavailableError:
            if self.is_hard:
                raise
            return Reservation(self, call, amount, ())
        except BaseException:
            self._accounts.settle_soon(call, 0, now=now)  # it may have been made
            raise
        if verdict.refused is not None:
            raise self._exceeded(verdict.standings[verdict.refused], amount, now)
        return Reservation(self, call, amount, verdict.standings)

    def _check_single(self, amount: int, caller: Caller) -> None:
        """A call outside of any run is a run of its own."""
        limit = self._rules.per_run
        if limit is not None and caller.run_id is None and self.is_hard and amount > allowed(limit):
            raise BudgetExceededError(
                f"{self.account}/run:", limit=limit, spent=0.0, reserved=0.0, needed=dollars(amount)
            )

    def _exceeded(self, standing: Standing, amount: int, now: float) -> BudgetExceededError:
        resets = self._rules.resets(standing.account, now)
        return BudgetExceededError(
            standing.account,
            limit=dollars(standing.limit),
            spent=dollars(standing.spent),
            reserved=dollars(standing.reserved),
            needed=dollars(amount),
            resets_at=resets,
            retry_after=None if resets is None else max(0.0, resets - now),
        )

    # ---- settling

    async def settle(self, call: str, amount: int) -> tuple[Standing, ...]:
        """What a reservation has cost in the end. Where the store does not answer it is told later."""
        now = self._clock.time()
        try:
            return await self._accounts.settle(call, amount, now=now)
        except BudgetUnavailableError:
            self._accounts.settle_soon(call, amount, now=now)
            return ()

    def settle_soon(self, call: str, amount: int) -> None:
        """The same for cleaning up: nothing is waited for, and nothing raised."""
        self._accounts.settle_soon(call, amount, now=self._clock.time())

    async def correct(self, call: str, cost: float) -> bool:
        """What a call has cost of which nobody knew, in US dollars: `call` is its id, of the event or of `held`. False
        where it was settled before, or is forgotten (a week after it has lapsed)."""
        return bool(await self._accounts.settle(call, charged(cost), now=self._clock.time()))

    def passed(self, standing: Standing) -> float | None:
        """The highest threshold that an account has passed by what it was just told, None where it was passed
        before."""
        share, earlier = standing.spent / max(1, standing.limit), standing.before / max(1, standing.limit)
        return max((each for each in self._thresholds if earlier < each <= share), default=None)

    # ---- looking

    async def status(self) -> tuple[AccountStatus, ...]:
        """All accounts of this budget that have spent or reserved something, in the current windows."""
        now = self._clock.time()
        found = await self._accounts.standings(now=now)
        mine = f"{self.account}/"
        return tuple(
            AccountStatus(
                each.account,
                dollars(each.limit),
                dollars(each.spent),
                dollars(each.reserved),
                self._rules.resets(each.account, now),
                each.hard,
            )
            for each in sorted(found, key=lambda standing: standing.account)
            if each.account.startswith(mine)
        )

    async def held(self) -> tuple[Held, ...]:
        """Reservations that nobody has settled: calls under way, and those whose cost nobody knows."""
        mine = f"{self.account}/"
        found = await self._accounts.held(now=self._clock.time())
        return tuple(each for each in found if any(account.startswith(mine) for account in each.accounts))

    async def aclose(self) -> None:
        """What is to be settled is settled."""
        await self._accounts.aclose()


class Reservation:
    """What a call may cost at most, taken from its accounts. Settled once, by the first of the two."""

    __slots__ = ("_budget", "amount", "call", "is_open", "standings")

    def __init__(self, budget: Budget, call: str, amount: int, standings: tuple[Standing, ...]) -> None:
        self._budget = budget
        self.call = call
        self.amount = amount
        self.standings = standings
        self.is_open = bool(standings)

    async def settle(self, amount: int) -> tuple[Standing, ...]:
        if not self.is_open:
            return ()
        self.is_open = False
        return await self._budget.settle(self.call, amount)

    def settle_soon(self, amount: int) -> None:
        if self.is_open:
            self.is_open = False
            self._budget.settle_soon(self.call, amount)

    @property
    def tightest(self) -> Standing | None:
        """Of its accounts the one with the least room."""
        return min(self.standings, key=lambda each: each.limit - each.taken, default=None)


def _opened(store: Store) -> Accounts:
    if store is None:
        return MemoryAccounts()
    return SqliteAccounts(store) if isinstance(store, str | os.PathLike) else store


def _thresholds(soft: float | Sequence[float], mode: Mode) -> tuple[float, ...]:
    given = tuple(soft) if isinstance(soft, Sequence) else (soft,)
    if not all(0 < each <= 1 for each in given):
        raise ConfigurationError(f"budget: soft are fractions above 0 and at most 1, not {soft!r}")
    return tuple(sorted({*given, 1.0} if mode == "soft" else set(given)))
