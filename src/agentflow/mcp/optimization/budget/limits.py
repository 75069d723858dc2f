"""What may be spent, by whom and in what time, and the accounts that a caller's call is charged to.

Allowance(per_day=5.0)     for each tenant (or flow)
Rules(per_day=20.0, per_run=0.5, per_tenant=Allowance(per_day=5.0)).charges(caller, now)
    ──▶  search/day    search/run:4f2a    search/tenant:acme/day
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import quote

from agentflow.core.accounts import Charge
from agentflow.errors import ConfigurationError
from agentflow.llm.caller import Caller
from agentflow.mcp.optimization.budget.money import MOST, allowed
from agentflow.mcp.optimization.budget.windows import FOR_EVER, Period, Windows

__all__ = ["Allowance", "Rules"]

_Amounts: TypeAlias = tuple[tuple[Period, int], ...]
_PERIODS: Final[tuple[Period, ...]] = ("hour", "day", "month")


@dataclass(frozen=True, slots=True)
class Allowance:
    """US dollars an hour, a day, a month; None is no limit. Raises ConfigurationError for what is no amount."""

    per_hour: float | None = None
    per_day: float | None = None
    per_month: float | None = None

    def __post_init__(self) -> None:
        for name in ("per_hour", "per_day", "per_month"):
            checked(name, getattr(self, name))

    def of(self, period: Period) -> float | None:
        found: float | None = getattr(self, f"per_{period}")
        return found

    @property
    def is_empty(self) -> bool:
        return all(self.of(period) is None for period in _PERIODS)


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of one budget. `account` begins the names of all its accounts; whoever uses the same name in the same
    store spends from the same money."""

    account: str
    overall: Allowance
    each_tenant: Allowance
    each_flow: Allowance
    per_run: float | None
    windows: Windows
    hard: bool
    _amounts: tuple[_Amounts, _Amounts, _Amounts] = field(init=False, repr=False)  # overall, of a flow, of a tenant

    def __post_init__(self) -> None:
        amounts = tuple(map(_amounts, (self.overall, self.each_flow, self.each_tenant)))
        object.__setattr__(self, "_amounts", amounts)
        checked("per_run", self.per_run)
        if not self.account:
            raise ConfigurationError("budget: account is a name, not an empty text")
        everyone = (self.overall, self.each_tenant, self.each_flow)
        if self.per_run is None and all(allowance.is_empty for allowance in everyone):
            raise ConfigurationError("budget: without a limit it is none: name per_day, per_month, per_run, …")

    def charges(self, caller: Caller, now: float) -> list[Charge]:
        """The accounts of a call that is made now. What has no tenant (or flow) is one tenant of its own; a call
        outside of any run is in no run's account."""
        overall, of_flow, of_tenant = self._amounts
        found = self._windowed("", overall, now)
        if self.per_run is not None and caller.run_id is not None:
            name = f"{self.account}/run:{_quoted(caller.run_id)}"
            found.append(Charge(name, 0, now + FOR_EVER, allowed(self.per_run), self.hard))
        if of_flow:
            found += self._windowed(f"/flow:{_quoted(caller.flow)}", of_flow, now)
        if of_tenant:
            found += self._windowed(f"/tenant:{_quoted(caller.tenant)}", of_tenant, now)
        return found

    def resets(self, account: str, now: float) -> float | None:
        """When there may be room again in an account; None for a run's, which is never reset."""
        for period in _PERIODS:
            if account.endswith(f"/{period}"):
                return self.windows.place(period, now).resets
        return None

    def _windowed(self, whose: str, amounts: _Amounts, now: float) -> list[Charge]:
        found: list[Charge] = []
        for period, limit in amounts:
            number, ends, _ = self.windows.place(period, now)
            found.append(Charge(f"{self.account}{whose}/{period}", number, ends, limit, self.hard))
        return found


def _amounts(allowance: Allowance) -> _Amounts:
    found: list[tuple[Period, int]] = []
    for period in _PERIODS:
        limit = allowance.of(period)
        if limit is not None:
            found.append((period, allowed(limit)))
    return tuple(found)


def checked(name: str, amount: float | None) -> None:
    """Raises ConfigurationError."""
    if amount is not None and not (0 < amount <= MOST and math.isfinite(amount)):
        raise ConfigurationError(f"budget: {name} is above 0 and at most {MOST:,.0f} US dollars, not {amount!r}")


@lru_cache(maxsize=1_024)
def _quoted(name: str | None) -> str:
    """A tenant may be called anything: not even one called `a/day` shall share another's account."""
    return quote(name or "", safe="@.")
