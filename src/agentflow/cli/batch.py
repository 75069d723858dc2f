"""`agentflow batch`: many requests at half the price, hours later, by the providers' batch APIs.

    agentflow batch submit prompts.jsonl --model gpt-4o-mini      prints the job's id
    agentflow batch status [JOB]                                  how far it is; without JOB all jobs
    agentflow batch results JOB > answers.jsonl                   as they arrive, until all are there
    agentflow batch cancel JOB
    agentflow batch resume JOB                                    go on after whatever ended the process

Jobs are kept in .agentflow/batches.db, unless --store says otherwise. Any of these may be interrupted.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, TextIO

import click

from agentflow.cli.batch_lines import read_lines, result_line
from agentflow.cli.batch_progress import following, summary
from agentflow.cli.debug import debug_option
from agentflow.cli.failures import FAILED
from agentflow.cli.interrupt import leave_interrupted
from agentflow.llm.agentflow import AgentFlow
from agentflow.mcp.performance.batching.jobs.job import BatchJob
from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy
from agentflow.mcp.performance.batching.jobs.result import BatchStatus, PartStatus

__all__ = ["command"]

DEFAULT_STORE: Final = ".agentflow/batches.db"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_store_option = click.option(
    "--store", metavar="FILE", default=DEFAULT_STORE, show_default=True, help="The file that jobs are kept in."
)
_quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")


class _Span(click.ParamType[float]):
    """`90s`, `30m`, `2h`, `1d`: seconds."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is no span of time: 90s, 30m, 2h, 1d", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


@click.group("batch", short_help="Ask many requests at half the price, hours later.")
@debug_option
def command() -> None:
    """Ask many requests at half the price, hours later, by the provider's batch API."""


@command.command("submit", short_help="Hand a file of requests to the provider.")
@click.argument("file", type=click.File(encoding="utf-8"), metavar="FILE.jsonl")
@click.option("-m", "--model", required=True, metavar="NAME", help="Which model; `agentflow models` lists them.")
@click.option(
    "--deadline", type=_Span(), metavar="SPAN", help="Ask directly what is not answered by then: 30m, 2h, 1d."
)
@click.option("--id", "job_id", metavar="ID", help="An id of your own: a second submission under it changes nothing.")
@click.option("--attempts", type=click.IntRange(min=1), default=3, show_default=True, help="Of a request that fails.")
@click.option("--wait", is_flag=True, help="Stay until all is answered.")
@_store_option
@_quiet_option
@debug_option
def submit(
    file: TextIO,
    model: str,
    deadline: float | None,
    job_id: str | None,
    attempts: int,
    wait: bool,
    store: str,
    quiet: bool,
) -> None:
    """Hand a file of requests (JSON lines; - for stdin) to the provider, and print the job's id."""
    asked = list(read_lines(file, file.name))
    if not asked:
        raise click.UsageError(f"{file.name} asks nothing: it needs a line for each request")

    async def work() -> None:
        policy = BatchPolicy(attempts=attempts)
        job = await BatchJob.submit(asked, model=model, store=store, deadline=deadline, policy=policy, job_id=job_id)
        with job:
            click.echo(job.id)
            if wait:
                await _stay(job, quiet)
        await AgentFlow.aclose()

    _carry_out(work, f"agentflow batch status --store {store}")


@command.command("status", short_help="Say how far a job is, or all of them.")
@click.argument("job", required=False, metavar="[JOB]")
@click.option("--json", "wants_json", is_flag=True, help="Print it as JSON.")
@click.option("--journal", is_flag=True, help="Also print what was decided and done, with its reasons.")
@_store_option
@debug_option
def status(job: str | None, wants_json: bool, journal: bool, store: str) -> None:
    """Say how far a job is; without JOB, all jobs of the file. Nobody is asked: it says what is known here."""
    if job is None:
        for each in BatchJob.all(store):
            click.echo(json.dumps(asdict(each)) if wants_json else _row(each))
        return
    with BatchJob.open(job, store=store) as opened:
        found = opened.status()
        if wants_json:
            click.echo(json.dumps(asdict(found), indent=2))
        else:
            click.echo(_row(found))
            for part in found.parts:
                counted = "" if part.done is None else f", {part.done} done"
                click.echo(
                    f"  {part.name}  {part.state}  {part.requests} requests{counted}  {part.batch or ''}".rstrip()
                )
        if journal:
            for entry in opened.journal():
                moved = f"{entry.old or '-'} → {entry.new}" if entry.new else entry.event
                click.echo(f"  {_time(entry.at)}  {entry.part or '-'}  {moved}: {entry.reason}")


