"""The front as a picture (PNG): what every quality costs, each model alone, today, and what is proposed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from agentflow.errors import MissingExtraError
from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.page_front import labels, marks_of, proposed_point

__all__ = ["write_front"]

_INK: Final = "#1c2230"
_SOFT: Final = "#5a6373"
_ACCENT: Final = "#2f5fd0"
_MARKS: Final = {"today": "#8a5a00", "proposed": "#1b7f4b"}


def write_front(findings: Findings, path: Path) -> None:
    """Where nothing was judged, the picture says so. Raises MissingExtraError without matplotlib."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("the picture of quality and cost", "report")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.8), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("US dollars a day", color=_SOFT)
    axes.set_ylabel("mean score", color=_SOFT)
    axes.grid(visible=True, color="#e4e7ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_SOFT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    front = findings.front
    if front is None:
        axes.text(0.5, 0.5, "nothing was judged", ha="center", color=_SOFT, transform=axes.transAxes)
    else:
        costs, qualities = [each.cost for each in front.points], [each.quality for each in front.points]
        axes.fill_between(costs, [each.low for each in front.points], qualities, color=_ACCENT, alpha=0.12, linewidth=0)
        axes.plot(costs, qualities, color=_ACCENT, linewidth=2.0, label="cheapest mixes")
        marks = marks_of(front, proposed_point(findings))
        for mark in marks:
            axes.plot(mark.cost, mark.quality, "o", color=_MARKS.get(mark.name, _SOFT), markersize=7)
        axes.set_xlim(left=0.0)
        axes.margins(x=0.12)
        figure.draw_without_rendering()  # then the places are known
        places = [axes.transData.transform((mark.cost, mark.quality)) * 72.0 / figure.dpi for mark in marks]
        sides = labels([(float(x), -float(y)) for x, y in places], figure.get_figwidth() * 72.0)
        for mark, (right, below) in zip(marks, sides, strict=True):
            axes.annotate(
                mark.name,
                (mark.cost, mark.quality),
                xytext=(8 if right else -8, -14 if below else 6),
                ha="left" if right else "right",
                textcoords="offset points",
                color=_INK,
                fontsize=9,
            )
        axes.legend(frameon=False, loc="lower right")
    axes.set_title("What quality costs", loc="left", color=_INK, fontweight="bold")
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
