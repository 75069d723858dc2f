"""The pictures of docs/simulations.md, one a scenario. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from .measures import Outcome
from .scenarios import SCENARIOS
from .world import Scenario

__all__ = ["draw"]

_COLOURS: Final = ("#c44e52", "#4c72b0", "#55a868", "#8172b3", "#937860")  # the first one is the bare one
_GREY: Final = "#777777"
_SMOOTH: Final = 3  # seconds on either side
_END: Final = 5  # seconds that are not shown, since nobody comes any more
_STYLE: Final = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}


def draw(outcomes: Sequence[Outcome], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(_STYLE):
        for scenario in SCENARIOS:
            found = [outcome for outcome in outcomes if outcome.scenario == scenario.name]
            painter = {"calm": None, "greedy tenant": _tenants, "priorities": _priorities}.get(scenario.name, _timeline)
            if painter is not None:
                figure = painter(scenario, found)
                name = scenario.name.replace(" ", "-")
                figure.savefig(folder / f"simulation-{name}.png", dpi=110, metadata={"Software": None})
                plt.close(figure)


def _timeline(scenario: Scenario, outcomes: Sequence[Outcome]) -> Any:
    """Above what is answered, below what arrives at the provider, both in each second of the first run."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5.2), sharex=True, layout="constrained")
    seconds = int(scenario.seconds) - _END
    for axes, series in ((above, "good"), (below, "attempts")):
        for order, (outcome, colour) in enumerate(zip(outcomes, _COLOURS, strict=False)):
            values = _smooth(outcome.series[series])[: seconds + 1]
            axes.plot(values, color=colour, lw=1.4, label=outcome.variant, zorder=9 - order, clip_on=False)
        _spells(scenario, axes)
    demand = _smooth(outcomes[0].series["offered"])[: seconds + 1]
    above.plot(demand, color=_GREY, lw=0.9, ls=":", label="asked for")
    if scenario.terms.requests_per_minute:
        allowed = scenario.terms.requests_per_minute / 60
        for axes in (above, below):
            axes.axhline(allowed, color="black", lw=0.9, ls="--", label="allowed by the provider")
    above.set_title(f"{scenario.name}: answers in time")
    below.set_title("attempts that arrive at the provider")
    for axes in (above, below):
        axes.set_ylabel("a second")
        axes.set_ylim(bottom=0)
    below.set_xlabel("seconds")
    below.set_xlim(0, seconds)
    handles, labels = above.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _spells(scenario: Scenario, axes: Any) -> None:
    words = {"down": "down", "weak": "few places", "slow": "slow"}
    for spell in scenario.terms.spells:
        axes.axvspan(spell.start, spell.end, color="#eeeeee", zorder=0)
        axes.text(
            (spell.start + spell.end) / 2, 0.98, words[spell.what], transform=axes.get_xaxis_transform(),
            ha="center", va="top", color=_GREY, fontsize=8,
        )  # fmt: skip


def _tenants(scenario: Scenario, outcomes: Sequence[Outcome]) -> Any:
    """Of what each tenant asked for, the part that was answered."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    names = list(outcomes[0].tenants)
    _bars(axes, names, [[100 * each.tenants[name][1] / each.tenants[name][0] for name in names] for each in outcomes])
    axes.set_title("greedy tenant: how much of what each tenant asks for is answered")
    axes.set_ylabel("% of its requests")
    axes.set_ylim(0, 100)
    labels = [f"{outcome.variant} (Jain {outcome.fairness:.2f})" for outcome in outcomes]
    figure.legend(axes.containers, labels, loc="outside lower center", ncols=3)
    return figure


def _priorities(scenario: Scenario, outcomes: Sequence[Outcome]) -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    names = ["critical", "high", "normal", "low"]
    shares = [[100 * each.priorities[name][1] / each.priorities[name][0] for name in names] for each in outcomes]
    medians = [[_median(each.priority_latencies[name]) for name in names] for each in outcomes]
    _bars(left, names, shares)
    _bars(right, names, medians)
    left.set_title("priorities: answered")
    left.set_ylabel("% of its requests")
    left.set_ylim(0, 100)
    right.set_title("median time until the answer")
    right.set_ylabel("seconds")
    figure.legend(
        left.containers, [outcome.variant for outcome in outcomes], loc="outside lower center", ncols=len(outcomes)
    )
    return figure


def _bars(axes: Any, names: Sequence[str], groups: Sequence[Sequence[float]]) -> None:
    """One group of bars for each name, one bar in it for each of `groups`."""
    width = 0.8 / len(groups)
    colours = _COLOURS if len(groups) > 2 else _COLOURS[1:]
    for index, (values, colour) in enumerate(zip(groups, colours, strict=False)):
        places = [place + (index - (len(groups) - 1) / 2) * width for place in range(len(names))]
        axes.bar(places, values, width * 0.92, color=colour)
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0)


def _median(ordered: Sequence[float]) -> float:
    return ordered[len(ordered) // 2] if ordered else 0.0


def _smooth(values: Sequence[float]) -> list[float]:
    """A moving mean, shorter at both ends."""
    found = []
    for index in range(len(values)):
        window = values[max(0, index - _SMOOTH) : index + _SMOOTH + 1]
        found.append(sum(window) / len(window))
    return found
