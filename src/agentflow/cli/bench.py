"""`agentflow bench MODEL…`: how fast, how good and how dear models are under a load that does not wait for them.

agentflow bench gpt-4o fast --dataset questions.jsonl --rate 5 --duration 60 --slo ttft=2,tpot=0.2
agentflow bench fast --trace conv.csv --rate 5 --duration 300 --fail-if 'p99.ttft>2' --baseline last.json
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.failures import FAILED, UNRELIABLE
from agentflow.cli.interrupt import leave_interrupted
from agentflow.cli.tracing.amounts import count_of

if TYPE_CHECKING:
    from agentflow.cli.benching.live import Watching
    from agentflow.mcp.optimization.benchmark import (
        Arrivals,
        Baseline,
        Benchmark,
        BenchmarkReport,
        Dataset,
        Synthetic,
        Trace,
    )

__all__ = ["command"]

_EPILOG: Final = (
    "\b\nExit codes:\n"
    "  0    measured, and every gate holds\n"
    "  1    a gate fails, or a metric is worse than in the baseline\n"
    "  5    the measurement is not valid: the load generator itself was late\n"
    "  130  Ctrl-C; what was measured until then is shown and written\n"
)
_PIPED: Final = 160


@click.command("bench", short_help="Measure models under load.", epilog=_EPILOG)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--dataset", metavar="FILE", help="Questions, a line of JSON each: prompt, expected, max_tokens, …")
@click.option("--synthetic", metavar="IN:OUT", help="Prompts made up by tokens of prompt and answer, as in 512:128.")
@click.option("--trace", metavar="FILE", help="Arrivals as they were: Azure's CSV, or Mooncake's lines of JSON.")
@click.option("--rate", type=float, help="Requests a second; of a trace, what it is stretched to.  [default: 1]")
@click.option("--duration", type=float, default=60.0, show_default=True, help="Seconds that are measured.")
@click.option(
    "--arrivals", type=click.Choice(["constant", "poisson", "gamma"]), default="poisson", show_default=True,
    help="How requests come.",
)  # fmt: skip
@click.option("--cv", type=float, help="For gamma: the gaps' coefficient of variation; 1 is poisson, more is burstier.")
@click.option("--warmup", type=float, help="Seconds before that are not counted.  [default: a tenth, 10 at most]")
@click.option("--cooldown", type=float, help="Seconds after that are not counted.  [default: as --warmup]")
@click.option("--drain", type=float, default=30.0, show_default=True, help="Seconds to wait for the last answers.")
@click.option("--timeout", type=float, help="Seconds a call may take.")
@click.option("--workers", type=click.IntRange(0, 256), default=1, show_default=True, help="Load processes; 0: none.")
@click.option("--max-in-flight", type=click.IntRange(1), default=1000, show_default=True, help="Requests at once.")
@click.option("--max-lag", type=float, default=0.02, show_default=True, help="Seconds that it may be late, at p99.")
@click.option("--slo", metavar="LIMITS", help="What a good request keeps to, in seconds: ttft=2,tpot=0.2,e2e=30.")
@click.option(
    "--checker", "checkers", multiple=True, metavar="NAME[:WITH]", help="exact, contains, regex:…, json, schema:FILE."
)
@click.option("--guards", is_flag=True, help="Ask as programs do: with retries, breaker and load shedder.")
@click.option("--fail-if", "gates", multiple=True, metavar="CONDITION", help="As in 'p99.ttft>2', 'goodput<5'.")
@click.option("--baseline", metavar="FILE", help="An earlier --json; exit code 1 where a metric is worse.")
@click.option("--tolerance", type=float, default=0.05, show_default=True, help="By what share it may be worse.")
@click.option("--json", "json_file", metavar="FILE", help="Write all of it there, in the names of GuideLLM and AIPerf.")
@click.option("--html", "html_file", metavar="FILE", help="Write a report there.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed plans the same requests.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@debug_option
def command(
    models: tuple[str, ...],
    dataset: str | None,
    synthetic: str | None,
    trace: str | None,
    rate: float | None,
    duration: float,
    arrivals: str,
    cv: float | None,
    warmup: float | None,
    cooldown: float | None,
    drain: float,
    timeout: float | None,
    workers: int,
    max_in_flight: int,
    max_lag: float,
    slo: str | None,
    checkers: tuple[str, ...],
    guards: bool,
    gates: tuple[str, ...],
    baseline: str | None,
    tolerance: float,
    json_file: str | None,
    html_file: str | None,
    seed: int,
    quiet: bool,
) -> None:
    """Ask each MODEL the same questions at the same moments, one model after the other, and say how it did.

    Requests are sent when they are due, whether or not the ones before are answered, and latencies count from when they
    were due: a server that stalls is seen by everybody who would have met the stall.
    """
    from agentflow.cli.benching.live import watching_on
    from agentflow.mcp.optimization.benchmark import Benchmark, Objective, checker_named
    from agentflow.mcp.optimization.benchmark import baseline as read_baseline
    from agentflow.mcp.optimization.benchmark.gates import Gate

    read_gates = [Gate.parse(gate, models) for gate in gates]
    _check_models(models)
    before = None if baseline is None else read_baseline(baseline)
    replayed = _trace(trace, rate)
    watching: list[Watching] = []
    benchmark = Benchmark(
        *models,
        dataset=_questions(dataset, synthetic, replayed, seed),
        arrivals=replayed or _arrivals(arrivals, 1.0 if rate is None else rate, cv),
        duration=duration,
        warmup=warmup,
        cooldown=cooldown,
        drain=drain,
        objective=None if slo is None else Objective.parse(slo),
        checkers=[checker_named(each) for each in checkers],
        workers=workers,
        max_in_flight=max_in_flight,
        max_lag=max_lag,
        timeout=timeout,
        guards=guards,
        seed=seed,
        watch=lambda progress: watching[0].see(progress),
    )
    watching.append(watching_on(sys.stderr, benchmark.window, quiet=quiet))
    with watching[0]:
        report, interrupted = asyncio.run(_run(benchmark, before))
    report = replace(report, verdicts=tuple(report.judged(read_gates)))
    _tell(report, json_file, html_file)
    _leave(report, before, tolerance, interrupted)


async def _run(benchmark: Benchmark, before: Baseline | None) -> tuple[BenchmarkReport, bool]:
    """Ctrl-C ends it early and leaves what was measured; pressed again, it ends at once."""
    loop, interrupted = asyncio.get_running_loop(), []

    def stop() -> None:
        interrupted.append(True)
        loop.remove_signal_handler(signal.SIGINT)
        benchmark.stop()

    with suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread
        loop.add_signal_handler(signal.SIGINT, stop)
    return await benchmark.run(baseline=before), bool(interrupted)


def _check_models(models: tuple[str, ...]) -> None:
    """Before a process is started: a misspelt name, or a key that is missing, is said at once."""
    from agentflow.llm.agentflow import AgentFlow

    for model in models:
        AgentFlow.registry.resolve(model)


def _trace(path: str | None, rate: float | None) -> Trace | None:
    if path is None:
        return None
    from agentflow.mcp.optimization.benchmark import Trace

    read = Trace.read(path)
    return read if rate is None else read.at_rate(rate)


def _arrivals(kind: str, rate: float, cv: float | None) -> Arrivals:
    from agentflow.mcp.optimization.benchmark import Constant, Gamma, Poisson

    if (kind == "gamma") != (cv is not None):
        raise click.UsageError("--arrivals gamma needs --cv, and nothing else takes it.")
    if cv is not None:
        return Gamma(rate, cv)
    make: Callable[[float], Arrivals] = Constant if kind == "constant" else Poisson
    return make(rate)


def _questions(dataset: str | None, synthetic: str | None, trace: Trace | None, seed: int) -> Dataset | Synthetic:
    from agentflow.mcp.optimization.benchmark import Dataset, Synthetic

    if dataset is not None and synthetic is not None:
        raise click.UsageError("--dataset and --synthetic are two ways to say what is asked: give one.")
    if dataset is not None:
        return Dataset.read(dataset)
    if synthetic is not None:
        try:
            prompt, answer = map(int, synthetic.split(":"))
        except ValueError:
            raise click.UsageError("--synthetic takes two numbers of tokens, as in 512:128.") from None
        return Synthetic(prompt, answer, seed)
    if trace is not None:
        return Synthetic.like(trace, seed=seed)
    raise click.UsageError("There is nothing to ask: give --dataset FILE, --synthetic IN:OUT or --trace FILE.")


def _tell(report: BenchmarkReport, json_file: str | None, html_file: str | None) -> None:
    from agentflow.cli.benching.found import print_report
    from agentflow.cli.tracing.screen import screen

    if report.runs:
        print_report(screen(otherwise=_PIPED), report)
    report.write(json_file=json_file, html_file=html_file)
    for file in (json_file, html_file):
        if file is not None:
            click.echo(f"wrote {file}", err=True)


def _leave(report: BenchmarkReport, before: Baseline | None, tolerance: float, interrupted: bool) -> None:
    """The exit code: what was not measured well is no verdict on a model."""
    if interrupted:
        leave_interrupted("interrupted; what stands above is what was measured until then")
    if not report.valid:
        click.echo("error: the measurement is not valid, and judges nothing; see above", err=True)
        raise click.exceptions.Exit(UNRELIABLE)
    worse = [each for one in report.comparisons for each in one.worse(tolerance)] if before is not None else []
    for each in worse:
        click.echo(f"error: {each.metric} is worse than in the baseline (p {each.holm:.3f})", err=True)
    missing = [run.name for run in report.runs if before is not None and run.name not in before.measures]
    for name in missing:
        click.echo(f"error: the baseline holds no {name}, so nothing was compared with it", err=True)
    failed = sum(verdict.failed for verdict in report.verdicts)
    if failed:
        click.echo(f"error: {failed} of {count_of(len(report.verdicts), 'gate')} failed", err=True)
    if worse or missing or failed:
        raise click.exceptions.Exit(FAILED)
