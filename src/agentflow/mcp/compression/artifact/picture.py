"""Size × quality × speed, as a picture: what is lost for what is saved, and what is gained in speed for it.

    write_picture(comparison, Path("artifacts.png"))      also .svg

On the left every artifact by its size, on the right by its speed; the height is its quality. A full dot is on the
front: no other artifact is as good in everything. A diamond is the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentflow.errors import MissingExtraError
from agentflow.mcp.compression.artifact.amounts import FORMS
from agentflow.mcp.compression.artifact.comparing import Column, Comparison, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["picture_of", "write_picture"]

_INK: Final = "#1c2230"
_SOFT: Final = "#5a6373"
_LINE: Final = "#e4e7ee"
_COLOURS: Final = ("#2f5fd0", "#1b7f4b", "#b42318", "#8a5a00", "#6b3fa0", "#0e7490", "#9d174d", "#4d7c0f")
_TITLES: Final = {
    "kl": "KL, nats a token (0: as the source)",
    "perplexity_rise": "rise of perplexity",
    "perplexity": "perplexity",
    "bytes": "size on disk",
    "tokens_per_second": "tokens a second",
}
_LEGEND: Final = "full dot: no other artifact is as good in everything · hollow: one is · diamond: the source"
# Where a name may stand beside its dot, in points: the first place where it covers nothing is taken.
_PLACES: Final = tuple(
    (x, y, side)
    for reach in (1, 2, 3)
    for x, y, side in (
        (8, 5, "left"), (-8, 5, "right"), (8, -12 * reach, "left"), (-8, -12 * reach, "right"),
        (8, 14 * reach, "left"), (-8, 14 * reach, "right"),
    )
)  # fmt: skip


def write_picture(comparison: Comparison, path: Path) -> None:
    """PNG, or SVG by the name's end. Raises MissingExtraError without matplotlib (extra `report`)."""
    path.write_bytes(picture_of(comparison, "svg" if path.suffix == ".svg" else "png"))


def picture_of(comparison: Comparison, kind: str = "png") -> bytes:
    """The file's bytes; equal comparisons give equal ones."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("the picture of size, quality and speed", "report")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = [column for column in (_bytes(comparison), comparison.speed) if column is not None]
    with mpl.rc_context({"svg.hashsalt": "agentflow", "svg.fonttype": "path"}):
        figure = Figure(figsize=(1.2 + 4.6 * len(axes), 4.8), dpi=144, layout="constrained")
        FigureCanvasAgg(figure)
        if comparison.quality is None:
            _say_nothing(figure)
        else:
            panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
            for panel, column in zip(panels, axes, strict=True):
                _draw(panel, comparison, column, comparison.quality)
            panels[0].set_ylabel(_title(comparison.quality), color=_SOFT)
            figure.draw_without_rendering()  # then the places are known
            for panel, column in zip(panels, axes, strict=True):
                _name(panel, comparison, column, comparison.quality)
        figure.supxlabel(_LEGEND, fontsize=8, color=_SOFT, x=0.01, ha="left")
        figure.suptitle(_headline(comparison), x=0.01, ha="left", color=_INK, fontweight="bold", fontsize=12)
        held = BytesIO()
        figure.savefig(held, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return held.getvalue()


def _bytes(comparison: Comparison) -> Column | None:
    return next((column for column in comparison.columns if column.name == "bytes"), None)


def _headline(comparison: Comparison) -> str:
    axes = "quality × size × speed" if comparison.speed is not None else "quality × size"
    return axes if comparison.source is None else f"{axes}, made from {comparison.source.name}"


def _say_nothing(figure: Figure) -> None:
    panel = figure.add_subplot()
    panel.set_axis_off()
    words = "no measure of quality that all of them have"
    panel.text(0.5, 0.5, words, ha="center", color=_SOFT, transform=panel.transAxes)


def _draw(panel: Axes, comparison: Comparison, across: Column, quality: Column) -> None:
    panel.set_xlabel(f"{_title(across)} ({'less' if across.better == 'low' else 'more'} is better)", color=_SOFT)
    panel.grid(visible=True, color=_LINE, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=_SOFT, labelsize=9)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.xaxis.set_major_formatter(lambda value, place: FORMS[across.form](value) if value >= 0 else "")
    panel.yaxis.set_major_formatter(lambda value, place: FORMS[quality.form](value))
    for row, colour, full in _marks(comparison):
        x, y = row.values.get(across.name), row.values.get(quality.name)
        if x is not None and y is not None:
            form = "D" if row is comparison.source else "o"
            panel.plot(x, y, form, color=colour, markerfacecolor=colour if full else "white", markersize=8, mew=1.8)
    panel.margins(x=0.16, y=0.14)
    panel.set_xlim(left=0.0)


def _marks(comparison: Comparison) -> Sequence[tuple[Row, str, bool]]:
    """A colour is an artifact's in every panel; a full dot is on the front."""
    found = [
        (row, _COLOURS[index % len(_COLOURS)], index in comparison.front) for index, row in enumerate(comparison.rows)
    ]
    return found if comparison.source is None else [(comparison.source, _SOFT, True), *found]


def _name(panel: Axes, comparison: Comparison, across: Column, quality: Column) -> None:
    """Write each name where it covers neither a dot nor another name, and stays within the panel if it can."""
    known = [each for each in _marks(comparison) if across.name in each[0].values and quality.name in each[0].values]
    spots = [panel.transData.transform((row.values[across.name], row.values[quality.name])) for row, _, _ in known]
    point = panel.figure.dpi / 72.0
    taken = [(x - 6 * point, y - 6 * point, x + 6 * point, y + 6 * point) for x, y in spots]
    frame = panel.get_window_extent()
    for (row, colour, _), (x, y) in zip(known, spots, strict=True):
        words = _label(comparison, row)
        wide, high = 5.3 * len(words) * point, 11 * point
        boxes = [
            (
                left := x + dx * point - (wide if side == "right" else 0),
                y + dy * point,
                left + wide,
                y + dy * point + high,
            )
            for dx, dy, side in _PLACES
        ]
        free = [index for index, box in enumerate(boxes) if not any(_over(box, other) for other in taken)]
        inside = [index for index in free if frame.x0 <= boxes[index][0] and boxes[index][2] <= frame.x1]
        best = (inside or free or [0])[0]
        taken.append(boxes[best])
        dx, dy, side = _PLACES[best]
        panel.annotate(
            words, (row.values[across.name], row.values[quality.name]), xytext=(dx, dy), textcoords="offset points",
            ha=side, color=colour, fontsize=9,
        )  # fmt: skip


def _label(comparison: Comparison, row: Row) -> str:
    """The runtime too, where the same artifact was measured in several."""
    names = [each.name for each in comparison.rows]
    words = f"{row.name}, {row.runtime}" if names.count(row.name) > 1 else row.name
    words = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
    words = words if len(words) <= 32 else f"{words[:31]}…"
    return words.replace("$", r"\$")  # which begins a formula there


def _over(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _title(column: Column) -> str:
    return _TITLES.get(column.name, column.title)
