"""How a training went, as data and as a picture.

target/distillation.json     {"settings": {…}, "losses": [3.1, …], "evaluations": [{"step": 0, "values": {…}}, …]}
draw(read(target), "curve.png")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentflow.errors import ArtifactError, MissingExtraError

if TYPE_CHECKING:
    from agentflow.mcp.compression.distillation.training import Course

__all__ = ["NAME", "Curve", "draw", "read", "write"]

NAME: Final = "distillation.json"
_SMOOTHED: Final = 20  # steps whose mean is drawn


@dataclass(frozen=True, slots=True)
class Curve:
    """`losses` of the steps 1, 2, …; `evaluations` by the step after which they were made."""

    settings: Mapping[str, Any]
    losses: tuple[float, ...]
    evaluations: Mapping[int, Mapping[str, float]]


def write(folder: Path, course: Course, settings: Mapping[str, object]) -> None:
    """Into `folder`, under its name."""
    whole = {
        "settings": dict(settings),
        "taken": course.taken,
        "best": course.best,
        "resumed": course.resumed,
        "losses": course.losses,
        "evaluations": [{"step": each.step, "values": dict(each.values)} for each in course.evaluations],
    }
    (folder / NAME).write_text(json.dumps(whole), encoding="utf-8")


def read(folder: str | Path) -> Curve:
    """Of a folder that a student was written to. Raises ArtifactError where it has none, or a damaged one."""
    try:
        found = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))
        return Curve(
            settings=found["settings"],
            losses=tuple(found["losses"]),
            evaluations={each["step"]: each["values"] for each in found["evaluations"]},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(folder, f"its {NAME} cannot be read: {error}") from error


def draw(curve: Curve, to: str | Path) -> None:
    """A picture (PNG, SVG or PDF, by the name's end) of the loss and of what was evaluated, over the steps.

    Raises MissingExtraError where matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError("a picture of a training", "report") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    smooth = _smoothed(curve.losses)
    axes.plot(range(1, len(smooth) + 1), smooth, linewidth=1, alpha=0.6, label=f"training loss, mean of {_SMOOTHED}")
    for name in sorted({name for values in curve.evaluations.values() for name in values}):
        points = [(step, values[name]) for step, values in curve.evaluations.items() if name in values]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"held-out {name}")
    axes.set_xlabel("step")
    axes.set_ylabel("nats a token, or a share")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(Path(to), dpi=120)


def _smoothed(losses: tuple[float, ...]) -> list[float]:
    windows = (losses[max(0, end - _SMOOTHED) : end] for end in range(1, len(losses) + 1))
    return [sum(window) / len(window) for window in windows]
