"""The tables of the page: what was spent on what, the front in numbers, the prices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from agentflow.mcp.optimization.cost.advice.money import per_cent, usd
from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.markup import Html, element
from agentflow.mcp.optimization.cost.spend import SpendRow

__all__ = ["front_table", "prices_table", "spend_tables"]

_MOST: Final = 15
_WIDE: Final = 120.0


def spend_tables(findings: Findings) -> Iterator[Html]:
    """One table for each way to add up."""
    for name, rows in findings.spend.items():
        yield _spend_table(name, rows)


def _spend_table(name: str, rows: tuple[SpendRow, ...]) -> Html:
    most = max((row.cost for row in rows), default=0.0)
    whole = sum(row.cost for row in rows)
    shown, rest = rows[:_MOST], rows[_MOST:]
    lines = [_spend_row(row, most, whole) for row in shown]
    if rest:
        lines.append(_spend_row(_sum_of(rest), most, whole))
    further = (element("th", word, scope="col", class_="number more") for word in ("tokens in", "tokens out"))
    head = element("tr", *_titles(name, "cost", "", "share", "calls"), *further)
    return element("table", element("thead", head), element("tbody", *lines), class_="plot")


def _sum_of(rows: tuple[SpendRow, ...]) -> SpendRow:
    def total(name: str) -> int:
        return sum(getattr(row, name) for row in rows)

    return SpendRow(
        f"{len(rows):,} others",
        total("calls"),
        total("failed"),
        total("unpriced"),
        total("input_tokens"),
        total("output_tokens"),
        sum(row.cost for row in rows),
    )


def _spend_row(row: SpendRow, most: float, whole: float) -> Html:
    unknown = element("span", f" +{row.unpriced:,} unknown", class_="soft") if row.unpriced else None
    return element(
        "tr",
        element("th", row.key, scope="row"),
        element("td", usd(row.cost), unknown, class_="number"),
        element("td", _bar(row.cost, most), class_="when"),
        *_numbers(per_cent(row.cost, whole), f"{row.calls:,}"),
        *(element("td", _count(each), class_="number more") for each in (row.input_tokens, row.output_tokens)),
    )


def _bar(amount: float, most: float) -> Html:
    width = _WIDE * amount / most if most else 0.0
    return element(
        "svg",
        element("rect", x=0.0, y=2.0, width=width, height=12.0, rx=3.0, class_="amount"),
        viewBox=f"0 0 {_WIDE:g} 16",
        preserveAspectRatio="none",
        class_="bar",
        aria_hidden="true",
    )


def front_table(findings: Findings) -> Html:
    front = findings.front
    assert front is not None
    points = [*front.points, *front.single, *([front.present] if front.present else [])]
    lines = [
        element(
            "tr",
            element("th", point.name or "mix", scope="row"),
            *_numbers(
                usd(point.cost), f"{point.quality:.3f}", f"{point.low:.3f}", usd(point.point) if point.point else "–"
            ),
        )
        for point in points
    ]
    head = _head("", "a day", "mean score", "at least", "one point more, a day")
    return element("table", element("thead", head), element("tbody", *lines), class_="plot")


def prices_table(findings: Findings) -> Html:
    """US dollars per million tokens."""
    lines = []
    for name in sorted(findings.prices.prices):
        price = findings.prices.prices[name]
        rates, batch = price.usual, (price.rates.get("batch") or ((0, None),))[0][1]
        if rates is None:
            continue
        values = (rates.input, rates.output, rates.cached, rates.cache_write, rates.cache_write_1h)
        cells = ["?" if value is None else f"{value:g}" for value in values]
        half = "–" if batch is None else f"{batch.input:g} / {'?' if batch.output is None else f'{batch.output:g}'}"
        lines.append(element("tr", element("th", name, scope="row"), *_numbers(*cells, half)))
    head = _head("a million tokens", "in", "out", "cached", "written, minutes", "written, an hour", "batch")
    return element("table", element("thead", head), element("tbody", *lines), class_="plot")


def _head(first: str, *others: str) -> Html:
    return element("tr", *_titles(first, *others))


def _titles(first: str, *others: str) -> Iterator[Html]:
    yield element("th", first, scope="col")
    for other in others:
        yield element("th", other, scope="col", class_="number" if other else "when")


def _count(tokens: int) -> str:
    """12345 → "12.3k"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if tokens >= 0.9995 * size:
            return f"{tokens / size:.3g}{unit}"
    return str(tokens)


def _numbers(*values: str) -> Iterable[Html]:
    return (element("td", value, class_="number") for value in values)
