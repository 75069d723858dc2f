"""The board in the terminal: sums on a line, models, flows, where the time goes, what failed last."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from agentflow.cli.tracing.amounts import count_of, dollars, duration, per_cent, spent, tokens
from agentflow.cli.tracing.board import Figures, Line
from agentflow.cli.tracing.categories import in_order

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = ["board_picture"]

_ROOM_FOR_ALL: Final = 100


def board_picture(
    figures: Figures, *, width: int, colours: bool, where: str, rows: int | None = None
) -> RenderableType:
    """`rows` bounds the models and the flows that are shown, the dearest first."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_head(figures, where, width), Text("")]
    if not figures.models and not figures.flows:
        parts.append(
            Text(
                "Nothing has happened within the last hour. What is recorded shows up here as it happens.", style="dim"
            )
        )
        return Group(*parts)
    parts.append(_table("model", figures.models, width, rows))
    parts.append(Text(""))
    parts.append(_table("flow", figures.flows, width, rows))
    if figures.waits:
        parts += [Text(""), _waits(figures, width, colours)]
    parts += [Text(""), *_troubles(figures, width)] if figures.troubles else []
    return Group(*parts)


def _head(figures: Figures, where: str, width: int) -> Text:
    from rich.text import Text

    flows, calls = sum(line.in_flight for line in figures.flows), sum(line.in_flight for line in figures.models)
    spent, unpriced = sum(line.dollars for line in figures.models), sum(line.unpriced for line in figures.models)
    per_minute = sum(line.per_minute for line in figures.models)
    ago = "never" if figures.last is None else f"{duration(max(0.0, figures.time - figures.last))} ago"
    wide = width >= _ROOM_FOR_ALL
    title = Text.assemble(
        ("agentflow top", "bold"),
        (f"  {datetime.fromtimestamp(figures.time):%H:%M:%S}  last event {ago}  {where}", "dim"),
    )
    sums = Text.assemble(
        (count_of(flows, "run"), "bold cyan" if flows else ""),
        " and " if wide else ", ",
        (count_of(calls, "model call" if wide else "call"), "bold cyan" if calls else ""),
        f" in flight · {per_minute:.0f}{' calls in the last minute' if wide else '/min'} · ",
        (dollars(spent, more=unpriced > 0), "bold"),
        " in the last hour" if wide else " in 1 h",
        (f" · {figures.waiting:,} waiting" if figures.waiting else "", "magenta"),
    )
    for line in (title, sums):
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join((title, sums))


def _table(what: str, lines: Sequence[Line], width: int, rows: int | None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    wide = width >= _ROOM_FOR_ALL
    model = what == "model"
    titles = ["now", "/min", "p50", "p95", *(["p99"] if wide else []), *(["first"] if model else []), "failed"]
    titles += [*(["in/min", "out/min"] if wide else []), "$ 1 h"]
    table = Table(
        Column(what, ratio=1, no_wrap=True, overflow="ellipsis"),
        *(Column(title, justify="right", no_wrap=True) for title in titles),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        expand=True,
        width=width,
    )
    for line in lines[:rows]:
        cells: list[Text | str] = [
            Text(f"{line.in_flight}" if line.in_flight else "", style="bold cyan"),
            f"{line.per_minute:.0f}",
        ]
        cells += [_latency(each, line.stale) for each in (line.p50, line.p95, *([line.p99] if wide else []))]
        cells += [_latency(line.first_token, line.stale)] if model else []
        cells.append(Text(_share(line), style="red" if line.failed else "dim"))
        cells += [tokens(round(line.tokens_in)), tokens(round(line.tokens_out))] if wide else []
        cells.append(spent(line.dollars, line.done, line.unpriced))
        table.add_row(Text(_clean(line.name)), *cells)
    if rows is not None and len(lines) > rows:
        table.add_row(Text(f"and {len(lines) - rows} more", style="dim"))
    return table


def _latency(seconds: float | None, stale: bool) -> Text:
    from rich.text import Text

    return Text("–" if seconds is None else duration(seconds), style="dim" if stale else "")


def _share(line: Line) -> str:
    return f"{line.failed:,} ({per_cent(line.failed, line.failed + line.done)})" if line.failed else "0"


def _waits(figures: Figures, width: int, colours: bool) -> Text:
    """One bar: what the flows of the last five minutes spent their time on."""
    from rich.text import Text

    whole = sum(figures.waits.values())
    parts = in_order(figures.waits)
    text = Text("time in flows, last 5 minutes\n", style="")
    at = 0.0
    for each, seconds in parts:
        until = at + seconds / whole * width
        cells = round(until) - round(at)
        text.append(("█" if colours else each.letter) * cells, style=each.terminal if colours else "")
        at = until
    text.append("\n")
    for each, seconds in sorted(parts, key=lambda part: -part[1])[:6]:
        text.append("██ " if colours else f"{each.letter} = ", style=each.terminal if colours else "")
        text.append(f"{each.word} {per_cent(seconds, whole)}   ")
    return text


def _troubles(figures: Figures, width: int) -> list[Text]:
    from rich.text import Text

    lines = [Text("failed last", style="dim")]
    for trouble in figures.troubles:
        text = Text.assemble(
            (f"{datetime.fromtimestamp(trouble.time):%H:%M:%S} ", "dim"),
            (f"{_clean(trouble.path)}: ", ""),
            (_clean(trouble.text), "red"),
        )
        text.truncate(width, overflow="ellipsis")
        lines.append(text)
    return lines


def _clean(words: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in words)
