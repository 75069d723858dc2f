"""What each model does with each sort of work: its quality, its words, its price, and how sure that is.

                small            large
    extract   .91 ±.02 $0.4m   .93 ±.01 $6m          a cell: segment × model
    answer    .62 ±.03 $0.9m   .88 ±.02 $14m

Quality is the mean score of the calls that a model answered there, weighted by 1 / propensity where the log has it
(Horvitz and Thompson's, normalised). Without propensities it is taken that which model answered was no matter of how
hard the question was; the proposals say so. A model's cost in a segment is that of all the segment's prompts at its
prices, with answers as long as its own are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from agentflow.llm.config.prices import Price, Rates
from agentflow.mcp.optimization.cost.table import Bools, Floats, Table

__all__ = ["FEWEST_OUTCOMES", "Cells", "Fold", "cells_of", "prompt_costs", "ratio_of_words"]

FEWEST_OUTCOMES: Final = 30
_FOLDS: Final = 5
_MILLION: Final = 1e6


@dataclass(frozen=True, eq=False)
class Fold:
    """Qualities as all other folds' runs show them, and as this one's do: these also without each of its groups."""

    learned: Floats
    held: Floats
    held_without: Floats
    outcomes: Floats

    def error(self, weights: Floats) -> float:
        """The standard error of Σ weights × held."""
        return _error(weights, self.held, self.held_without, self.outcomes)


@dataclass(frozen=True, eq=False)
class Cells:
    """Arrays of segments × models, unless said otherwise. `share` (by segment) is its part of the calls of all judged
    segments, `allowed` where there are outcomes enough and a price. `quality_without` are the qualities as they are
    without each group of runs (groups first). `present` is how a segment's calls are divided now. `cost` is US dollars
    a call."""

    table: Table
    share: Floats
    cost: Floats
    quality: Floats
    outcomes: Floats
    allowed: Bools
    quality_without: Floats
    present: Floats
    folds: tuple[Fold, ...]

    @cached_property
    def judged(self) -> Bools:
        """By segment: whether anything can be chosen there."""
        return _somewhere(self.allowed)

    def error(self, weights: Floats) -> float:
        """The standard error of Σ weights × quality."""
        return _error(weights, self.quality, self.quality_without, self.outcomes)


def _error(weights: Floats, quality: Floats, without: Floats, outcomes: Floats) -> float:
    """Clustered by run: the jackknife's, and never less than that of as many independent outcomes (Agresti and Coull's,
    so that thirty good ones are not taken for certainty). Infinite where there are no two groups."""
    groups = len(without)
    if groups < 2:
        return np.inf
    each = (np.where(weights != 0.0, without, 0.0) * weights[None]).sum(axis=(1, 2))
    clustered = (groups - 1) / groups * float(((each - each.mean()) ** 2).sum())
    counted = outcomes + 4.0
    middle = (np.nan_to_num(quality) * outcomes + 2.0) / counted
    independent = float((weights**2 * middle * (1.0 - middle) / counted).sum())
    return float(np.sqrt(max(clustered, independent)))


def cells_of(table: Table, *, fewest: int = FEWEST_OUTCOMES) -> Cells:
    """Reads the whole table, and once more without each group."""
    priced = np.array([_is_priced(table.prices.rates(name)) for name in table.models], dtype=bool)
    judged = table.counts & ~np.isnan(table.score)
    outcomes = _sums(table, judged, np.ones(len(table)))
    allowed = (outcomes >= fewest) & priced[None]
    quality, share = _quality(table, judged), _share(table, table.counts, allowed)
    left = [_quality(table, judged & table.without(group)) for group in range(table.groups)]
    return Cells(
        table=table,
        share=share,
        cost=_costs(table),
        quality=quality,
        outcomes=outcomes,
        allowed=allowed,
        quality_without=np.array([np.where(np.isnan(each), quality, each) for each in left]),
        present=_present(table, allowed),
        folds=tuple(_fold(table, judged, quality, number) for number in range(min(_FOLDS, table.groups))),
    )


def _fold(table: Table, judged: Bools, quality: Floats, number: int) -> Fold:
    """Where one part has no outcome, that of all stands in."""
    mine = table.group % _FOLDS == number

    def seen(these: Bools) -> Floats:
        part = _quality(table, these)
        return np.nan_to_num(np.where(np.isnan(part), quality, part))

    groups = range(number, table.groups, _FOLDS)
    return Fold(
        learned=seen(judged & ~mine),
        held=seen(judged & mine),
        held_without=np.array([seen(judged & mine & (table.group != group)) for group in groups]),
        outcomes=_sums(table, judged & mine, np.ones(len(table))),
    )


def _is_priced(rates: Rates | None) -> bool:
    return rates is not None and rates.output is not None


def _sums(table: Table, these: Bools, values: Floats) -> Floats:
    place = table.segment * len(table.models) + table.model
    size = len(table.segments) * len(table.models)
    summed = np.bincount(place[these], weights=values[these], minlength=size)
    return summed.astype(np.float64).reshape(len(table.segments), len(table.models))


def _quality(table: Table, judged: Bools) -> Floats:
    return _ratio(_sums(table, judged, table.weight * np.nan_to_num(table.score)), _sums(table, judged, table.weight))


def _share(table: Table, these: Bools, allowed: Bools) -> Floats:
    calls = np.bincount(table.segment[these], minlength=len(table.segments)) * _somewhere(allowed)
    share: Floats = calls / max(1, calls.sum())
    return share


def _somewhere(allowed: Bools) -> Bools:
    """By segment: whether any model is allowed."""
    found: Bools = np.asarray(allowed.any(axis=1))
    return found


def _present(table: Table, allowed: Bools) -> Floats:
    """How the calls of each judged segment are divided among the models now."""
    calls = np.where(_somewhere(allowed)[:, None], _sums(table, table.counts, np.ones(len(table))), 0.0)
    present: Floats = calls / np.maximum(1.0, calls.sum(axis=1, keepdims=True))
    return present


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = above / below
        return ratio


# ---- what a call would cost elsewhere ------------------------------------------------------------------------


def _costs(table: Table) -> Floats:
    """The mean of a segment's calls, each answered by each model."""
    calls = np.maximum(1, np.bincount(table.segment[table.counts], minlength=len(table.segments)))
    prompts, said = prompt_costs(table)
    words = _words(table, table.counts)
    means = [
        np.bincount(table.segment[table.counts], weights=prompts[table.counts, number], minlength=len(calls)) / calls
        + np.nan_to_num(words[:, number]) * said[number]
        for number in range(len(table.models))
    ]
    return np.array(means).T.reshape(len(table.segments), len(table.models))


