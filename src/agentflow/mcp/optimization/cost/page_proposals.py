"""One proposal as a card of the page: what it saves, how sure that is, what may go wrong, and how to do it."""

from __future__ import annotations

from typing import Final

from agentflow.mcp.optimization.cost.advice.money import per_cent, usd
from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.markup import Html, element
from agentflow.mcp.optimization.cost.proposal import Proposal

__all__ = ["between", "proposal_card"]

_VERBS: Final = {"spent": "saves", "reserved": "frees", "bound": "may save"}
_WIDE: Final = 300.0
_HIGH: Final = 26.0


def proposal_card(proposal: Proposal, a_day: float, most: float, *, apart: bool) -> Html:
    """`most` is the highest bound of all proposals, so that the bars can be compared; what stands `apart` is in no
    sum."""
    lists = [element("li", *spelled(assumption)) for assumption in proposal.assumptions]
    facts = [element("div", element("dt", name), element("dd", value)) for name, value in proposal.details]
    return element(
        "article",
        element("h3", proposal.title),
        element(
            "p",
            f"{_VERBS[proposal.means]} ",
            element("strong", _amount(proposal)),
            element("span", _around(proposal, a_day, apart), class_="soft"),
            class_="saves",
        ),
        _bar(proposal.saves, most) if proposal.means == "spent" else None,
        element(
            "p",
            element(
                "span", f"{'no' if proposal.risk == 'none' else proposal.risk} risk", class_=f"pill {proposal.risk}"
            ),
            " ",
            proposal.danger,
            class_="risk",
        ),
        element("p", element("b", "To do: "), *spelled(proposal.how)),
        element("dl", *facts) if facts else None,
        element("details", element("summary", "What is taken for granted"), element("ul", *lists)) if lists else None,
        class_=f"proposal {proposal.means}",
    )


def _amount(proposal: Proposal) -> str:
    if proposal.means == "bound":
        return f"{usd(proposal.saves.low or 0.0)} to {usd(proposal.saves.high or proposal.saves.value)} a day"
    return f"{usd(proposal.saves.value)} a day"


def spelled(words: str) -> list[Html | str]:
    """What stands between backquotes is code."""
    parts = words.split("`")
    return [element("code", part) if number % 2 else part for number, part in enumerate(parts)]


def _around(proposal: Proposal, a_day: float, apart: bool) -> str:
    if proposal.means == "bound":
        return f" · {proposal.calls:,} calls"
    if proposal.means == "reserved":
        return f" · {between(proposal.saves)} · of what limits and budgets hold back"
    month = f"{usd(proposal.saves.a_month().value)} a month"
    share = f"{per_cent(proposal.saves.value, a_day)} of all"
    return f" · {between(proposal.saves)} · {month}, {share}{'' if not apart else ' · not in the sum'}"


def between(amount: Estimate) -> str:
    """`$2.65 to $3.21 at 95%`."""
    if amount.low is None or amount.high is None:
        return "too few runs for an interval"
    return f"{usd(amount.low)} to {usd(amount.high)} at {amount.level:.0%}"


def _bar(amount: Estimate, most: float) -> Html | None:
    """The amount as a bar, the interval as a line over its end."""
    if most <= 0.0 or amount.low is None or amount.high is None:
        return None
    place = [_WIDE * max(0.0, value) / most for value in (amount.value, amount.low, amount.high)]
    middle = _HIGH / 2
    return element(
        "svg",
        element("rect", x=0.0, y=5.0, width=place[0], height=_HIGH - 10.0, class_="amount"),
        element("line", x1=place[1], x2=place[2], y1=middle, y2=middle, class_="whisker"),
        *(element("line", x1=x, x2=x, y1=middle - 5.0, y2=middle + 5.0, class_="whisker") for x in place[1:]),
        viewBox=f"0 0 {_WIDE:g} {_HIGH:g}",
        preserveAspectRatio="none",
        class_="bar",
        aria_hidden="true",
    )
