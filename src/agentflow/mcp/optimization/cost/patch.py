"""The proposals as a models.yml that is laid over the others: what can be said there, each with its reason.

    # saves $2.93 a day ($2.65 to $3.21): Route by sort of work, …
    models:
      "gpt-4o":
        cache: {"ttl": 3600.0}

`AGENTFLOW_CONFIG=models.patch.yml` puts it in force; so does copying it. What models.yml cannot say stands in it as a
comment. Values are written as JSON, which YAML reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import wrap
from typing import Final

from agentflow.llm.config.loader import read_layer
from agentflow.mcp.optimization.cost.advice.money import usd
from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.proposal import Proposal

__all__ = ["in_force", "patch_of", "said_of"]

_WIDTH: Final = 112
_UNITS: Final = {"spent": "saves", "reserved": "frees", "bound": "may save up to"}


def patch_of(findings: Findings) -> str:
    """Text that loads as a models.yml; with nothing in force where no proposal can be said there."""
    entries: dict[str, dict[str, object]] = {}
    for proposal in findings.proposals:
        if in_force(proposal):
            for name, fields in proposal.models.items():
                entries.setdefault(name, {}).update(fields)
    text = "\n".join([*_head(findings), *_reasons(findings), *_models(findings, entries)]) + "\n"
    read_layer("the patch", text)  # what does not load is not written
    return text


def _head(findings: Findings) -> Iterator[str]:
    prices = findings.prices
    yield from _comment(
        f"Proposed by `agentflow cost optimize` from {findings.calls:,} calls of {findings.days:.1f} days "
        f"({findings.source or 'a log'}), with the prices of {prices.dated} ({prices.source}, "
        f"sha256 {prices.digest[:16]}…)."
    )
    if findings.together is not None:
        yield from _comment(f"Together, without counting a dollar twice, it saves {said_of(findings.together)}.")
    yield from _comment("Lay it over models.yml: AGENTFLOW_CONFIG names it, or copy what you want of it.")


def _reasons(findings: Findings) -> Iterator[str]:
    for proposal in findings.proposals:
        yield "#"
        yield from _comment(f"* {proposal.title}: {_UNITS[proposal.means]} {said_of(proposal.saves)}.")
        yield from _comment(f"  Risk: {proposal.risk}; {proposal.danger}.")
        if not in_force(proposal):
            yield from _comment(f"  Not in this file. To do: {proposal.how}.")
        for name, value in proposal.details if proposal.kind == "route" else ():
            yield from _comment(f"  {name}: {value}")


def _models(findings: Findings, entries: dict[str, dict[str, object]]) -> Iterator[str]:
    if not entries:
        yield "models: {}"
        return
    yield "models:"
    for name in sorted(entries):
        yield f"  {json.dumps(name)}:"
        for field, value in entries[name].items():
            yield f"    {field}: {json.dumps(value)}  # {_why(findings, name, field)}"


def _why(findings: Findings, name: str, field: str) -> str:
    """The title of the proposal that says so, on the rest of a line."""
    for proposal in findings.proposals:
        if field in proposal.models.get(name, {}):
            return " ".join(proposal.title.split())[:_WIDTH]
    return "proposed"


def _comment(text: str) -> Iterator[str]:
    """Names come from logs: none of them may end the comment."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    for line in wrap(plain, _WIDTH, subsequent_indent="  ", break_long_words=True) or [""]:
        yield f"# {line}"


def said_of(amount: Estimate) -> str:
    """`$2.93 a day ($2.65 to $3.21)`."""
    if amount.low is None or amount.high is None:
        return f"{usd(amount.value)} a day (too few runs for an interval)"
    return f"{usd(amount.value)} a day ({usd(amount.low)} to {usd(amount.high)})"


def in_force(proposal: Proposal) -> bool:
    """Whether the patch does it."""
    return bool(proposal.models) and (proposal.is_sure or proposal.means == "reserved")
