"""A run in the terminal: its answers, a tree with a bar for each span, and what the colours mean.

                              0 s       1 s       2 s
    digest                    ██████████████████████████   3.08 s   1.00 s   5.4k→720   $0.0369
    ├ read                    ███                          400 ms
    └ summarise                  █████████████████████     2.57 s   1.00 s   …

Where there are no colours, a letter stands for each: `oooollllggggg`. Lines end where the terminal ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentflow.cli.tracing.amounts import dollars, duration, per_cent, tokens
from agentflow.cli.tracing.answers import answers_to
from agentflow.cli.tracing.bars import cells_of
from agentflow.cli.tracing.categories import WAITS, category, in_order
from agentflow.cli.tracing.notes import notes_of
from agentflow.cli.tracing.rows import Group, Row, rows_of
from agentflow.cli.tracing.scale import Scale, scale_of
from agentflow.core.observability.trace.critical_path import stretches
from agentflow.core.observability.trace.totals import Totals, totals
from agentflow.core.observability.trace.tree import Span, Trace

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["picture", "waterfall"]

_SIGNS: Final = {
    "done": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "cancelled": ("■", "yellow"),
    "refused": ("■", "yellow"),
    "running": ("…", "bold cyan"),
    "waiting": ("◷", "bold magenta"),
    "parked": ("◷", "magenta"),
    "lost": ("†", "yellow"),
    "unknown": ("?", "yellow"),
}
_NARROWEST_BAR: Final = 14
_WIDEST_BAR: Final = 90
_ROOM_FOR_TOKENS: Final = 100
_GAP: Final = 2


def picture(
    trace: Trace, *, width: int, colours: bool, most: int | None = 8, height: int | None = None
) -> RenderableType:
    """All of it. `height` bounds the lines of the tree, of which the last are shown then."""
    from rich.console import Group as Lines
    from rich.text import Text

    answers = answers_to(trace)
    parts: list[RenderableType] = [_title(trace)]
    for question, answer in (("did ", answers.did), ("slow", answers.slow), ("cost", answers.cost)):
        parts.append(_hanging(question, answer, width))
    parts += [Text(""), waterfall(trace, width=width, colours=colours, most=most, height=height), Text("")]
    parts.append(_legend(trace, width, colours))
    return Lines(*parts)


def _title(trace: Trace) -> Text:
    from rich.text import Text

    sign, style = _SIGNS[trace.status]
    return Text.assemble((f"{sign} ", style), (_clean(trace.name), "bold"), (f"  run {trace.run_id}", "dim"))


def _hanging(question: str, answer: str, width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.width = width
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_row(Text(question, style="dim"), Text(_clean(answer)))
    return grid


# ---- the tree ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """What stands beside a bar."""

    time: str
    waits: str
    tokens: str
    cost: str


def waterfall(
    trace: Trace, *, width: int, colours: bool, most: int | None = 8, height: int | None = None
) -> RenderableType:
    """The tree with its bars."""
    from rich.console import Group as Lines

    shown = rows_of(trace, most=most)
    cut = max(0, len(shown) - height) if height is not None else 0
    lines = [_line(row.thing) for row in shown]
    columns = _columns(lines, width)
    names = max([len(row.guides) + len(row.label) + 2 for row in shown] + [10])
    beside = sum(each + _GAP for each in columns.values())
    bar = max(_NARROWEST_BAR, min(_WIDEST_BAR, width - beside - names - _GAP))
    name = max(8, min(names, width - beside - bar - _GAP))
    scale = scale_of(trace)
    drawn: list[Text] = [_head(scale, name, bar, columns)]
    if cut:
        drawn.append(_dim(f"… {cut:,} lines above"))
    for row, line in list(zip(shown, lines, strict=True))[cut:]:
        drawn.append(_drawn(scale, row, line, name, bar, columns, colours))
        drawn += _beneath(row, width)
    for each in drawn:
        each.no_wrap, each.overflow = True, "crop"
        each.truncate(width)
    return Lines(*drawn)


def _line(thing: Span | Group) -> _Line:
    if isinstance(thing, Group):
        return _Line(f"~{duration(thing.usual)}", "", *_used(thing.totals()))
    waits = sum(seconds for name, seconds in thing.breakdown.items() if name in WAITS)
    used = ("", "") if thing.what == "attempt" else _used(totals(thing.walk()))
    return _Line(duration(thing.duration), duration(waits) if waits >= 0.0005 else "", *used)


def _used(total: Totals) -> tuple[str, str]:
    if not (total.input_tokens or total.output_tokens or total.cost or total.unpriced):
        return "", ""
    cost = dollars(total.known_cost, more=total.known_cost is not None and total.unpriced > 0)
    return f"{tokens(total.input_tokens)}→{tokens(total.output_tokens)}", cost


def _columns(lines: Sequence[_Line], width: int) -> dict[str, int]:
    """The width of each column that has anything in it. Where there is little room, bars come before tokens."""
    found = {}
    for name in ("time", "waits", "tokens", "cost") if width >= _ROOM_FOR_TOKENS else ("time", "waits", "cost"):
        widest = max((len(getattr(line, name)) for line in lines), default=0)
        if widest:
            found[name] = max(widest, len(name))
    return found


def _head(ruler: Scale, name: int, bar: int, columns: Mapping[str, int]) -> Text:
    from rich.text import Text

    scale = [" "] * bar
    for at, seconds in ruler.ticks(bar):
        word = duration(seconds) if seconds else "0"
        if at + len(word) <= bar and all(sign == " " for sign in scale[max(0, at - 1) : at + len(word)]):
            scale[at : at + len(word)] = word
    titles = "".join(" " * _GAP + title.rjust(wide) for title, wide in columns.items())
    return Text(" " * (name + _GAP) + "".join(scale) + titles, style="dim")


def _drawn(scale: Scale, row: Row, line: _Line, name: int, bar: int, columns: Mapping[str, int], colours: bool) -> Text:
    from rich.text import Text

    text = Text()
    text.append(row.guides, style="dim")
    text.append_text(_called(row))
    text.truncate(name, overflow="ellipsis")
    text.pad_right(name - text.cell_len + _GAP)
    for cell in cells_of(row.thing, scale.share, bar):
        text.append_text(_cell(cell, row, colours))
    for column, wide in columns.items():
        style = {"time": "bold" if row.critical else "", "waits": "#ff8c1a"}.get(column, "")
        text.append(" " * _GAP + getattr(line, column).rjust(wide), style=style)
    return text


def _called(row: Row) -> Text:
    from rich.text import Text

    thing = row.thing
    if isinstance(thing, Group):
        return Text(_clean(row.label) + (f", {thing.failed} failed" if thing.failed else ""), style="italic")
    sign, style = _SIGNS[thing.status]
    text = Text()
    text.append("" if thing.status == "done" else f"{sign} ", style=style)
    text.append(_clean(row.label), style="bold" if row.critical else "")
    return text


def _cell(name: str | None, row: Row, colours: bool) -> Text:
    from rich.text import Text

    if name is None:
        return Text(" ")
    each = category(name)
    if not colours:
        return Text(each.letter.upper() if row.critical and isinstance(row.thing, Span) else each.letter)
    return Text("█" if row.critical else "━", style=each.terminal)


def _beneath(row: Row, width: int) -> Iterator[Text]:
    """The lines below a span: what went wrong in it, and what else there is to say."""
    from rich.text import Text

    if isinstance(row.thing, Group):
        return
    indent = "".join("  " if last else "│ " for last in row.lasts) + "  "
    for note in [note for span in row.spans for note in notes_of(span)]:
        text = Text()
        text.append(indent, style="dim")
        text.append(_clean(note.text), style="red" if note.bad else "yellow")
        text.truncate(width, overflow="ellipsis")
        yield text


def _dim(words: str) -> Text:
    from rich.text import Text

    return Text(words, style="dim")


# ---- what the colours mean -----------------------------------------------------------------------------------


def _legend(trace: Trace, width: int, colours: bool) -> RenderableType:
    """Where the run's time went, as amounts: the key to the bars at once."""
    from rich.text import Text

    spent: dict[str, float] = {}
    for stretch in stretches(trace.root) if trace.root else ():
        spent[stretch.category] = spent.get(stretch.category, 0.0) + stretch.duration
    seen = {name for span in trace.walk() for name in span.breakdown}
    text = Text()
    line = 0
    for each, seconds in in_order({**dict.fromkeys(sorted(seen), 0.0), **spent}):
        share = f"{duration(seconds)} {per_cent(seconds, trace.duration)}" if seconds else "(nothing waited for it)"
        said = f"{each.word} {share}"
        if line and line + len(said) + 5 > width:
            text.append("\n")
            line = 0
        text.append("██ " if colours else f"{each.letter} = ", style=each.terminal if colours else "")
        text.append(f"{said}   ", style="" if seconds else "dim")
        line += len(said) + 7
    return text


def _clean(words: str) -> str:
    """On one line, without signs that would move the cursor or change the colours."""
    return "".join(sign if sign.isprintable() else " " for sign in words)
