"""`agentflow run FILE[:NAME]`: runs a flow, shows its progress, and hands out what it leaves.

args, --input, --input-json ──▶ state ──▶ flow ──events──▶ progress (stderr)
                                             └──result──▶ --output FILE, or stdout
"""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.asking import can_ask
from agentflow.cli.durable.errand import Errand
from agentflow.cli.handing import Handing, handing_options
from agentflow.cli.inputs import read_input
from agentflow.cli.load import load_flow
from agentflow.cli.models import use_model

__all__ = ["command"]


@click.command("run", short_help="Run the flow in a file.")
@click.argument("target", metavar="FILE[:NAME]")
@click.argument("args", nargs=-1)
@click.option(
    "-i", "--input", "pairs", multiple=True, metavar="KEY=VALUE",
    help="Put a value into the state: JSON where it is JSON, else text. May be repeated.",
)  # fmt: skip
@click.option("--input-json", metavar="FILE", help="Put a JSON object's members into the state; - is stdin.")
@click.option("-m", "--model", metavar="NAME", help="The model of every call that names none.")
@handing_options
@click.option(
    "--run-id", metavar="ID", help="What the run is called; one of that id, begun with the same input, goes on."
)
@click.option("--no-ask", is_flag=True, help="Ask nothing on the terminal: a run with a question ends parked.")
@click.option("--no-durable", is_flag=True, help="Do not keep the steps: the run cannot be resumed, or ask.")
@click.option("--no-record", is_flag=True, help="Keep nothing at all, neither steps nor what `agentflow trace` shows.")
@debug_option
def command(
    target: str,
    args: tuple[str, ...],
    pairs: tuple[str, ...],
    input_json: str | None,
    model: str | None,
    output: Path | None,
    wants_json: bool,
    quiet: bool,
    run_id: str | None,
    no_ask: bool,
    no_durable: bool,
    no_record: bool,
) -> None:
    """Run the flow in FILE: the variable `flow`, the only flow there is, or the one called NAME.

    The ARGS arrive in the state as `args`, a list of texts. What the run puts under `output` (else what its last node
    writes) goes to stdout or to --output; progress and questions go to stderr.
    """
    handing = Handing.of(output, wants_json, quiet)
    with handing.alone():
        flow = load_flow(target, model)
        state = read_input(flow, args=args, pairs=pairs, json_file=input_json)
    if model is not None:
        use_model(model)
    errand = Errand(handing, asks=can_ask() and not no_ask, records=not no_record, keeps=not (no_durable or no_record))
    errand.carry_out(flow, lambda course: course.beginning(state, run_id))
