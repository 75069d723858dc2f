"""A run as one page: a file that needs no network and no script, and says what it did, why it was slow, what it cost.

    page_of(trace)  ──▶  "<!doctype html>…": answers, waterfall, graph, plots, tables, and the details of every line

Whatever comes from the run is text (`markup.py`). The page's policy (Content-Security-Policy) allows its own style and
its own script, by their digests, and nothing else: no address is ever asked for anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Final

from agentflow.cli.tracing.amounts import count_of, dollars, duration
from agentflow.cli.tracing.answers import answers_to
from agentflow.cli.tracing.categories import CATEGORIES
from agentflow.cli.tracing.markup import Html, element, joined
from agentflow.cli.tracing.notes import note_of
from agentflow.cli.tracing.page_bars import share_bar
from agentflow.cli.tracing.page_facts import Facts
from agentflow.cli.tracing.page_graph import graph_picture
from agentflow.cli.tracing.page_tables import calls_at_work, models_table, nodes_table, spent_on, time_table
from agentflow.cli.tracing.page_waterfall import legend, page_rows, waterfall_table
from agentflow.core.observability.trace.totals import totals
from agentflow.core.observability.trace.tree import Span, Trace

__all__ = ["page_of"]

_STATUS: Final = {
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "refused": "refused",
    "running": "still running",
    "waiting": "waiting",
    "parked": "parked",
    "lost": "lost",
    "unknown": "cut off",
}


def page_of(trace: Trace) -> str:
    """The whole file."""
    style, script = _style(), _asset("page.js")
    rows, left_out = page_rows(trace)
    facts = Facts()
    shown = frozenset(row.thing.number for row in rows if isinstance(row.thing, Span))
    body = element(
        "body",
        _header(trace),
        element(
            "main",
            _section(
                "waterfall",
                "Waterfall",
                _WATERFALL_WORDS,
                legend(trace),
                waterfall_table(trace, rows, left_out),
                calls_at_work(trace),
            ),
            _section("graph", "Graph", _GRAPH_WORDS, _scrolling(graph_picture(trace, shown))),
            _section("time", "Where the time went", _TIME_WORDS, _scrolling(time_table(trace))),
            _section("money", "Models", None, _scrolling(models_table(trace))),
            _section("places", "Nodes", None, _scrolling(nodes_table(trace))),
        ),
        element("div", (facts.of(row) for row in rows), id="facts"),
        element("footer", _footer(trace)),
        element("script", script),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{trace.name or 'run'}, {_STATUS[trace.status]}, {duration(trace.duration)} · AgentFlow"),
        element("style", style),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


_ENDED: Final = {
    "done": "Ran to its end",
    "failed": "Failed",
    "cancelled": "Was cancelled",
    "refused": "Was refused",
    "running": "Is running",
    "waiting": "Waits",
    "parked": "Was parked",
    "lost": "Was lost",
    "unknown": "Was cut off",
}
_WATERFALL_WORDS: Final = (
    "Broad bars decided how long the run took; slim ones ran beside them. Choose a name for its details."
)
_GRAPH_WORDS: Final = (
    "The flow as it was written. What is dashed was not visited or not taken; "
    "the strip says what a node's time went into."
)
_TIME_WORDS: Final = (
    "Time is counted along the critical path: what ran beside something slower cost the run nothing. "
    "“All calls” adds up every model call, whether the run waited for it or not."
)


def _section(name: str, title: str, words: str | None, *parts: Html | None) -> Html | None:
    found = [part for part in parts if part is not None]
    if not found:
        return None
    said = element("p", words, class_="words") if words else None
    return element("section", element("h2", title, id=f"h-{name}"), said, *found, id=name, aria_labelledby=f"h-{name}")


def _scrolling(part: Html | None) -> Html | None:
    """Wide things scroll by themselves; the keyboard reaches them."""
    return None if part is None else element("div", part, class_="scrolling", tabindex=0)


# ---- the answers ---------------------------------------------------------------------------------------------


def _header(trace: Trace) -> Html:
    total, answers = totals(trace.walk()), answers_to(trace)
    cost = dollars(total.known_cost, more=total.known_cost is not None and total.unpriced > 0)
    return element(
        "header",
        element("p", "AgentFlow trace", class_="brand"),
        element(
            "h1", trace.name or "a run", " ", element("span", _STATUS[trace.status], class_=f"pill {trace.status}")
        ),
        element("p", _about(trace), class_="about"),
        element(
            "div",
            _card("What did it do?", _ENDED[trace.status], answers.did),
            _card("Why did it take so long?", duration(trace.duration), answers.slow, share_bar(spent_on(trace))),
            _card("What did it cost?", cost if total.calls else "$0", answers.cost),
            class_="cards",
        ),
        _feedback(trace),
    )


def _card(question: str, amount: str, answer: str, bar: Html | None = None) -> Html:
    return element("article", element("h2", question), element("p", amount, class_="amount"), bar, element("p", answer))


def _about(trace: Trace) -> Html:
    return joined("run ", element("code", trace.run_id), *(f" · {word}" for word in _circumstances(trace)))


def _circumstances(trace: Trace) -> Iterator[str]:
    try:
        began = datetime.fromtimestamp(trace.started, UTC)
    except (OverflowError, ValueError, OSError):
        pass
    else:
        if trace.root is not None:
            yield f"began {began:%Y-%m-%d %H:%M:%S} UTC"
    for name, word in (("tenant", "for"), ("parent_run", "started in run")):
        said = trace.root.data.get(name) if trace.root else None
        if said:
            yield f"{word} {str(said)[:200]}"


def _feedback(trace: Trace) -> Html | None:
    notes = [note for mark in trace.marks[:20] if (note := note_of(mark)) is not None]
    return element("ul", (element("li", note.text[:1000]) for note in notes), class_="feedback") if notes else None


def _footer(trace: Trace) -> str:
    open_spans = sum(span.status == "unknown" for span in trace.walk())
    lost = f" {count_of(open_spans, 'span')} have no known end." if open_spans else ""
    return f"{count_of(trace.events, 'event')}.{lost} This page asks nothing of any server."


# ---- what it is dressed in -----------------------------------------------------------------------------------


@cache
def _asset(name: str) -> str:
    return resources.files("agentflow.cli.tracing.assets").joinpath(name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    """The style sheet, with the colours of the categories in front of it."""
    names = CATEGORIES.values()
    light = "".join(f"--{each.name}:{each.light};" for each in names)
    dark = "".join(f"--{each.name}:{each.dark};" for each in names)
    rules = "".join(f".c-{each.name}{{fill:var(--{each.name});background:var(--{each.name})}}" for each in names)
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{rules}\n{_asset('page.css')}"


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
