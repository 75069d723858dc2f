"""`agentflow cost optimize`: replays what was recorded, and proposes what would have been cheaper.

agentflow cost optimize --since 7d --quality-floor 0.9 --report out.html --patch models.patch.yml
agentflow cost optimize --runs calls.jsonl          another program's log, in the neutral format

Nothing is asked of any model, and nothing is changed but the files that are named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.files import write_whole
from agentflow.cli.recorded import file_option, open_runs, since_option
from agentflow.cli.tracing.screen import screen
from agentflow.cli.writable import Writable
from agentflow.errors import AgentFlowError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.model import ModelConfig
from agentflow.mcp.optimization.cost.advice.money import usd
from agentflow.mcp.optimization.cost.forecast import Estimate
from agentflow.mcp.optimization.cost.optimizer import CostOptimizer
from agentflow.mcp.optimization.cost.usage_log import UsageLog

if TYPE_CHECKING:
    from agentflow.mcp.optimization.cost.findings import Findings
    from agentflow.mcp.optimization.cost.proposal import Proposal

__all__ = ["command"]

_VERBS: Final = {"spent": "saves", "reserved": "frees", "bound": "may save"}


@click.command("optimize", short_help="Propose what would have been cheaper.")
@since_option
@click.option("--runs", metavar="FILE", help="A log in the neutral format (JSON lines) instead of the recorded runs.")
@click.option(
    "--quality-floor",
    type=click.FloatRange(0.0, 1.0),
    metavar="Q",
    help="Mean score that a mix of models must reach for sure.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0.0, 1.0),
    default=0.02,
    show_default=True,
    metavar="D",
    help="Without a floor: by how much the mean score may fall.",
)
@click.option(
    "--cache-ttl",
    type=click.FloatRange(min=1.0),
    default=3_600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a cache would keep answers.",
)
@click.option("--cache-all", is_flag=True, help="Cache answers that vary, too: a temperature above 0.")
@click.option(
    "--patient",
    multiple=True,
    metavar="NAME",
    help="A flow or tenant for whom a day is soon enough; * and ? stand for any. Again for more.",
)
@click.option("--report", type=Writable(), metavar="FILE", help="Write a page for a browser.")
@click.option("--picture", type=Writable(), metavar="FILE", help="Write quality against cost as a PNG.")
@click.option(
    "--patch", type=Writable(), metavar="FILE", help="Write what models.yml can say of it, to be laid over yours."
)
@click.option("--json", "wants_json", is_flag=True, help="Print all of it as JSON; amounts are US dollars a day.")
@file_option
@debug_option
def command(
    since: float | None,
    runs: str | None,
    quality_floor: float | None,
    tolerance: float,
    cache_ttl: float,
    cache_all: bool,
    patient: tuple[str, ...],
    report: Path | None,
    picture: Path | None,
    patch: Path | None,
    wants_json: bool,
    file: str | None,
) -> None:
    """Go over recorded model calls as if things had been done otherwise, and say what that would have saved a day.

    Each amount has the bounds within which it will lie at 95% for further traffic like this.
    """
    if runs is not None and file is not None:
        raise click.UsageError("--runs is a log of its own, --file one of recorded runs: give one of them")
    findings = CostOptimizer(_log(runs, file, since), describe=_describe()).propose(
        quality_floor=quality_floor,
        tolerance=tolerance,
        cache_ttl=cache_ttl,
        cache_all=cache_all,
        patient=patient,
    )
    if wants_json:
        click.echo(json.dumps(_as_json(findings), indent=2, ensure_ascii=False))
    else:
        _print(findings)
    _write(findings, report, picture, patch, quiet=wants_json)


def _log(runs: str | None, file: str | None, since: float | None) -> UsageLog:
    """Raises RunStoreError, ConfigurationError."""
    if runs is not None:
        return UsageLog.read(runs, since=since)
    from agentflow.mcp.optimization.cost.recorded import recorded_log

    with open_runs(file) as reader:
        return recorded_log(reader, since=since)


def _describe() -> Callable[[str], ModelConfig] | None:
    """What models.yml says of models; a broken one keeps nobody from looking at what was spent."""
    try:
        return AgentFlow.registry.describe
    except AgentFlowError as error:
        click.echo(f"note: prices are the package's, as the configuration cannot be read: {error}", err=True)
        return None


def _write(findings: Findings, report: Path | None, picture: Path | None, patch: Path | None, *, quiet: bool) -> None:
    written = []
    if report is not None:
        from agentflow.mcp.optimization.cost.page import page_of

        write_whole(report, page_of(findings))
        written.append(report)
    if picture is not None:
        from agentflow.mcp.optimization.cost.front_picture import write_front

        write_front(findings, picture)
        written.append(picture)
    if patch is not None:
        from agentflow.mcp.optimization.cost.patch import patch_of

        write_whole(patch, patch_of(findings))
        written.append(patch)
    if written and not quiet:
        click.echo("wrote " + ", ".join(map(str, written)))


# ---- shown ---------------------------------------------------------------------------------------------------


def _print(findings: Findings) -> None:
    for note in findings.notes:
        click.echo(f"note: {note}", err=True)
    if not findings.calls:
        return
    span = f"{findings.calls:,} calls have cost {usd(findings.spent)} in {findings.days:.1f} days"
    click.echo(f"{span}: {usd(findings.a_day)} a day")
    if findings.proposals:
        _print_proposals(findings.proposals)
    else:
        click.echo("nothing to propose")
    together = findings.together
    if together is not None:
        low, high = _bounds(together)
        click.echo(f"together, counting no dollar twice: {usd(together.value)} a day ({low} to {high})")


def _print_proposals(proposals: Sequence[Proposal]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("proposal", overflow="fold"),
        Column("", no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in ("a day", "from", "to")),
        Column("risk", no_wrap=True),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for each in proposals:
        table.add_row(Text(each.title), _VERBS[each.means], usd(each.saves.value), *_bounds(each.saves), each.risk)
    screen(otherwise=160).print(table)


def _bounds(estimate: Estimate) -> tuple[str, str]:
    low, high = ("?" if bound is None else usd(bound) for bound in (estimate.low, estimate.high))
    return low, high


def _as_json(findings: Findings) -> dict[str, object]:
    return {
        "source": findings.source,
        "calls": findings.calls,
        "runs": findings.runs,
        "days": findings.days,
        "spent": findings.spent,
        "unpriced": findings.unpriced,
        "prices": {"dated": findings.prices.dated, "source": findings.prices.source, "sha256": findings.prices.digest},
        "proposals": [_proposal(each) for each in findings.proposals],
        "together": None if findings.together is None else _amount(findings.together),
        "order": list(findings.order),
        "notes": list(findings.notes),
    }


def _proposal(proposal: Proposal) -> dict[str, object]:
    quality = proposal.quality
    return {
        "kind": proposal.kind,
        "title": proposal.title,
        "means": proposal.means,
        "saves": _amount(proposal.saves),
        "calls": proposal.calls,
        "risk": proposal.risk,
        "danger": proposal.danger,
        "how": proposal.how,
        "assumptions": list(proposal.assumptions),
        "details": dict(proposal.details),
        "quality": None if quality is None else asdict(quality),
        "models": {name: dict(fields) for name, fields in proposal.models.items()},
    }


def _amount(estimate: Estimate) -> dict[str, float | None]:
    return asdict(estimate)
