"""The sums of a page: time by category, money and tokens by model, what each node took, calls at work over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agentflow.cli.tracing.amounts import dollars, duration, per_cent, tokens
from agentflow.cli.tracing.categories import WAITS, in_order
from agentflow.cli.tracing.markup import Html, element, joined
from agentflow.cli.tracing.page_bars import UNITS, colour_class, share_bar
from agentflow.cli.tracing.scale import scale_of
from agentflow.core.observability.attribution import Parts, merged
from agentflow.core.observability.trace.critical_path import stretches
from agentflow.core.observability.trace.totals import Totals, by_model, place_of, totals, totals_by
from agentflow.core.observability.trace.tree import Trace

__all__ = ["calls_at_work", "models_table", "nodes_table", "spent_on", "time_table"]

_MOST: Final = 100


def spent_on(trace: Trace) -> dict[str, float]:
    """Seconds of the run by category, along the critical path."""
    spent: dict[str, float] = {}
    for stretch in stretches(trace.root) if trace.root else ():
        spent[stretch.category] = spent.get(stretch.category, 0.0) + stretch.duration
    return spent


def time_table(trace: Trace) -> Html:
    """The key to all bars, and the plot of time by category."""
    spent = spent_on(trace)
    beside: Parts = merged(*(span.breakdown for span in trace.walk() if span.what == "model"))
    most = max([*spent.values(), 1e-12])
    rows = []
    for each, _ in in_order({**beside, **spent}):
        seconds = spent.get(each.name, 0.0)
        rows.append(
            element(
                "tr",
                element("th", element("i", class_=f"dot {colour_class(each.name)}"), each.word, scope="row"),
                element("td", _bar(seconds / most, colour_class(each.name)), class_="when"),
                element("td", duration(seconds), class_="number"),
                element("td", per_cent(seconds, trace.duration), class_="number"),
                element(
                    "td", duration(beside.get(each.name, 0.0)) if beside.get(each.name) else "", class_="number dim"
                ),
            )
        )
    head = element(
        "tr",
        element("th", "the run waited for", scope="col"),
        element("th", "", scope="col", class_="when"),
        element("th", "time", scope="col", class_="number"),
        element("th", "share", scope="col", class_="number"),
        element(
            "th",
            "all calls",
            scope="col",
            class_="number",
            title="the same over all model calls, those side by side added up",
        ),
    )
    return element("table", element("thead", head), element("tbody", rows), class_="plot", id="times")


def _bar(share: float, colour: str) -> Html:
    wide = max(0.0, min(1.0, share)) * UNITS
    return element(
        "svg",
        element("rect", class_=colour, x=0, y=2, width=max(wide, 1.0 if share else 0.0), height=12),
        class_="bar",
        viewBox=f"0 0 {UNITS:.0f} 16",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


# ---- models --------------------------------------------------------------------------------------------------


def models_table(trace: Trace) -> Html | None:
    """Cost and tokens by model."""
    models = totals_by(trace, by_model)
    if not models:
        return None
    dearest = max(each.cost for each in models.values())
    longest = max(each.input_tokens + each.output_tokens for each in models.values()) or 1
    rows = [_model(name, each, dearest, longest) for name, each in list(models.items())[:_MOST]]
    words = ("model", "calls", "failed", "cost", "", "tokens read → written", "", "time in calls")
    head = element(
        "tr",
        *(
            element("th", word, scope="col", class_="number" if at in (1, 2, 3, 7) else None)
            for at, word in enumerate(words)
        ),
    )
    key = element(
        "p",
        *(joined(element("i", class_=f"dot {colour}"), f"{word}  ") for colour, word in _TOKENS),
        class_="key",
    )
    return joined(element("table", element("thead", head), element("tbody", rows), class_="plot", id="models"), key)


_TOKENS: Final = (
    ("t-input", "read"),
    ("t-cached", "read from the provider's cache"),
    ("t-output", "written"),
    ("t-reasoning", "thought"),
)


def _model(name: str, used: Totals, dearest: float, longest: int) -> Html:
    more = used.known_cost is not None and used.unpriced > 0
    return element(
        "tr",
        element("th", name, scope="row"),
        element("td", f"{used.calls:,}", class_="number"),
        element("td", f"{used.failed:,}" if used.failed else "", class_="number bad"),
        element("td", dollars(used.known_cost, more=more), class_="number"),
        element("td", _bar(used.cost / dearest if dearest else 0.0, "t-cost"), class_="when"),
        element("td", f"{tokens(used.input_tokens)} → {tokens(used.output_tokens)}"),
        element("td", _token_bar(used, longest), class_="when"),
        element("td", duration(used.seconds), class_="number"),
    )


def _token_bar(used: Totals, longest: int) -> Html:
    cached, thought = min(used.cached_tokens, used.input_tokens), min(used.reasoning_tokens, used.output_tokens)
    counts = (used.input_tokens - cached, cached, used.output_tokens - thought, thought)
    x, pieces = 0.0, []
    for (colour, word), count in zip(_TOKENS, counts, strict=True):
        wide = count / longest * UNITS
        pieces.append(
            element("rect", element("title", f"{word} {count:,}"), class_=colour, x=x, y=2, width=wide, height=12)
        )
        x += wide
    return element(
        "svg", pieces, class_="bar", viewBox=f"0 0 {UNITS:.0f} 16", preserveAspectRatio="none", aria_hidden="true"
    )


def calls_at_work(trace: Trace) -> Html | None:
    """How many model calls were at work at each moment, as steps below the waterfall's scale."""
    calls = [span for span in trace.walk() if span.what == "model"]
    if not calls or trace.duration <= 0.0:
        return None
    changes = sorted([(span.start, 1) for span in calls] + [(span.end, -1) for span in calls])
    scale = scale_of(trace)
    high, now, steps = 0, 0, []
    for at, change in changes:
        now += change
        high = max(high, now)
        steps.append((scale.share(at) * UNITS, now))
    path = ["M0,40"]
    before = 0
    for x, count in steps:
        path.append(f"H{x:.1f}")
        if count != before:
            path.append(f"V{40 - count / high * 36:.1f}")
            before = count
    area = element(
        "path", element("title", f"at most {high} at once"), d=" ".join([*path, f"H{UNITS:.0f}", "V40", "Z"])
    )
    picture = element(
        "svg",
        area,
        class_="steps",
        viewBox=f"0 0 {UNITS:.0f} 40",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"model calls at work over time, at most {high}",
    )
    return element(
        "div",
        element("span", f"model calls at work, at most {high}", class_="steps-name"),
        picture,
        class_="at-work",
    )


