"""The waterfall of a page: a table with a line for each span, and for many of a kind one line together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from agentflow.cli.tracing.amounts import dollars, duration, tokens
from agentflow.cli.tracing.categories import WAITS, in_order
from agentflow.cli.tracing.markup import Html, element, joined
from agentflow.cli.tracing.notes import notes_of
from agentflow.cli.tracing.page_bars import UNITS, colour_class, span_bar
from agentflow.cli.tracing.rows import Group, Row, rows_of
from agentflow.cli.tracing.scale import Scale, scale_of
from agentflow.core.observability.trace.totals import Totals, totals
from agentflow.core.observability.trace.tree import Span, Trace

__all__ = ["anchor", "legend", "page_rows", "waterfall_table"]

_MOST_ROWS: Final = 1500
_DEEPEST: Final = 12
_LONGEST_NOTE: Final = 90
_APART: Final = 9.0  # per cent of the line that a moment's name takes
_SIGNS: Final = {
    "failed": ("✗", "failed"),
    "cancelled": ("■", "cancelled"),
    "refused": ("■", "refused"),
    "running": ("…", "still running"),
    "waiting": ("◷", "waiting"),
    "parked": ("◷", "parked, and run again"),
    "lost": ("†", "at work when its process died, and run again"),
    "unknown": ("?", "end unknown"),
}


def page_rows(trace: Trace) -> tuple[list[Row], int]:
    """The lines of a page, few enough for a browser, and how many were left out at the end."""
    rows: list[Row] = []
    for most in (40, 20, 10, 5, 3):
        rows = rows_of(trace, most=most)
        if len(rows) <= _MOST_ROWS:
            return rows, 0
    return rows[:_MOST_ROWS], len(rows) - _MOST_ROWS


def anchor(thing: Span | Group) -> str:
    """The name of a line's details."""
    return f"g{thing.spans[0].number}" if isinstance(thing, Group) else f"s{thing.number}"


def waterfall_table(trace: Trace, rows: Sequence[Row], left_out: int) -> Html:
    scale = scale_of(trace)
    head = element(
        "tr",
        element("th", "what", scope="col", class_="name"),
        element("th", _scale(trace, scale), scope="col", class_="when"),
        *(element("th", word, scope="col", class_="number") for word in ("time", "waits", "tokens", "cost")),
    )
    note = element("p", f"{left_out:,} further lines are left out; agentflow trace {trace.run_id} --json has all.")
    return joined(
        element(
            "table",
            element("caption", "Every span of the run, from the outside in", class_="unseen"),
            element("thead", head),
            element("tbody", (_line(scale, row) for row in rows)),
            class_="waterfall",
            id="lines",
        ),
        note if left_out else None,
    )


def legend(trace: Trace) -> Html:
    """The colours that there are on this page."""
    seen = {name: 1.0 for span in trace.walk() for name in span.breakdown}
    words = (joined(element("i", class_=f"dot {colour_class(each.name)}"), each.word) for each, _ in in_order(seen))
    return element("p", (element("span", word) for word in words), class_="legend")


def _scale(trace: Trace, scale: Scale) -> Html:
    """The times along the top."""
    marks = []
    last = -_APART
    for _, seconds in scale.ticks(int(UNITS / 12)):
        x = scale.share(scale.start + seconds) * 100
        if x > 91 or x < last + (_APART if scale.pauses else 0.0):
            continue
        last = x
        marks.append(element("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1=12, y2=20))
        marks.append(element("text", duration(seconds) if seconds else "0", x=f"{x:.2f}%", dx=3, y=13))
    return element("svg", marks, class_="scale", role="img", aria_label=f"from 0 to {duration(trace.duration)}")


def _line(scale: Scale, row: Row) -> Html:
    thing = row.thing
    return element(
        "tr",
        element("th", _name(row), scope="row", class_=f"name d{min(row.depth, _DEEPEST)}"),
        element("td", span_bar(thing, scale, critical=row.critical), class_="when"),
        *_numbers(thing),
        id=f"r-{anchor(thing)}",
        class_=" ".join(_classes(row)),
        data_depth=row.depth,
    )


def _classes(row: Row) -> Iterator[str]:
    yield "critical" if row.critical else "beside"
    if isinstance(row.thing, Group):
        yield "group"
        if row.thing.failed:
            yield "failed"
    else:
        yield (
            f"k-{row.thing.what}"
            if row.thing.what in ("flow", "node", "model", "attempt", "tool", "compensate", "pause")
            else "k-other"
        )
        yield row.thing.status


def _name(row: Row) -> Html:
    thing = row.thing
    parts: list[Html | None] = []
    if isinstance(thing, Group):
        parts.append(
            element("a", f"{row.label}{f', {thing.failed} failed' if thing.failed else ''}", href=f"#{anchor(thing)}")
        )
    else:
        sign, words = _SIGNS.get(thing.status, ("", ""))
        if sign:
            parts.append(element("span", sign, class_="sign", title=words, role="img", aria_label=words))
        parts.append(element("a", row.label, href=f"#{anchor(thing)}"))
        notes = [note for span in row.spans for note in notes_of(span)][:3]
        parts += [element("span", _cut(note.text), class_="note bad" if note.bad else "note") for note in notes]
    return joined(*parts)


def _cut(words: str) -> str:
    """What does not fit beside the bars stands whole in the details."""
    return words if len(words) <= _LONGEST_NOTE else f"{words[:_LONGEST_NOTE]}…"


def _numbers(thing: Span | Group) -> list[Html]:
    if isinstance(thing, Group):
        total = thing.totals()
        words = [f"~{duration(thing.usual)}", "", *_used(total)]
    else:
        waits = sum(seconds for name, seconds in thing.breakdown.items() if name in WAITS)
        used = ["", ""] if thing.what == "attempt" else _used(totals(thing.walk()))
        words = [duration(thing.duration), duration(waits) if waits >= 0.0005 else "", *used]
    return [element("td", word, class_="number") for word in words]


def _used(total: Totals) -> list[str]:
    if not (total.input_tokens or total.output_tokens or total.cost or total.priced or total.unpriced):
        return ["", ""]
    more = total.known_cost is not None and total.unpriced > 0
    return [f"{tokens(total.input_tokens)} → {tokens(total.output_tokens)}", dollars(total.known_cost, more=more)]