@command.command("results", short_help="Print answers as they arrive.")
@click.argument("job", metavar="JOB")
@click.option("-o", "--output", type=click.File("w", encoding="utf-8"), default="-", help="Where to; else stdout.")
@click.option("--no-wait", is_flag=True, help="Only what is there already; nobody is asked.")
@_store_option
@_quiet_option
@debug_option
def results(job: str, output: TextIO, no_wait: bool, store: str, quiet: bool) -> None:
    """Print what became of each request, a JSON line each, in the order in which it is known. It waits for what is
    missing; 1 is its exit code if a request failed."""

    async def work() -> None:
        with BatchJob.open(job, store=store) as opened:
            if no_wait:
                for result in opened.known():
                    click.echo(result_line(result), file=output)
                return
            async with following(opened.status, sys.stderr, quiet=quiet):
                async for result in opened.results():
                    click.echo(result_line(result), file=output)
            _conclude(opened.status())
        await AgentFlow.aclose()

    _carry_out(work, f"agentflow batch results {job} --store {store}")


@command.command("cancel", short_help="Call a job off.")
@click.argument("job", metavar="JOB")
@click.option("--wait", is_flag=True, help="Stay until the provider has let go of it.")
@_store_option
@_quiet_option
@debug_option
def cancel(job: str, wait: bool, store: str, quiet: bool) -> None:
    """Call a job off. What is answered by then is kept, for it is paid for."""

    async def work() -> None:
        with BatchJob.open(job, store=store) as opened:
            found = await opened.cancel()
            if wait and found.open_parts:
                async with following(opened.status, sys.stderr, quiet=quiet):
                    found = await opened.finish()
            click.echo(summary(found))
            if found.open_parts:
                click.echo(
                    f"note: the provider still has {found.open_parts} of its batches; `resume` collects them", err=True
                )
        await AgentFlow.aclose()

    _carry_out(work, f"agentflow batch cancel {job} --store {store}")


@command.command("resume", short_help="Go on with a job until all is answered.")
@click.argument("job", metavar="JOB")
@_store_option
@_quiet_option
@debug_option
def resume(job: str, store: str, quiet: bool) -> None:
    """Go on with a job, whatever ended the process that was at work on it. What the provider has already is found, not
    sent again; 1 is its exit code if a request failed."""

    async def work() -> None:
        with BatchJob.open(job, store=store) as opened:
            await _stay(opened, quiet)
        await AgentFlow.aclose()

    _carry_out(work, f"agentflow batch resume {job} --store {store}")


# ---- what they share -----------------------------------------------------------------------------------------


def _carry_out(work: Callable[[], Coroutine[Any, Any, None]], again: str) -> None:
    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        leave_interrupted(f"\ninterrupted; nothing is lost: {again}")


async def _stay(job: BatchJob, quiet: bool) -> None:
    async with following(job.status, sys.stderr, quiet=quiet):
        found = await job.finish()
    _conclude(found)


def _conclude(status: BatchStatus) -> None:
    click.echo(summary(status), err=True)
    if status.failed:
        raise click.exceptions.Exit(FAILED)


def _row(status: BatchStatus) -> str:
    due = "" if status.deadline is None else f"  due {_time(status.deadline)}"
    return f"{_time(status.created)}  {status.state:<10}  {status.model}  {summary(status)}{due}"


def _part(part: PartStatus) -> str:
    counted = "" if part.done is None else f", {part.done} done"
    return f"{part.name}  {part.state}  {part.requests} requests{counted}  {part.batch or ''}".rstrip()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
