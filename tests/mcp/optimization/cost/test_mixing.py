"""The linear program: the cheapest mix, what a point of quality costs, and that nobody is flattered."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from tests.support.cost_traffic import QUALITY, Traffic

from agentflow.mcp.optimization.cost.cells import Cells, cells_of
from agentflow.mcp.optimization.cost.mixing import Goal, best_reachable, cheapest, front, present_mix, solved
from agentflow.mcp.optimization.cost.table import table_of

ANY = Goal(0.0)


@pytest.fixture(scope="module")
def cells(traffic: Traffic) -> Cells:
    return cells_of(table_of(traffic.log, traffic.prices))


def test_no_mix_on_a_grid_is_cheaper(cells: Cells) -> None:
    """Every way to give each segment to one model or to two by halves."""
    mix = solved(cells, 0.9, ANY)
    assert mix is not None
    assert mix.quality == pytest.approx(0.9)
    rows = []
    for segment in np.flatnonzero(cells.judged):
        models = np.flatnonzero(cells.allowed[segment])
        pairs = {tuple(sorted(pair)) for pair in product(models, models)}
        rows.append([(cells.share[segment] * cells.quality[segment, list(pair)].mean(),
                      cells.share[segment] * cells.cost[segment, list(pair)].mean()) for pair in pairs])  # fmt: skip
    costs = [sum(c for _, c in way) for way in product(*rows) if sum(q for q, _ in way) >= 0.9]
    assert costs
    assert mix.cost <= min(costs) + 1e-12


def test_shares_of_a_segment_add_up_to_one(cells: Cells) -> None:
    mix = solved(cells, 0.9, ANY)
    assert mix is not None
    assert mix.shares[cells.judged].sum(axis=1) == pytest.approx(1.0)
    assert (mix.shares[~cells.allowed] == 0.0).all()


@pytest.mark.parametrize("floor", [0.86, 0.88, 0.9, 0.91, 0.92])
def test_the_dual_is_what_a_little_more_quality_costs(cells: Cells, floor: float) -> None:
    step = 1e-5
    here, more = solved(cells, floor, ANY), solved(cells, floor + step, ANY)
    assert here is not None
    assert more is not None
    assert here.price == pytest.approx((more.cost - here.cost) / step, rel=1e-6)
    assert here.price > 0.0


def test_more_quality_never_costs_less_and_each_point_more_than_the_last(cells: Cells) -> None:
    points = front(cells)
    assert np.diff([point.cost for point in points]).min() >= -1e-12
    assert np.diff([point.price for point in points]).min() >= -1e-9


def test_what_cannot_be_reached_is_not_proposed(cells: Cells) -> None:
    top = best_reachable(cells, ANY)
    assert top is not None
    assert solved(cells, top.quality + 0.01, ANY) is None
    assert cheapest(cells, Goal(top.quality)) is None


def test_what_is_proposed_is_good_enough_for_sure(cells: Cells) -> None:
    mix = cheapest(cells, Goal(0.87))
    assert mix is not None
    assert mix.low >= 0.87
    assert mix.quality > mix.low
    dearest = best_reachable(cells, ANY)
    assert dearest is not None
    assert mix.cost < dearest.cost


def true_quality(cells: Cells, shares: np.ndarray) -> float:
    names = [segment.partition("/")[2] for segment in cells.table.segments]
    table = np.array([[QUALITY[name][model] for model in cells.table.models] for name in names])
    return float((cells.share[:, None] * shares * table).sum())


def test_a_mix_is_not_flattered_by_the_outcomes_that_it_was_chosen_by() -> None:
    """Over logs of one company: what is told of a mix is on average what it is, and seldom is it worse than promised;
    the same mixes by the outcomes that they were chosen by look better than they are."""
    honest, flattered, broken = [], [], 0
    for seed in range(14):
        drawn = Traffic.drawn(seed=900 + seed, runs=300)
        cells = cells_of(table_of(drawn.log, drawn.prices))
        now = present_mix(cells)
        assert now is not None
        mix = cheapest(cells, Goal(now.quality - 0.04, today=now.shares))
        by_itself = solved(cells, now.quality - 0.02, ANY)
        assert by_itself is not None
        flattered.append(by_itself.quality - true_quality(cells, by_itself.shares))
        if mix is not None:
            honest.append(mix.quality - now.quality - true_quality(cells, mix.shares) + true_quality(cells, now.shares))
            broken += true_quality(cells, mix.shares) < true_quality(cells, now.shares) - 0.04
    assert len(honest) >= 5
    assert broken <= 2  # of fourteen, at 95%
    assert np.mean(honest) < np.mean(flattered)
    assert np.mean(flattered) > 0.005
