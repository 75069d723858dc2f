"""`agentflow distill --from-runs`: a model of your own that has learnt from what a dear one has answered.

agentflow distill --from-runs --flow sorting --dry-run                     what there is to learn from, and what is not
agentflow distill --from-runs --flow sorting --student ./MiniLM --output artifacts/sorter --steps 300
                  --yes-i-may "the provider's terms of May 2026, section 4"

An encoder learns which of its teacher's labels fits, and comes out as an artifact that can be called; a decoder learns
to write its teacher's answers, and comes out as a model folder for `agentflow compress`. Killed and started again, it
goes on at its last snapshot.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.recorded import file_option, open_runs, since_option, until_option
from agentflow.errors import CompressionError

if TYPE_CHECKING:
    from agentflow.mcp.compression.distillation.recorded import Prepared, Report
    from agentflow.mcp.compression.distillation.teaching import Teaching

__all__ = ["command"]


@click.command("distill", short_help="Teach a model of your own what a dear one has answered.")
@click.option("--from-runs", is_flag=True, required=True, help="Learn from recorded runs.")
@click.option("--flow", "flows", multiple=True, metavar="NAME", help="Runs of this flow; * and ? stand for any.")
@click.option("-m", "--model", "models", multiple=True, metavar="NAME", help="Answers of this model.")
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Questions of this node.")
@since_option
@until_option
@click.option("--min-score", type=click.FloatRange(0.0, 1.0), metavar="S", help="Leave out what was judged worse.")
@click.option("--consent-of", "tenants", multiple=True, metavar="TENANT", help="Whose contract says yes.")
@click.option("--without-consent", is_flag=True, help="Take runs that say nothing of consent, too; never a no.")
@click.option(
    "--held-out", type=click.FloatRange(0.0, 0.9), default=0.2, show_default=True, metavar="SHARE",
    help="Of the newest, to measure with.",
)  # fmt: skip
@click.option(
    "--near", type=click.FloatRange(0.0, 1.0, min_open=True), default=0.8, show_default=True, metavar="SHARE",
    help="How alike two questions are that count as one.",
)  # fmt: skip
@click.option("--yes-i-may", "terms", metavar="GROUND", help="On what ground the teacher's answers may be used.")
@click.option("--student", metavar="FOLDER", help="The model that learns.")
@click.option("--output", metavar="FOLDER", help="Where it goes.")
@click.option("--keep-answers", "kept", metavar="FOLDER", help="Also write the answers, and the account of them.")
@click.option("--steps", type=click.IntRange(1), default=300, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(0.0, min_open=True), default=2e-4, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True)
@click.option("--length", type=click.IntRange(4), default=256, show_default=True, help="Tokens of a conversation.")
@click.option("--patience", type=click.IntRange(1), help="Stop after so many evaluations without a better one.")
@click.option(
    "--frozen", type=click.FloatRange(0.0, 1.0, max_open=True), default=0.0, show_default=True, metavar="SHARE",
    help="Of the layers, from the first on, that stay as they are.",
)  # fmt: skip
@click.option("--floor", type=click.FloatRange(0.0, 1.0), metavar="A", help="Least agreement with the teacher.")
@click.option("--target", default="onnx:int8", show_default=True, help="For what a classifier is written: onnx, hf, …")
@click.option("--device", default="cpu", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--dry-run", is_flag=True, help="Only say what there is to learn from.")
@click.option("--json", "wants_json", is_flag=True, help="Print the account as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@file_option
@debug_option
def command(
    from_runs: bool,
    flows: tuple[str, ...],
    models: tuple[str, ...],
    nodes: tuple[str, ...],
    since: float | None,
    until: float | None,
    min_score: float | None,
    tenants: tuple[str, ...],
    without_consent: bool,
    held_out: float,
    near: float,
    terms: str | None,
    student: str | None,
    output: str | None,
    kept: str | None,
    steps: int,
    learning_rate: float,
    batch: int,
    length: int,
    patience: int | None,
    frozen: float,
    floor: float | None,
    target: str,
    device: str,
    seed: int,
    dry_run: bool,
    wants_json: bool,
    quiet: bool,
    file: str | None,
) -> None:
    """Take recorded answers, leave out what may not be used, and teach a student.

    Prompts and answers are recorded where models.yml says `observability: {runs: {capture: content}}`; a run is taken
    where it says `await emit("consent", {"training": True})`.
    """
    from agentflow.mcp.compression.backends import needs_torch
    from agentflow.mcp.compression.distillation.recorded import Consent, Selection, prepare

    if not dry_run and (student is None or output is None or not (terms or "").strip()):
        raise click.UsageError("give --student, --output and --yes-i-may GROUND, or --dry-run to look at first")
    with open_runs(file) as reader:
        prepared = prepare(
            reader,
            Selection(models=models, flows=flows, steps=nodes, since=since, until=until, min_score=min_score),
            teacher_terms=terms,
            consent=Consent(required=not without_consent, tenants=frozenset(tenants)),
            held_out=held_out,
            near=near,
        )
    _tell(prepared.report, wants_json=wants_json)
    if dry_run or student is None or output is None:
        return
    needs_torch()
    from agentflow.mcp.compression.distillation.teaching import Teaching

    teaching = Teaching(
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        length=length,
        patience=patience,
        frozen=frozen,
        seed=seed,
    )
    if Path(output).exists():
        raise CompressionError(f"{output} exists already; nothing is ever written over: give another --output")
    prepared.acknowledged()
    if kept is not None:
        prepared.write(kept)
    _teach(prepared, Path(student), Path(output), teaching, floor, target, device, quiet)


def _teach(
    prepared: Prepared, student: Path, output: Path, teaching: Teaching, floor: float | None, target: str, device: str,
    quiet: bool,
) -> None:  # fmt: skip
    from agentflow.cli.compressing.watching import watching_on
    from agentflow.mcp.compression.artifact.gate import Gate
    from agentflow.mcp.compression.checkpoint import Checkpoint
    from agentflow.mcp.compression.distillation.from_runs import sorter_of, writer_of

    with watching_on(sys.stderr, quiet=quiet) as watching:
        if Checkpoint.open(student).is_decoder:
            writer_of(prepared, student, output, teaching, device=device, progress=watching.see)
        else:
            gate = None if floor is None else Gate(agreement=floor)
            sorter_of(
                prepared, student, output, teaching, target=target, gate=gate, device=device, progress=watching.see
            )
    click.echo(output)


def _tell(report: Report, *, wants_json: bool) -> None:
    if wants_json:
        click.echo(json.dumps(report.to_json(), indent=2))
        return
    click.echo(f"{report.calls:,} calls of {report.runs:,} runs", err=True)
    for reason, count in report.dropped.items():
        click.echo(f"  {count:,} left out: {reason}", err=True)
    for kind, count in report.scrubbed.items():
        click.echo(f"  {count:,} taken out of texts: {kind}", err=True)
    if report.contradicting:
        click.echo(f"  {report.contradicting:,} were asked again, and answered otherwise", err=True)
    unpriced = f", {report.unpriced:,} of unknown price" if report.unpriced else ""
    click.echo(f"{report.train:,} to learn from, {report.held_out:,} held out (${report.cost:.4f}{unpriced})", err=True)
