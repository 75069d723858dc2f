"""The findings as one page: a file that asks nothing of any server, in the light and in the dark.

    page_of(findings)  ──▶  "<!doctype html>…": what it costs, what could be saved, each proposal, the front, the tables

Its policy allows its own style sheet, by its digest, and nothing else; there is no script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib import resources

from agentflow.mcp.optimization.cost.advice.money import per_cent, usd
from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.forecast import GROUPS, Estimate
from agentflow.mcp.optimization.cost.markup import Html, element
from agentflow.mcp.optimization.cost.page_front import front_drawings
from agentflow.mcp.optimization.cost.page_proposals import between, proposal_card
from agentflow.mcp.optimization.cost.page_tables import front_table, prices_table, spend_tables

__all__ = ["page_of"]

_ORDER_WORDS = (
    "Taken one after the other, each on what the one before has left, so that no dollar counts twice: what is answered "
    "from a cache is neither routed nor batched."
)
_FRONT_WORDS = (
    "The line is the cheapest mix of models for every mean score, the band reaches down to its lower bound. "
    "A dot is one model for everything."
)


def page_of(findings: Findings) -> str:
    """The whole file."""
    style = _style()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{usd(findings.a_day)} a day · AgentFlow cost"),
        element("style", Html(style)),
    )
    body = element(
        "body",
        _header(findings),
        element("main", *_sections(findings)),
        element("footer", "This page asks nothing of any server. Amounts are US dollars."),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


# ---- the answers ---------------------------------------------------------------------------------------------


def _header(findings: Findings) -> Html:
    return element(
        "header",
        element("p", "AgentFlow cost", class_="brand"),
        element("h1", _headline(findings)),
        element("p", _about(findings), class_="about"),
        element("div", *_cards(findings), class_="cards"),
        element("ul", (element("li", note) for note in findings.notes), class_="notes") if findings.notes else None,
    )


def _headline(findings: Findings) -> str:
    if not findings.calls:
        return "Nothing was asked"
    if findings.together is None:
        return f"{usd(findings.a_day)} a day"
    return f"{usd(findings.a_day)} a day could be {usd(max(0.0, findings.a_day - findings.together.value))}"


def _about(findings: Findings) -> str:
    if findings.began is None or findings.ended is None:
        return findings.source
    first, last = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}" for at in (findings.began, findings.ended))
    calls = f"{findings.calls:,} calls in {findings.runs:,} runs"
    return f"{calls} · {first} to {last} UTC · {findings.source or 'a log'}"


def _cards(findings: Findings) -> Iterable[Html]:
    yield _card("What does it cost?", f"{usd(findings.a_day)} a day", [_a_month(findings.a_day, None)])
    if findings.together is not None:
        share = per_cent(findings.together.value, findings.a_day)
        yield _card(
            "What could be saved?",
            f"{usd(findings.together.value)} a day",
            [between(findings.together), f"{share} of it; {_a_month(findings.together.value, findings.together)}"],
        )
    else:
        yield _card(
            "What could be saved?", "nothing for sure", ["no proposal has more than nothing at its lower bound"]
        )
    quality = findings.quality
    if quality is not None:
        yield _card(
            "What happens to quality?",
            f"{quality.before:.3f} → {quality.after:.3f}",
            [f"no less than {quality.low:.3f} at {findings.terms.level:.0%}; the floor is {quality.floor:.3f}"],
        )
    else:
        yield _card("What happens to quality?", "as it is", ["no answer comes from another model"])


def _card(question: str, amount: str, words: Iterable[str]) -> Html:
    said = (element("p", word) for word in words)
    return element("article", element("h2", question), element("p", amount, class_="amount"), *said)


def _a_month(value: float, estimate: Estimate | None) -> str:
    if estimate is None:
        return f"{usd(Estimate(value).a_month().value)} a month of 30.4 days"
    return f"{usd(estimate.a_month().value)} a month"


# ---- the sections --------------------------------------------------------------------------------------------


def _sections(findings: Findings) -> Iterable[Html]:
    most = max(
        (each.saves.high or each.saves.value for each in findings.proposals if each.means == "spent"), default=0.0
    )
    cards = [
        proposal_card(proposal, findings.a_day, most, apart=proposal.title not in findings.order)
        for proposal in findings.proposals
    ]
    if cards:
        yield _section("proposals", "Proposals", None, element("div", *cards, class_="proposals"))
    if len(findings.order) > 1 and findings.together is not None:
        steps = element("ol", *(element("li", title) for title in findings.order))
        sum_ = element("p", f"Together {usd(findings.together.value)} a day, {between(findings.together)}.")
        yield _section("together", "Together", _ORDER_WORDS, steps, sum_)
    drawings = front_drawings(findings)
    if drawings:
        table = element("details", element("summary", "As a table"), _scrolling(front_table(findings)))
        yield _section("front", "Quality and cost", _FRONT_WORDS, *drawings, table)
    if findings.calls:
        yield _section("spend", "What was spent", None, *(_scrolling(table) for table in spend_tables(findings)))
    yield _section("method", "How sure this is", None, *_method(findings))


def _section(name: str, title: str, words: str | None, *parts: Html) -> Html:
    said = element("p", words, class_="words") if words else None
    return element("section", element("h2", title, id=f"h-{name}"), said, *parts, id=name, aria_labelledby=f"h-{name}")


def _scrolling(part: Html) -> Html:
    """Wide things scroll by themselves; the keyboard reaches them."""
    return element("div", part, class_="scrolling", tabindex="0")


def _method(findings: Findings) -> Iterable[Html]:
    yield element(
        "p",
        f"An interval is where the amount will lie, at {findings.terms.level:.0%}, in a further "
        f"{findings.days:.1f} days of traffic like this. It comes from replaying the log up to {GROUPS} times, each "
        "time without a part of its runs (a delete-a-group jackknife), with the variance counted twice: once for what "
        "is known of the past, once for the chance of the future. Runs are taken to be independent; growth is not "
        "foreseen, nor are days unlike those of the log.",
    )
    prices = findings.prices
    yield element("p", f"Prices: {prices.source}, of {prices.dated}, SHA-256 ", element("code", prices.digest), ".")
    yield element("details", element("summary", "The prices"), _scrolling(prices_table(findings)))


# ---- what it is dressed in -----------------------------------------------------------------------------------


@cache
def _style() -> str:
    return resources.files("agentflow.mcp.optimization.cost").joinpath("page.css").read_text(encoding="utf-8")


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
