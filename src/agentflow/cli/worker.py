"""`agentflow worker FILE[:NAME]…`: goes on with runs of these flows that nobody runs.

agentflow worker flow.py                                  of the file of runs: lost ones, and those whose time has come
agentflow worker flow.py --once                           those that there are now, and no more
agentflow worker flow.py --queue jobs --database URL      of a queue in PostgreSQL, and what dead workers have left
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.durable.queues import serve_queue
from agentflow.cli.durable.stopping import Stopping
from agentflow.cli.durable.working import Say, Use, Worker
from agentflow.cli.load import AnyFlow, load_flow
from agentflow.cli.models import use_model
from agentflow.cli.recorded import runs_file
from agentflow.cli.recording import Recording
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.llm.agentflow import AgentFlow

__all__ = ["command"]


@click.command("worker", short_help="Go on with runs that nobody runs.")
@click.argument("targets", metavar="FILE[:NAME]…", nargs=-1, required=True)
@click.option("--once", is_flag=True, help="Do what there is to do now, and end.")
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=4, show_default=True, help="At most so many at once."
)
@click.option("--queue", metavar="NAME", help="Work off this queue of a PostgreSQL database.")
@click.option(
    "--database", envvar="AGENTFLOW_DATABASE", metavar="URL", help="Where the queue is; else AGENTFLOW_DATABASE."
)
@click.option(
    "-m", "--model", metavar="NAME", help="The model of every call that names none; else the one each run began with."
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of runs that end well.")
@click.option("--no-record", is_flag=True, help="Do not record the runs for `agentflow trace`.")
@click.option("--file", "file", metavar="FILE", help="The file of runs.")
@debug_option
def command(
    targets: tuple[str, ...],
    once: bool,
    concurrency: int,
    queue: str | None,
    database: str | None,
    model: str | None,
    quiet: bool,
    no_record: bool,
    file: str | None,
) -> None:
    """Go on with runs of the flows in these FILEs that nobody runs: whose process has died, whose timer is over, or
    whose question has waited long enough.

    Ctrl-C and SIGTERM let the runs under way end and begin no more. A second Ctrl-C ends at once; others can go on with
    what was under way.
    """
    if queue is not None and database is None:
        raise click.UsageError("--queue needs --database URL, or AGENTFLOW_DATABASE.")
    if queue is not None and once:
        raise click.UsageError("A queue is never at its end: --once is for the file of runs.")
    flows = _flows(targets)
    use = _user(model)
    with Recording(wanted=not no_record, file=file), Stopping() as stopping:
        if queue is not None and database is not None:
            asyncio.run(serve_queue(flows, queue, database, stopping))
        else:
            worker = Worker(flows, SqliteDurability(runs_file(file)), concurrency, say=_sayer(quiet), use=use)
            asyncio.run(worker.work(stopping, once=once))


def _flows(targets: Sequence[str]) -> list[AnyFlow]:
    """Raises click.UsageError for two flows of one name: a run knows its flow by that."""
    flows = [load_flow(target) for target in targets]
    names = [flow.name for flow in flows]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise click.UsageError(f"Two of the flows are called {', '.join(sorted(twice))}: give them names of their own.")
    for flow in flows:
        flow.strict = False
    return flows


def _user(named: str | None) -> Use | None:
    """What has each run ask the model it began with. One that is named here is asked by all."""
    if named is not None:
        use_model(named)
        return None
    usual: str | None = None

    def use(model: str | None) -> None:
        nonlocal usual
        if model is not None:
            usual = usual or AgentFlow.registry.default_model().name
            use_model(model)
        elif usual is not None:
            use_model(usual)

    return use


def _sayer(quiet: bool) -> Say:
    def say(line: str, is_trouble: bool) -> None:
        if is_trouble or not quiet:
            click.echo(line, err=True)

    return say
