"""What the log would have cost with other models: each call sent elsewhere, in part or whole.

    answer: large ──▶ 70 % large, 30 % small

A share that stays costs what the log says. One that goes costs its own prompt at the other's price, with an answer that
is longer or shorter as the other's answers in that segment are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agentflow.mcp.optimization.cost.cells import prompt_costs, ratio_of_words
from agentflow.mcp.optimization.cost.replay import State
from agentflow.mcp.optimization.cost.table import Floats, Ints, Table

__all__ = ["Rerouting", "mixed", "swapped"]


@dataclass(frozen=True, eq=False)
class Rerouting:
    """A change. `shares` is segments × from × to; each row adds up to 1, and what is not to be moved stays.

    The rest is worked out beforehand, for the `calls` that are moved: the share that `stays`, the shares that `go` to
    each model, what the prompt costs there, how many tokens are said here; by model, what a token costs that is said,
    and what a batch costs of the usual price.
    """

    shares: Floats
    calls: Ints
    stays: Floats
    go: Floats
    prompts: Floats
    words: Floats
    said: Floats
    batch: Floats

    def replay(self, table: Table, state: State) -> None:
        sent = state.sent[self.calls]
        calls = self.calls[sent]
        if not len(calls):
            return
        ratio = ratio_of_words(table, state.seen)[table.segment[calls], table.model[calls]]
        there = self.go[sent] * (self.prompts[sent] + self.words[sent, None] * ratio * self.said)
        here = self.stays[sent] * state.cost[calls]
        cost = here + there.sum(axis=1)
        batched = here * state.batch[calls] + (there * self.batch).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            state.batch[calls] = batched / cost
        state.cost[calls] = cost
        state.stays[calls] *= self.stays[sent]


def mixed(table: Table, mix: Floats) -> Rerouting:
    """All calls of a segment divided as `mix` (segments × models) says; a row of zeros leaves it as it is."""
    many = len(table.models)
    told = mix.sum(axis=1) > 0.0
    shares = np.where(told[:, None, None], mix[:, None, :], np.eye(many)[None])
    return _rerouting(table, np.broadcast_to(shares, (len(table.segments), many, many)))


def swapped(table: Table, swaps: dict[tuple[int, int], int]) -> Rerouting:
    """Calls of a segment to one model go to another one: (segment, from) → to."""
    shares = np.repeat(np.eye(len(table.models))[None], len(table.segments), axis=0)
    for (segment, model), other in swaps.items():
        shares[segment, model] = 0.0
        shares[segment, model, other] = 1.0
    return _rerouting(table, shares)


def _rerouting(table: Table, shares: Floats) -> Rerouting:
    prompts, said = prompt_costs(table)
    rows = np.array(shares)[table.segment, table.model]
    each = np.arange(len(table))
    stays = rows[each, table.model]
    rows[each, table.model] = 0.0
    calls = np.flatnonzero(stays < 1.0)
    batch = np.array([_batch(table, name) for name in table.models])
    return Rerouting(
        np.array(shares), calls, stays[calls], rows[calls], prompts[calls], table.output[calls], said, batch
    )


def _batch(table: Table, name: str) -> float:
    """What a batch costs, of the usual price; 1 where it has none."""
    price = table.prices.prices.get(name)
    steps = None if price is None else price.rates.get("batch")
    usual = table.prices.rates(name)
    rates = steps[0][1] if steps else None
    return rates.input / usual.input if rates is not None and usual is not None and usual.input else 1.0
