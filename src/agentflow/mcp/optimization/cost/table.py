"""A log as columns, for replays that go over it many times.

    UsageLog, PriceSnapshot  ──table_of──▶  Table: one entry a call in every array, `names` for what is numbered

Calls that failed or whose cost nobody knows are in it, but `counts` leaves them out: nothing is claimed about them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentflow.llm.messages import Usage
from agentflow.mcp.optimization.cost.call import Call
from agentflow.mcp.optimization.cost.forecast import GROUPS
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
from agentflow.mcp.optimization.cost.usage_log import UsageLog

__all__ = ["Bools", "Floats", "Ints", "Table", "table_of", "usage_of"]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

_SEED: Final = 20_261_127  # which run is in which group is chance, but the same each time


@dataclass(frozen=True, eq=False)
class Table:
    """`model`, `segment`, `tenant` are numbers into the tuples of names; `key` and `prefix` are -1 where unknown.

    `cost` is what the log says, else what the snapshot's price makes of the tokens; `batch` the share of it that a
    provider's batch API would ask, NaN where that has no price. `score` is NaN where nobody judged. `group` is the
    part of the runs that is left out together. `kept`: a part of the prompt was in the provider's cache, or put there.
    """

    log: UsageLog
    prices: PriceSnapshot
    models: tuple[str, ...]
    segments: tuple[str, ...]
    tenants: tuple[str, ...]
    runs: int
    groups: int
    at: Floats
    seconds: Floats
    group: Ints
    run: Ints
    model: Ints
    segment: Ints
    tenant: Ints
    key: Ints
    prefix: Ints
    prefix_tokens: Floats
    input: Floats
    output: Floats
    cost: Floats
    batch: Floats
    score: Floats
    weight: Floats
    counts: Bools
    cacheable: Bools
    kept: Bools

    def __len__(self) -> int:
        return len(self.at)

    @property
    def spent(self) -> float:
        """US dollars of the calls that count."""
        return float(self.cost[self.counts].sum())

    def without(self, group: int) -> Bools:
        """The calls that count, less those of a group."""
        left: Bools = self.counts & (self.group != group)
        return left


def table_of(log: UsageLog, prices: PriceSnapshot) -> Table:
    """Columns of the log. Takes about 10 µs a call."""
    calls = tuple(log)
    models, model = _numbered(call.model for call in calls)
    segments, segment = _numbered(call.segment for call in calls)
    tenants, tenant = _numbered(call.tenant for call in calls)
    run_names, run = _numbered(call.run or f"#{place}" for place, call in enumerate(calls))
    groups = max(1, min(GROUPS, len(run_names)))
    dealt = np.random.default_rng(_SEED).permutation(len(run_names)) % groups
    costs = _floats(_cost(call, prices) for call in calls)
    return Table(
        log=log,
        prices=prices,
        models=models,
        segments=segments,
        tenants=tenants,
        runs=len(run_names),
        groups=groups,
        at=_floats(call.at for call in calls),
        seconds=_floats(call.duration or 0.0 for call in calls),
        group=dealt[run] if len(run_names) else run,
        run=run,
        model=model,
        segment=segment,
        tenant=tenant,
        key=_keys((call.tenant, call.model, call.fingerprint) if call.fingerprint else None for call in calls),
        prefix=_keys((call.model, call.prefix) if call.prefix else None for call in calls),
        prefix_tokens=_floats(call.prefix_tokens for call in calls),
        input=_floats(call.input_tokens for call in calls),
        output=_floats(call.output_tokens for call in calls),
        cost=np.nan_to_num(costs),
        batch=_floats(_batch_share(call, prices) for call in calls),
        score=_floats(call.score for call in calls),
        weight=_floats(1.0 / call.propensity if call.propensity else 1.0 for call in calls),
        counts=~np.isnan(costs) & np.array([not call.failed for call in calls], dtype=bool),
        cacheable=np.array([call.may_be_cached for call in calls], dtype=bool),
        kept=np.array([bool(call.cached_tokens or call.cache_write_tokens) for call in calls], dtype=bool),
    )


def usage_of(call: Call) -> Usage:
    """Its tokens, as a price wants them."""
    return Usage(
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        cached_tokens=call.cached_tokens,
        cache_write_tokens=call.cache_write_tokens,
    )


def _cost(call: Call, prices: PriceSnapshot) -> float | None:
    return prices.cost(call.model, usage_of(call)) if call.cost is None else call.cost


def _batch_share(call: Call, prices: PriceSnapshot) -> float | None:
    usage = Usage(call.input_tokens, call.output_tokens)  # several batch lists have no price for what is cached
    usual, batch = prices.cost(call.model, usage), prices.cost(call.model, usage, batch=True)
    return batch / usual if usual and batch is not None else None


def _numbered(names: Iterable[str]) -> tuple[tuple[str, ...], Ints]:
    known: dict[str, int] = {}
    numbers = [known.setdefault(name, len(known)) for name in names]
    return tuple(known), np.array(numbers, dtype=np.int64)


def _keys(keys: Iterable[Hashable | None]) -> Ints:
    known: dict[Hashable, int] = {}
    return np.array([-1 if key is None else known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


def _floats(values: Iterator[float | None] | Sequence[float | None] | Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
