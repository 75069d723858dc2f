"""Accounts in the memory of this process: exact among its tasks and threads, forgotten when it ends."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import partial
from typing import Final

from agentflow.core.accounts import Charge, Held, Standing, Verdict
from agentflow.core.robustness.turn import Turn

__all__ = ["KEPT", "MemoryAccounts"]

KEPT: Final = 7 * 86_400.0
"""Seconds for which a slice that has ended, and a reservation that has lapsed, can still be settled."""

_SWEEP: Final = 3_600.0  # seconds between two looks for what may be forgotten


class MemoryAccounts:
    """See `Accounts`. `len(accounts)` is how many slices and reservations it holds."""

    __slots__ = ("__weakref__", "_accounts", "_calls", "_known", "_leases", "_swept", "_turn")

    def __init__(self) -> None:
        self._accounts: dict[str, dict[int, _Slice]] = {}
        self._known: dict[str, Charge] = {}
        self._calls: dict[str, _Call] = {}
        self._leases: list[tuple[float, str]] = []
        self._turn = Turn()
        self._swept = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._accounts.values())) + len(self._calls)

    async def reserve(self, call: str, amount: int, charges: Sequence[Charge], *, now: float, lease: float) -> Verdict:
        with self._turn:
            before = [self._sums(charge.account, now)[0] for charge in charges]
            self._lapse(now)
            refused = next((at for at, charge in enumerate(charges) if self._full(charge, amount, now)), None)
            if refused is None:
                self._calls[call] = _Call(amount, now + lease, charges)
                heapq.heappush(self._leases, (now + lease, call))
                for charge in charges:
                    self._known[charge.account] = charge
                    held = self._slice(charge)
                    held.reserved += amount
            return Verdict(tuple(map(self._standing, charges, before, [now] * len(charges))), refused)

    async def settle(self, call: str, amount: int, *, now: float) -> tuple[Standing, ...]:
        with self._turn:
            return self._settle(call, amount, now)

    def settle_soon(self, call: str, amount: int, *, now: float) -> None:
        self._turn.soon(partial(self._settle_late, call, amount, now))

    async def standings(self, *, now: float) -> tuple[Standing, ...]:
        with self._turn:
            self._lapse(now)
            found = [self._standing(charge, 0, now) for charge in self._known.values()]
        return tuple(each for each in found if each.resets > now)

    async def held(self, *, now: float) -> tuple[Held, ...]:
        with self._turn:
            self._lapse(now)
            found = [
                Held(name, call.amount, call.until, call.lapsed, tuple(charge.account for charge in call.charges))
                for name, call in self._calls.items()
            ]
        return tuple(sorted(found, key=lambda held: held.until))

    async def aclose(self) -> None:
        """There is nothing to give back."""

    def _settle(self, call: str, amount: int, now: float) -> tuple[Standing, ...]:
        found = self._calls.get(call)
        before = [self._sums(charge.account, now)[0] for charge in found.charges] if found else []
        self._lapse(now)
        found = self._calls.pop(call, None)
        if found is None:
            return ()
        self._move(found, amount)
        return tuple(map(self._standing, found.charges, before, [now] * len(before)))

    def _settle_late(self, call: str, amount: int, now: float) -> None:
        self._settle(call, amount, now)

    def _lapse(self, now: float) -> None:
        """What nobody has settled in time is spent."""
        while self._leases and self._leases[0][0] <= now:
            _, name = heapq.heappop(self._leases)
            call = self._calls.get(name)
            if call is None:
                continue
            if call.lapsed:
                del self._calls[name]
                continue
            self._move(call, call.amount)
            call.lapsed = True
            heapq.heappush(self._leases, (now + KEPT, name))
        if now - self._swept > _SWEEP:
            self._forget(now)

    def _move(self, call: _Call, amount: int) -> None:
        for charge in call.charges:
            held = self._accounts.get(charge.account, {}).get(charge.slice)
            if held is not None:
                held.move(call, amount)

    def _forget(self, now: float) -> None:
        self._swept = now
        for account, slices in list(self._accounts.items()):
            for number in [number for number, each in slices.items() if each.ends + KEPT < now]:
                del slices[number]
            if not slices:
                del self._accounts[account]
                self._known.pop(account, None)

    def _full(self, charge: Charge, amount: int, now: float) -> bool:
        spent, reserved, _ = self._sums(charge.account, now)
        return charge.hard and spent + reserved + amount > charge.limit

    def _sums(self, account: str, now: float) -> tuple[int, int, float]:
        spent, reserved, ends = 0, 0, 0.0
        for each in self._accounts.get(account, _NONE).values():
            if each.ends > now:
                spent, reserved = spent + each.spent, reserved + each.reserved
                if each.ends > ends:
                    ends = each.ends
        return spent, reserved, ends

    def _standing(self, charge: Charge, before: int, now: float) -> Standing:
        spent, reserved, ends = self._sums(charge.account, now)
        return Standing(charge.account, charge.limit, charge.hard, before, spent, reserved, ends)

    def _slice(self, charge: Charge) -> _Slice:
        slices = self._accounts.setdefault(charge.account, {})
        found = slices.get(charge.slice)
        if found is None:
            found = slices[charge.slice] = _Slice(charge.ends)
        if charge.ends > found.ends:
            found.ends = charge.ends
        return found


class _Call:
    __slots__ = ("amount", "charges", "lapsed", "until")

    def __init__(self, amount: int, until: float, charges: Sequence[Charge]) -> None:
        self.amount = amount
        self.until = until
        self.charges = tuple(charges)
        self.lapsed = False


class _Slice:
    __slots__ = ("ends", "reserved", "spent")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.spent = 0
        self.reserved = 0

    def move(self, call: _Call, amount: int) -> None:
        """What was reserved is spent; where it has lapsed it was, and is put right."""
        if call.lapsed:
            self.spent += amount - call.amount
        else:
            self.reserved -= call.amount
            self.spent += amount


_NONE: Final[dict[int, _Slice]] = {}