# ---- nodes ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    visits: int = 0
    items: int = 0
    failed: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    breakdown: Parts = field(default_factory=dict)
    used: Totals = field(default_factory=Totals)


def nodes_table(trace: Trace) -> Html | None:
    """What each place of the flow took, over all its visits."""
    nodes = _nodes(trace)
    if not nodes:
        return None
    shown = sorted(nodes.items(), key=lambda entry: -entry[1].seconds)[:_MOST]
    words = ("node", "visits", "items", "failed", "time", "longest", "waits", "what it went into", "cost")
    head = element(
        "tr",
        *(
            element("th", word, scope="col", class_="number" if at not in (0, 7) else None)
            for at, word in enumerate(words)
        ),
    )
    return element(
        "table",
        element("thead", head),
        element("tbody", (_node(place, node) for place, node in shown)),
        class_="plot",
        id="nodes",
    )


def _nodes(trace: Trace) -> Mapping[str, _Node]:
    found: dict[str, _Node] = {}
    for span in trace.walk():
        if span.what != "node":
            continue
        node = found.setdefault(place_of(span.path), _Node())
        if span.item is not None:
            node.items += not span.is_cut_short
            continue
        node.visits += not span.is_cut_short
        node.failed += span.status == "failed"
        node.seconds += span.duration
        node.longest = max(node.longest, span.duration)
        node.breakdown = merged(node.breakdown, span.breakdown)
        node.used += totals(span.walk())
    return found


def _node(place: str, node: _Node) -> Html:
    waits = sum(seconds for name, seconds in node.breakdown.items() if name in WAITS)
    return element(
        "tr",
        element("th", place, scope="row"),
        element("td", f"{node.visits:,}", class_="number"),
        element("td", f"{node.items:,}" if node.items else "", class_="number"),
        element("td", f"{node.failed:,}" if node.failed else "", class_="number bad"),
        element("td", duration(node.seconds), class_="number"),
        element("td", duration(node.longest), class_="number"),
        element("td", duration(waits) if waits >= 0.0005 else "", class_="number"),
        element("td", share_bar(node.breakdown), class_="when"),
        element("td", dollars(node.used.known_cost) if node.used.calls else "", class_="number"),
    )
