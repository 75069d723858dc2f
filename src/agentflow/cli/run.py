"""`agentflow run FILE[:NAME]`: runs a flow, shows its progress, and hands out what it leaves.

args, --input, --input-json ──▶ state ──▶ flow ──events──▶ progress (stderr)
                                             └──result──▶ --output FILE, or stdout
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.files import unwritable, write_whole
from agentflow.cli.inputs import read_input
from agentflow.cli.interrupt import leave_interrupted
from agentflow.cli.ledger import span
from agentflow.cli.load import AnyFlow, load_flow
from agentflow.cli.models import stand_in_notice, use_model
from agentflow.cli.outcome import Foreign, as_text, output_key, result_json
from agentflow.cli.progress import Progress, progress_on
from agentflow.cli.recording import Recording
from agentflow.core import ExecutionEvent, Flow, FlowResult, SharedState
from agentflow.errors import AgentFlowError

__all__ = ["command"]

See = Callable[[ExecutionEvent], None]


@click.command("run", short_help="Run the flow in a file.")
@click.argument("target", metavar="FILE[:NAME]")
@click.argument("args", nargs=-1)
@click.option(
    "-i", "--input", "pairs", multiple=True, metavar="KEY=VALUE",
    help="Put a value into the state: JSON where it is JSON, else text. May be repeated.",
)  # fmt: skip
@click.option("--input-json", metavar="FILE", help="Put a JSON object's members into the state; - is stdin.")
@click.option("-m", "--model", metavar="NAME", help="The model of every call that names none.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the output there; - is stdout.",
)  # fmt: skip
@click.option("--json", "wants_json", is_flag=True, help="Print the whole result as JSON: status, output, state.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notes; errors are still said.")
@click.option("--no-record", is_flag=True, help="Do not keep the run for `agentflow trace`.")
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
    no_record: bool,
) -> None:
    """Run the flow in FILE: the variable `flow`, the only flow there is, or the one called NAME.

    The ARGS arrive in the state as `args`, a list of texts. What the run puts under `output` (else what its last node
    writes) goes to stdout or to --output; progress goes to stderr.
    """
    output = _checked(output)
    progress = progress_on(sys.stderr, quiet=quiet)
    watcher = _Watcher(progress)
    recording = Recording(wanted=not no_record)
    with redirect_stdout(sys.stderr) if wants_json else nullcontext():  # what a flow prints is no JSON
        flow = load_flow(target)
        state = read_input(flow, args=args, pairs=pairs, json_file=input_json)
        if model is not None:
            use_model(model)
        try:
            with recording, progress:
                result = _watch(flow, state, watcher.see)
        except KeyboardInterrupt:
            unwritten = "" if output is None else f"; {output} was not written"
            leave_interrupted(f"interrupted; {progress.ledger.standing()}{unwritten}")
    key = output_key(flow.graph, result, watcher.last_path)
    if wants_json:
        _print_json(result_json(result, key), quiet=quiet)
    if not quiet and recording.trouble is not None:
        click.echo(f"note: {recording.trouble}", err=True)
    shown = f" (agentflow trace {result.run_id})" if recording.recorded else ""
    if result.error is not None:
        if shown and not quiet:
            click.echo(f"failed after {span(result.duration)}{shown}", err=True)
        raise result.error
    if not quiet:
        click.echo(f"done in {span(result.duration)}: {progress.ledger.summary()}{shown}", err=True)
    _hand_out(result, key, output, wants_json=wants_json, quiet=quiet)


def _checked(output: Path | None) -> Path | None:
    """The file to write, refused before anything runs if it cannot be; None for stdout."""
    if output is None or output == Path("-"):
        return None
    problem = unwritable(output)
    if problem is not None:
        raise click.BadParameter(problem, param_hint="--output")
    return output


# ---- running -------------------------------------------------------------------------------------------------


class _Watcher:
    """Sees every event once: feeds the progress, and remembers what the end of the run will be asked for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._noticed = False
        self.last_path = ""

    def see(self, event: ExecutionEvent) -> None:
        self._progress.see(event)
        if event.kind == "node_success":
            self.last_path = event.path
        elif event.kind == "model_start" and not self._noticed:
            self._notice(str(event.data.get("model")))

    def _notice(self, model: str) -> None:
        notice = stand_in_notice(model)
        if notice is not None:
            self._noticed = True
            self._progress.note(notice)


def _watch(flow: AnyFlow, state: dict[str, object], see: See) -> FlowResult:
    """The run to its end; what made it fail stands in the result. Ctrl-C cancels it and raises KeyboardInterrupt."""
    if isinstance(flow, Flow):
        return _watch_blocking(flow, state, see)
    return asyncio.run(_watch_async(flow, state, see))


async def _watch_async(flow: AnyFlow, state: dict[str, object], see: See) -> FlowResult:
    assert not isinstance(flow, Flow)
    async with flow.stream(SharedState(state)) as events:
        try:
            async for event in events:
                see(event)
        except AgentFlowError as error:
            if events.result.error is not error:
                raise
    return events.result


def _watch_blocking(flow: Flow, state: dict[str, object], see: See) -> FlowResult:
    with flow.stream(SharedState(state)) as events:
        try:
            for event in events:
                see(event)
        except AgentFlowError as error:
            if events.result.error is not error:
                raise
    return events.result


# ---- handing out ---------------------------------------------------------------------------------------------


def _hand_out(result: FlowResult, key: str | None, output: Path | None, *, wants_json: bool, quiet: bool) -> None:
    if key is None:
        if output is not None:
            raise click.ClickException(
                f"{output} was not written, because the run left no output: let a node write the key `output` "
                f"(the state holds {', '.join(result.state) or 'nothing'})"
            )
        if not (quiet or wants_json):
            click.echo(
                f"no output: the state holds {', '.join(result.state) or 'nothing'}; --json shows it, and what a node "
                "writes under `output` is printed",
                err=True,
            )
        return
    if output is not None:
        write_whole(output, _ended(as_text(result.state[key])))
        if not (quiet or wants_json):
            click.echo(f"wrote {output}")
    elif not wants_json:
        click.echo(_ended(as_text(result.state[key])), nl=False)


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else text + "\n"


def _print_json(json: Foreign, *, quiet: bool) -> None:
    click.echo(json.text)
    if json.types and not quiet:
        click.echo(f"note: JSON has no word for {', '.join(json.types)}; their repr stands there", err=True)