def _words(table: Table, these: Bools) -> Floats:
    """Tokens of an answer, by segment and model; NaN where there is none."""
    return _ratio(_sums(table, these, table.output * table.weight), _sums(table, these, table.weight))


def ratio_of_words(table: Table, these: Bools) -> Floats:
    """Segments × from × to: how many tokens the one model says for each of the other's; 1 where nobody knows."""
    words = _words(table, these)
    ratio = _ratio(words[:, None, :], words[:, :, None])
    return np.where(np.isfinite(ratio), ratio, 1.0)


def prompt_costs(table: Table) -> tuple[Floats, Floats]:
    """What each call's prompt would cost at each model (calls × models), and each model's price of a token that it
    says. What is cached now is taken to be cached there as well, where that has a price."""
    cached = np.array([call.cached_tokens for call in table.log], dtype=np.float64)
    prompts = np.zeros((len(table), len(table.models)))
    said = np.zeros(len(table.models))
    for number, name in enumerate(table.models):
        price = table.prices.prices.get(name)
        usual = table.prices.rates(name)
        if price is not None and usual is not None:
            prompts[:, number] = _prompts(price, table.input, cached)
            said[number] = (usual.output or 0.0) / _MILLION
    return prompts, said


def _prompts(price: Price, tokens: Floats, cached: Floats) -> Floats:
    """By the step of the price list that each prompt's length falls into."""
    found = np.zeros(len(tokens))
    for above, rates in price.rates.get("", ()):
        if rates is not None:
            read = rates.input if rates.cached is None else rates.cached
            cost = ((tokens - cached) * rates.input + cached * read) / _MILLION
            found = np.where((tokens > above) | (above == 0), cost, found)
    return found
