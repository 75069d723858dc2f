"""Accounts that calls are charged to before they are made, and settled in afterwards: what a keeper of them promises.

    reserve("c1", 40_000_000, [Charge("auto/day", …), Charge("auto/tenant:acme/day", …)])   ──▶  Verdict: granted
    settle("c1", 31_250_000)                                                               ──▶  what stands there now

        account    spent ▓▓▓▓▓▓▓▓▓▓ reserved ░░░░ room            limit
                         reserve ─▶ ░ └── settle ─▶ ▓ (and the rest is room again)

A reservation is made in all its accounts or in none, and is a lease: where nobody settles it in time it counts as
spent, in full, never as free. Settled later all the same, it is put right. Sums are integers of 1e-9 US dollars, so
that no order of additions changes them; times are wall time, seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["NANO", "Accounts", "Charge", "Held", "Standing", "Verdict"]

NANO = 1_000_000_000
"""How many units there are in a US dollar."""


class Charge(NamedTuple):
    """One account of a call. What is charged goes to one `slice` of time, which counts until `ends`: the account has
    spent what its slices say that have not ended. A calendar day is one slice, a rolling one is many.

    A call for which there is no room under a `hard` limit is refused; under another it is charged all the same.
    """

    account: str
    slice: int
    ends: float
    limit: int
    hard: bool = True


class Standing(NamedTuple):
    """How an account stands: what it had spent `before` the operation, and what is spent and reserved after it.
    `resets` is when the newest slice ends."""

    account: str
    limit: int
    hard: bool
    before: int
    spent: int
    reserved: int
    resets: float

    @property
    def taken(self) -> int:
        """What is not to be had any more: spent, or reserved."""
        return self.spent + self.reserved


class Verdict(NamedTuple):
    """Whether a reservation was made. `standings` are those of its accounts, in their order; `refused` is the index of
    the first that had no room."""

    standings: tuple[Standing, ...]
    refused: int | None = None

    @property
    def granted(self) -> bool:
        return self.refused is None


class Held(NamedTuple):
    """A reservation that nobody has settled. `lapsed` says that it counts as spent by now."""

    call: str
    amount: int
    until: float
    lapsed: bool
    accounts: tuple[str, ...]


class Accounts(Protocol):
    """Keeps accounts. Each of the three is one decision, whole or not at all, whoever else asks at the same time; they
    serve any number of tasks, threads and event loops. Raises BudgetUnavailableError where the keeper cannot be asked.

    `now` is the caller's wall time; a keeper with a clock of its own goes by that one.
    """

    async def reserve(self, call: str, amount: int, charges: Sequence[Charge], *, now: float, lease: float) -> Verdict:
        """Reserve `amount` in all accounts of `charges`, for `lease` seconds. `call` names it, and is new."""
        ...

    async def settle(self, call: str, amount: int, *, now: float) -> tuple[Standing, ...]:
        """It was this much in the end. Empty where `call` is not there, or has been settled before."""
        ...

    def settle_soon(self, call: str, amount: int, *, now: float) -> None:
        """The same for cleaning up: nothing is waited for, and nothing raised. A reservation that is only on its way is
        settled all the same."""
        ...

    async def standings(self, *, now: float) -> tuple[Standing, ...]:
        """Every account of which something counts."""
        ...

    async def held(self, *, now: float) -> tuple[Held, ...]:
        """What is not settled, the oldest first."""
        ...

    async def aclose(self) -> None:
        """What was to be settled soon is settled, and connections are given back."""
        ...
